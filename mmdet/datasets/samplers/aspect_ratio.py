"""Batches of images of like orientation, which need little padding."""
from collections.abc import Iterator

from torch.utils.data import BatchSampler, Sampler

from mmdet.errors import ConfigError
from mmdet.registry import DATA_SAMPLERS

from .draw import Draw


@DATA_SAMPLERS.register_module()
class AspectRatioBatchSampler(BatchSampler):
    """Gathers draws into batches of either upright or lying images.

    Args:
        sampler: yields draws; its `dataset` gives `get_data_info(index)` with 'width' and 'height'.
        batch_size: images in a batch.
        drop_last: leave out the batch that is not full, else the remainders of both kinds are batched together.
    """

    def __init__(self, sampler: Sampler, batch_size: int, drop_last: bool = False):
        if batch_size < 1:
            raise ConfigError(f'AspectRatioBatchSampler: batch_size is {batch_size}; it must be positive')
        super().__init__(sampler, batch_size, drop_last)

    def __iter__(self) -> Iterator[list[Draw]]:
        upright, lying = [], []
        for draw in self.sampler:
            image = self.sampler.dataset.get_data_info(draw.index)
            batch = upright if image['width'] < image['height'] else lying
            batch.append(draw)
            if len(batch) == self.batch_size:
                yield list(batch)
                batch.clear()
        rest = upright + lying
        while rest and not (self.drop_last and len(rest) < self.batch_size):
            yield rest[: self.batch_size]
            rest = rest[self.batch_size :]
