"""Data sets made of others: joined, repeated, or with the images of rare classes repeated."""
from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np
from torch.utils.data import Dataset

from mmdet.errors import ConfigError
from mmdet.registry import DATASETS
from mmdet.structures import ClassFrequency

from .samplers.draw import Draw


class _Wrapper(Dataset):
    """A data set whose images are those of others, in another order or number.

    Args:
        datasets: those others.
        source: (L,) int64, which of them each image is from.
        inner: (L,) int64, its index there.
    """

    def __init__(self, datasets: Sequence[Dataset], source: np.ndarray, inner: np.ndarray):
        self.datasets = list(datasets)
        self.source = source
        self.inner = inner
        self.metainfo = self.datasets[0].metainfo

    def full_init(self) -> None:
        """Nothing is left to do; mmengine's runner calls this."""

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, item: int | Draw) -> dict:
        draw = item if isinstance(item, Draw) else Draw(int(item), 0, int(item))
        return self._dataset(draw.index)[draw._replace(index=int(self.inner[draw.index]))]

    def get_data_info(self, index: int) -> dict:
        """What is known of an image before it is loaded; see `CocoDataset`."""
        return self._dataset(index).get_data_info(int(self.inner[index]))

    def get_cat_ids(self, index: int) -> list[int]:
        """Labels of the objects in an image; see `CocoDataset`."""
        return self._dataset(index).get_cat_ids(int(self.inner[index]))

    def images_of_class(self) -> list[np.ndarray]:
        """For each label the ascending indices of images that have it in `get_cat_ids`; each image counts once."""
        return self._places([dataset.images_of_class() for dataset in self.datasets])

    def images_to_learn_class(self) -> list[np.ndarray]:
        """For each label the ascending indices of images with an instance to learn it from; each image counts once."""
        return self._places([dataset.images_to_learn_class() for dataset in self.datasets])

    def class_frequency(self) -> ClassFrequency:
        """Instances and images of each class as the annotation files list them, each image counted once."""
        return reduce(_sum, (dataset.class_frequency() for dataset in self.datasets))

    def num_annotated_images(self) -> int:
        """Images of the annotation files; see `CocoDataset`."""
        return sum(dataset.num_annotated_images() for dataset in self.datasets)

    def box_centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres and labels of the boxes of the annotation files; see `CocoDataset`."""
        centres, labels = zip(*[dataset.box_centres() for dataset in self.datasets], strict=True)
        return np.concatenate(centres), np.concatenate(labels)

    def _dataset(self, index: int) -> Dataset:
        return self.datasets[self.source[index]]

    def _places(self, inner_images: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
        """For each label the indices here of the images of each data set, each image once."""
        per_dataset = [self._first_places(number) for number in range(len(self.datasets))]
        return [
            np.concatenate([_found(places[images]) for images, places in zip(of_class, per_dataset, strict=True)])
            for of_class in zip(*inner_images, strict=True)
        ]

    def _first_places(self, number: int) -> np.ndarray:
        """For each image of data set `number` the first index it has here, or -1."""
        places = np.full(len(self.datasets[number]), -1)
        here = np.flatnonzero(self.source == number)[::-1]
        places[self.inner[here]] = here
        return places


def _found(places: np.ndarray) -> np.ndarray:
    return places[places >= 0]


def _sum(one: ClassFrequency, other: ClassFrequency) -> ClassFrequency:
    return ClassFrequency(one.names, one.instance_count + other.instance_count, one.image_count + other.image_count)


def _built(dataset: Mapping | Dataset) -> Dataset:
    return DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset


@DATASETS.register_module()
class ConcatDataset(_Wrapper):
    """Several data sets of the same classes, one after another.

    Args:
        datasets: data sets or their configs.
    """

    def __init__(self, datasets: Sequence[Mapping | Dataset]):
        datasets = [_built(dataset) for dataset in datasets]
        for dataset in datasets[1:]:
            if dataset.metainfo['classes'] != datasets[0].metainfo['classes']:
                raise ConfigError('ConcatDataset: the data sets have different classes; give each the same metainfo')
        sizes = [len(dataset) for dataset in datasets]
        super().__init__(
            datasets,
            np.repeat(np.arange(len(datasets)), sizes),
            np.concatenate([np.arange(size) for size in sizes]),
        )


@DATASETS.register_module()
class RepeatDataset(_Wrapper):
    """A data set several times over, which makes the epochs of a small one longer.

    Args:
        dataset: a data set or its config.
        times: how often.
    """

    def __init__(self, dataset: Mapping | Dataset, times: int):
        dataset = _built(dataset)
        inner = np.tile(np.arange(len(dataset)), times)
        super().__init__([dataset], np.zeros_like(inner), inner)


@DATASETS.register_module()
class ClassBalancedDataset(_Wrapper):
    """Repeat-factor sampling (Gupta et al., LVIS, 2019, sec. 6): images of rare classes several times over.

    Class c, in a share f(c) of the images, has the repeat factor max(1, sqrt(oversample_thr / f(c))); an image has the
    largest of its classes', rounded up.

    With `instance_aware` (IRFS: Yaman et al., "Instance-Aware Repeat Factor Sampling for Long-Tailed Object Detection",
    2023) f(c) is the geometric mean of that share and of the class's share of all instances.

    Args:
        dataset: a data set or its config.
        oversample_thr: t, the f(c) below which a class is oversampled.
        instance_aware: whether instances count beside images.
    """

    def __init__(self, dataset: Mapping | Dataset, oversample_thr: float, instance_aware: bool = False):
        dataset = _built(dataset)
        images_of_class = dataset.images_of_class()
        share = np.array([len(images) for images in images_of_class]) / len(dataset)
        if instance_aware:
            share = np.sqrt(share * _share_of_instances(dataset))
        inner = np.repeat(np.arange(len(dataset)), _repeat_counts(images_of_class, share, oversample_thr, len(dataset)))
        super().__init__([dataset], np.zeros_like(inner), inner)


def _share_of_instances(dataset: Dataset) -> np.ndarray:
    """(C,), which part of all annotated instances each class has."""
    instance_count = dataset.class_frequency().instance_count
    return instance_count / max(instance_count.sum(), 1)


def _repeat_counts(
    images_of_class: Sequence[np.ndarray], share: np.ndarray, oversample_thr: float, num_images: int
) -> np.ndarray:
    """(num_images,) int64, how often each image stands in the epoch; `share` (C,) is f(c)."""
    factors = np.ones(num_images)
    for images, of_class in zip(images_of_class, share, strict=True):
        if len(images):
            factors[images] = np.maximum(factors[images], np.sqrt(oversample_thr / of_class))
    return np.ceil(factors).astype(np.int64)
