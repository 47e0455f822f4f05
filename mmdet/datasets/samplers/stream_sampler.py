"""Samplers of calibration: endless streams of draws that can be foreseen, shared by all ranks."""
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from mmengine.dist import get_dist_info, get_world_size, sync_random_seed
from torch.utils.data import Sampler

from mmdet.errors import ConfigError
from mmdet.registry import DATA_SAMPLERS

from .draw import Draw
from .image_samplers import epoch_order

_BLOCK = 4096


class Stream(Protocol):
    """An endless stream of draws, as a function of the draw's number.

    Attributes:
        seed: of the stream.
    """

    seed: int

    def draws(self, first: int, count: int, step: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Draws number first, first + step, ...: numbers, image indices and class labels, (count,) each.

        The labels are None where images are drawn and not classes.
        """


class StreamSampler(Sampler):
    """Feeds a data loader with this rank's share of a stream, without end.

    Rank r of W takes draws r, r + W, ..., so that W ranks see in a step what one would.

    Args:
        stream: the same on every rank.
        images_per_step: of this rank.
        num_images: of the data set.

    Attributes:
        stream, images_per_step: as given; `images_per_step` is the batch size it is to be used with.
    """

    def __init__(self, stream: Stream, images_per_step: int, num_images: int):
        self.rank, self.world_size = get_dist_info()
        self.stream = stream
        self.images_per_step = images_per_step
        self.num_images = num_images
        self.num_skipped = 0

    def __len__(self) -> int:
        """This rank's draws for as many images as the data set has: what mmengine takes for an epoch."""
        return max(self.num_images // self.world_size, 1)

    def skip(self, num_draws: int) -> None:
        """Continue the stream `num_draws` of this rank's draws further on, as a resumed run does."""
        self.num_skipped += num_draws

    def __iter__(self) -> Iterator[Draw]:
        drawn = self.num_skipped
        while True:
            first = self.rank + drawn * self.world_size
            numbers, images, labels = self.stream.draws(first, _BLOCK, self.world_size)
            labels = [None] * _BLOCK if labels is None else labels.tolist()
            for number, image, label in zip(numbers.tolist(), images.tolist(), labels, strict=True):
                yield Draw(image, self.stream.seed, number, label)
            drawn += _BLOCK


class EpochStream:
    """One shuffled epoch of all images after another.

    Args:
        num_images: of the data set.
        seed: the order of epoch e is a permutation keyed to (seed, e).
    """

    def __init__(self, num_images: int, seed: int):
        self.num_images = num_images
        self.seed = seed

    def draws(self, first: int, count: int, step: int = 1) -> tuple[np.ndarray, np.ndarray, None]:
        """See `Stream.draws`."""
        numbers = first + step * np.arange(count)
        epochs, places = numbers // self.num_images, numbers % self.num_images
        images = np.empty(count, np.int64)
        for epoch in np.unique(epochs).tolist():
            of_epoch = epochs == epoch
            images[of_epoch] = epoch_order(self.num_images, self.seed, epoch, shuffle=True)[places[of_epoch]]
        return numbers, images, None


@DATA_SAMPLERS.register_module()
class ImageSampler(StreamSampler):
    """Draws images and no classes: every image once an epoch, in random order.

    Args:
        dataset: what is sampled.
        images_per_step: of all ranks together.
        seed: the same on every rank; None lets rank 0 choose one.

    Raises:
        ConfigError: a step that the ranks cannot share evenly.
    """

    def __init__(self, dataset: Any, images_per_step: int = 16, seed: int | None = None):
        check_count('images_per_step', images_per_step)
        if images_per_step % get_world_size():
            raise ConfigError(
                f'a calibration step of {images_per_step} images cannot be shared evenly by {get_world_size()} '
                'processes: change calibration.sampler.images_per_step'
            )
        stream = EpochStream(len(dataset), sync_random_seed() if seed is None else seed)
        super().__init__(stream, images_per_step // get_world_size(), len(dataset))


def check_count(name: str, value: Any) -> None:
    """Raise ConfigError for an argument of a calibration's sampler that is no number from 1."""
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f'calibration.sampler.{name}={value}: must be an integer from 1')
