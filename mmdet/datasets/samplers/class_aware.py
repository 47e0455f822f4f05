"""Class-aware sampling (Shen et al., "Relay Backpropagation", ECCV 2016): first a class, then an image that has it."""
from collections.abc import Iterator
from typing import Any

from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from mmdet.errors import ConfigError
from mmdet.registry import DATA_SAMPLERS

from .bi_level import BiLevelStream
from .draw import Draw


@DATA_SAMPLERS.register_module()
class ClassAwareSampler(Sampler):
    """Images for the training of a detector, drawn so that all classes come equally often.

    The stream is `BiLevelStream`'s and has no end; it is cut into epochs of as many draws as the data set has images.
    Rank r of W takes draws r, r + W, ... of it. Name and argument are those of mmdetection, which does not draw each
    class anew but goes through all of them, and through the images of each, in random order. An `IterBasedTrainLoop`
    restarts its data loader at the end of an epoch; `BiLevelSampler` draws likewise and has no epochs.

    Args:
        dataset: with `images_of_class()` and `class_frequency()`; crowds count as in `get_cat_ids`.
        seed: the same on every rank; None lets rank 0 choose one.
        num_sample_class: images drawn for a drawn class.

    Raises:
        ConfigError: `num_sample_class` is not an integer from 1, or no class has an image.
    """

    def __init__(self, dataset: Any, seed: int | None = None, num_sample_class: int = 1):
        if not isinstance(num_sample_class, int) or num_sample_class < 1:
            raise ConfigError(
                f'train_dataloader.sampler.num_sample_class={num_sample_class}: must be an integer from 1'
            )
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.stream = BiLevelStream(
            dataset.images_of_class(),
            dataset.class_frequency().instance_count,
            images_per_class=num_sample_class,
            seed=sync_random_seed() if seed is None else seed,
        )
        self.epoch = 0

    def __len__(self) -> int:
        """Draws of this rank in an epoch."""
        return -(-len(self.dataset) // self.world_size)

    def __iter__(self) -> Iterator[Draw]:
        first = self.epoch * len(self) * self.world_size + self.rank
        columns = (column.tolist() for column in self.stream.draws(first, len(self), self.world_size))
        for number, image, label in zip(*columns, strict=True):
            yield Draw(image, self.stream.seed, number, label)

    def set_epoch(self, epoch: int) -> None:
        """Begin epoch `epoch` at the next iteration."""
        self.epoch = epoch
