"""The ordinary samplers: every image once an epoch, or an endless stream of shuffled epochs."""
import math
from collections.abc import Iterator, Sized

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from mmdet.registry import DATA_SAMPLERS
from mmdet.utils.seeding import keyed_generator

from .draw import Draw


def epoch_order(size: int, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """(size,) the order in which an epoch visits the images."""
    return keyed_generator(seed, epoch).permutation(size) if shuffle else np.arange(size)


@DATA_SAMPLERS.register_module()
class DefaultSampler(Sampler):
    """Every image once an epoch; rank r of W takes positions r, r + W, ... of the epoch's order.

    Args:
        dataset: what is sampled.
        shuffle: the order of epoch e is a permutation keyed to (seed, e), else the data set's own.
        seed: the same on every rank; None lets rank 0 choose one.
        round_up: repeat the first images so that every rank has equally many.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None, round_up: bool = True):
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        size = len(dataset)
        self.total_size = math.ceil(size / self.world_size) * self.world_size if round_up else size

    def __iter__(self) -> Iterator[Draw]:
        size = len(self.dataset)
        order = epoch_order(size, self.seed, self.epoch, self.shuffle)
        for position in range(self.rank, self.total_size, self.world_size):
            yield Draw(int(order[position % size]), self.seed, self.epoch * size + position)

    def __len__(self) -> int:
        """Images of this rank in an epoch."""
        return len(range(self.rank, self.total_size, self.world_size))

    def set_epoch(self, epoch: int) -> None:
        """Begin epoch `epoch` at the next iteration."""
        self.epoch = epoch


@DATA_SAMPLERS.register_module()
class InfiniteSampler(Sampler):
    """One epoch after another without end; rank r of W takes draws r, r + W, ... of the stream.

    Args:
        dataset: what is sampled.
        shuffle: the order of epoch e is a permutation keyed to (seed, e), else the data set's own.
        seed: the same on every rank; None lets rank 0 choose one.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None):
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.num_skipped = 0

    def __iter__(self) -> Iterator[Draw]:
        size = len(self.dataset)
        number = self.rank + self.num_skipped * self.world_size
        while True:
            epoch = number // size
            order = epoch_order(size, self.seed, epoch, self.shuffle)
            while number // size == epoch:
                yield Draw(int(order[number % size]), self.seed, number)
                number += self.world_size

    def __len__(self) -> int:
        """Images of the data set."""
        return len(self.dataset)

    def skip(self, num_samples: int) -> None:
        """Begin `num_samples` of this rank's draws into the stream, as a resumed run does."""
        self.num_skipped = num_samples

    def set_epoch(self, epoch: int) -> None:
        """The stream has no epochs to set; the runner calls this all the same."""
