"""Bi-level class-balanced sampling (SimCal, sec. 4.1): first a class, then an image that contains it."""
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.dist import get_world_size, sync_random_seed

from mmdet.errors import ConfigError
from mmdet.registry import DATA_SAMPLERS
from mmdet.utils.seeding import keyed_uniforms

from .stream_sampler import StreamSampler, check_count

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
        fewer_than: only classes with fewer training instances are drawn, if given.

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
        fewer_than: int | None = None,
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
        can_be_drawn = self.num_images > 0
        if fewer_than is not None:
            can_be_drawn &= np.asarray(instance_count) < fewer_than
            if not can_be_drawn.any():
                raise ConfigError(f'calibration.sampler.fewer_than={fewer_than}: no class has so few instances')
        weight = np.where(can_be_drawn, np.minimum(instance_count, cap).astype(float) ** tau, 0)
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
    check_count('classes_per_step', classes_per_step)
    check_count('images_per_class', images_per_class)
    images_per_step, world_size = classes_per_step * images_per_class, get_world_size()
    if images_per_step % world_size:
        raise ConfigError(
            f'a calibration step of {classes_per_step} classes x {images_per_class} images cannot be shared evenly '
            f'by {world_size} processes: change calibration.sampler.classes_per_step'
        )
    return images_per_step // world_size


@DATA_SAMPLERS.register_module()
class BiLevelSampler(StreamSampler):
    """Draws a class, then an image that contains it.

    A step is `classes_per_step * images_per_class` draws of the stream, of all ranks together.

    Args:
        dataset: with `images_to_learn_class()` and `class_frequency()`.
        classes_per_step: n, classes drawn for a step of all ranks together.
        images_per_class, tau, cap, fewer_than: see `BiLevelStream`.
        seed: the same on every rank; None lets rank 0 choose one.
    """

    def __init__(
        self,
        dataset: Any,
        classes_per_step: int = 16,
        images_per_class: int = 1,
        tau: float = 0.0,
        cap: int = 100,
        fewer_than: int | None = None,
        seed: int | None = None,
    ):
        images_per_step = images_of_rank(classes_per_step, images_per_class)
        stream = BiLevelStream(
            dataset.images_to_learn_class(),
            dataset.class_frequency().instance_count,
            images_per_class,
            tau,
            cap,
            sync_random_seed() if seed is None else seed,
            fewer_than,
        )
        super().__init__(stream, images_per_step, len(dataset))
