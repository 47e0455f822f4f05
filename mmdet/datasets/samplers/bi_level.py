"""Bi-level class-balanced sampling (SimCal, sec. 4.1): first a class, then an image that contains it."""
from collections.abc import Iterator, Sequence

import numpy as np
from mmengine.dist import get_dist_info, get_world_size, sync_random_seed
from torch.utils.data import Sampler

from mmdet.errors import ConfigError
from mmdet.registry import DATA_SAMPLERS
from mmdet.utils.seeding import keyed_uniforms

from .draw import Draw

_BLOCK = 4096
_CLASS_STREAM, _IMAGE_STREAM = 0, 1


class BiLevelStream:
    """The endless stream of (image, class) draws, as a function of the draw's number.

    Draw d is for class number d // images_per_class of the class stream. Any draw can be had without those before it.

    Args:
        images_of_class: for each of C classes the indices of the images with an instance to learn it from.
        instance_count: (C,) training instances of each class.
        images_per_class: images drawn for a drawn class.
        tau: classes are drawn with probability proportional to `min(instance_count, cap) ** tau`; 0 is uniform.
        cap: in instances, at least 1.
        seed: of the stream.

    Classes without an image are never drawn.

    Raises:
        ConfigError: no class has an image, or a number that is out of its range.
    """

    def __init__(
        self,
        images_of_class: Sequence[np.ndarray],
        instance_count: np.ndarray,
        images_per_class: int = 1,
        tau: float = 0.0,
        cap: int = 100,
        seed: int = 0,
    ):
        if images_per_class < 1 or cap < 1:
            name, value = ('images_per_class', images_per_class) if images_per_class < 1 else ('cap', cap)
            raise ConfigError(f'calibration.sampler.{name}={value}: must be at least 1')
        if not np.isfinite(tau):
            raise ConfigError(f'calibration.sampler.tau={tau}: must be a finite number')
        self.num_images = np.array([len(images) for images in images_of_class])
        if not self.num_images.any():
            raise ConfigError('bi-level sampling: no class has a training image')
        self.images = np.concatenate([np.asarray(images, dtype=np.int64) for images in images_of_class])
        self.first_image = np.cumsum(self.num_images) - self.num_images
        weight = np.where(self.num_images > 0, np.minimum(instance_count, cap).astype(float) ** tau, 0)
        self.cumulative = np.cumsum(weight / weight.sum())
        self.last_class = int(np.flatnonzero(weight)[-1])
        self.images_per_class = images_per_class
        self.seed = seed

    def draws(self, first: int, count: int, step: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draws number first, first + step, ...: (count,) numbers, image indices and class labels."""
        numbers = first + step * np.arange(count)
        class_draws = keyed_uniforms(numbers // self.images_per_class, self.seed, _CLASS_STREAM)
        labels = np.searchsorted(self.cumulative, class_draws, 'right').clip(max=self.last_class)
        image_draws = keyed_uniforms(numbers, self.seed, _IMAGE_STREAM)
        place = (image_draws * self.num_images[labels]).astype(np.int64)
        return numbers, self.images[self.first_image[labels] + place], labels


def images_of_rank(classes_per_step: int, images_per_class: int) -> int:
    """This rank's share of a step, in images.

    Raises:
        ConfigError: an empty step, or one the ranks cannot share evenly.
    """
    for name, value in dict(classes_per_step=classes_per_step, images_per_class=images_per_class).items():
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f'calibration.sampler.{name}={value}: must be an integer from 1')
    images_per_step, world_size = classes_per_step * images_per_class, get_world_size()
    if images_per_step % world_size:
        raise ConfigError(
            f'a calibration step of {classes_per_step} classes x {images_per_class} images cannot be shared evenly '
            f'by {world_size} processes: change calibration.sampler.classes_per_step'
        )
    return images_per_step // world_size


@DATA_SAMPLERS.register_module()
class BiLevelSampler(Sampler):
    """Feeds a data loader with this rank's share of a bi-level stream, without end.

    A step is `classes_per_step * images_per_class` draws of the stream, of all ranks together: rank r of W
    takes draws r, r + W, ..., so that W ranks see in a step what one would.

    Args:
        dataset: with `images_to_learn_class()` and `class_frequency()`.
        classes_per_step: n, classes drawn for a step of all ranks together.
        images_per_class, tau, cap: see `BiLevelStream`.
        seed: the same on every rank; None lets rank 0 choose one.

    Attributes:
        images_per_step: of this rank: the batch size it is to be used with.
    """

    def __init__(
        self,
        dataset,
        classes_per_step: int = 16,
        images_per_class: int = 1,
        tau: float = 0.0,
        cap: int = 100,
        seed: int | None = None,
    ):
        self.rank, self.world_size = get_dist_info()
        self.images_per_step = images_of_rank(classes_per_step, images_per_class)
        self.stream = BiLevelStream(
            dataset.images_to_learn_class(),
            dataset.class_frequency().instance_count,
            images_per_class,
            tau,
            cap,
            sync_random_seed() if seed is None else seed,
        )
        self.num_images = len(dataset)
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
            columns = map(np.ndarray.tolist, self.stream.draws(first, _BLOCK, self.world_size))
            for number, image, label in zip(*columns, strict=True):
                yield Draw(image, self.stream.seed, number, label)
            drawn += _BLOCK
