"""Whether a model, a checkpoint and a data set speak of the same classes, and how many images show each."""
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmdet.engine.runner import counting_dataset
from mmdet.errors import CheckpointError, ConfigError
from mmdet.models.detectors import num_classes_of_heads


class CheckClassesHook(Hook):
    """Refuses, before the first step, to train a detector on data of another number of classes."""

    def before_run(self, runner: Runner) -> None:
        """Compare the detector with the training data.

        Raises:
            ConfigError: see `check_num_classes`.
        """
        detector = runner.model.module if is_model_wrapper(runner.model) else runner.model
        classes = runner.train_dataloader.dataset.metainfo['classes']
        check_num_classes(detector, classes, 'train_dataloader', runner.cfg.filename)


class GiveClassFrequencyHook(Hook):
    """Before the first step, gives the counts of the training data to all parts of the model that ask for them.

    A module asks by having `set_class_frequency(frequency, num_images)`: a `ClassFrequency`, and the number of
    distinct images with an object of any class.
    """

    def before_run(self, runner: Runner) -> None:
        """Count, where anybody asks.

        Raises:
            ConfigError: the training data cannot count its classes.
        """
        asking = [module for module in runner.model.modules() if hasattr(module, 'set_class_frequency')]
        if not asking:
            return
        dataset = counting_dataset(runner.train_dataloader.dataset)
        if dataset is None:
            raise ConfigError(
                f'{runner.cfg.filename or "config"}: train_dataloader.dataset cannot count its classes, and '
                f'{type(asking[0]).__name__} needs their counts: train on a CocoDataset or one derived from it'
            )
        frequency, num_images = dataset.class_frequency(), _num_annotated(dataset)
        for module in asking:
            module.set_class_frequency(frequency, num_images)


def _num_annotated(dataset: Any) -> int:
    """Distinct images of a data set that have an object."""
    annotated = np.zeros(len(dataset), dtype=bool)
    for images in dataset.images_of_class():
        annotated[images] = True
    return int(annotated.sum())


def check_num_classes(detector: nn.Module, classes: Sequence[str], dataloader: str, config_file: str | None) -> None:
    """See that every head that has something for each class is made for these classes.

    Args:
        detector: see `BaseDetector.num_classes_of_heads`.
        classes: of the data set, in label order.
        dataloader: the config's key of the data set's loader, for the message.
        config_file: for the message.

    Raises:
        ConfigError: naming the config's key and both numbers.
    """
    for key, num_classes in num_classes_of_heads(detector).items():
        if num_classes != len(classes):
            raise ConfigError(
                f'{config_file or "config"}: model.{key}.num_classes is {num_classes}, but the data of '
                f'{dataloader} has {len(classes)} classes: make the two agree'
            )


def check_trained_classes(
    trained: Mapping[str, Any], given: Mapping[str, Any], checkpoint: str | Path, dataloader: str
) -> None:
    """See that a checkpoint was trained for the classes of a data set.

    Category ids decide where both have them, and names are then only warned of. Of checkpoints without ids, as
    mmdetection's are, the number of names decides; their spelling is not the same in all copies of a data set. A
    checkpoint that says nothing of its classes is taken as it is.

    Args:
        trained: the checkpoint's `dataset_meta`.
        given: the data set's `metainfo`.
        checkpoint: its path, for the message.
        dataloader: the config's key of the data set's loader, for the message.

    Raises:
        CheckpointError: naming the first label that differs.
    """
    mend = f'the data of {dataloader}; use the data set it was trained on'
    ids, given_ids = trained.get('category_ids'), given.get('category_ids')
    names, given_names = trained.get('classes', trained.get('CLASSES')), given['classes']
    if ids is not None and given_ids is not None:
        label = _first_difference(ids, given_ids)
        if label is not None:
            raise CheckpointError(
                f'{checkpoint}: was trained for other classes: label {label} is category {ids[label]}, and '
                f'{given_ids[label]} in {mend}'
            )
        if len(ids) != len(given_ids):
            raise CheckpointError(
                f'{checkpoint}: was trained for other classes: {len(ids)}, and there are {len(given_ids)} in {mend}'
            )
    elif names is not None and len(names) != len(given_names):
        raise CheckpointError(
            f'{checkpoint}: was trained for other classes: {len(names)}, and there are {len(given_names)} in {mend}'
        )
    label = _first_difference(names or (), given_names)
    if label is not None:
        print_log(
            f'{checkpoint}: label {label} was {names[label]!r} in training and is {given_names[label]!r} in the data '
            f'of {dataloader}',
            logger='current',
            level=logging.WARNING,
        )


def _first_difference(a: Sequence, b: Sequence) -> int | None:
    """The first position at which two sequences differ, up to the shorter one's end."""
    return next((i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), None)
