"""mmdetection 1.x and 2.x two-stage checkpoints under mmdetection 3's names and in its order of classes.

1.x called the heads of the second stage by their names alone (`bbox_head.*`), and background was class 0: the first
row of the classifier, and the first, never used, of boxes and masks that every class has of its own. 2.x put these
heads into a `roi_head` and background last; 3.x changed nothing of either.
"""
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmdet.errors import CheckpointError

ROI_HEADS = ('bbox_head', 'mask_head', 'semantic_head')


class Upgraded(NamedTuple):
    """A two-stage detector's weights as mmdetection 3 would have them.

    Attributes:
        weights: by mmdetection 3's names.
        version: of mmdetection, by which they were written: '1.x', '2.x' or '3.x'.
        reason: how that is known.
        classes: names of the classes, in label order; None where the checkpoint does not say them.
    """

    weights: dict[str, Tensor]
    version: str
    reason: str
    classes: list[str] | None


def upgrade_mmdet(checkpoint: Mapping[str, Any], path: str) -> Upgraded:
    """Rename and reorder the weights of an mmdetection 1.x, 2.x or 3.x two-stage checkpoint.

    Args:
        checkpoint: with `state_dict` and `meta`.
        path: where it came from, for messages.

    Raises:
        CheckpointError: it is not of a two-stage detector, or contradicts itself; the message says which parameter.
    """
    weights = dict(checkpoint['state_dict'])
    version, reason = decide_version(weights, checkpoint['meta'], path)
    if version == '1.x':
        weights = _background_last({_renamed(name): tensor for name, tensor in weights.items()})
        # 1.x made it for every stage; the first has no stage before it.
        weights = {name: w for name, w in weights.items() if not name.startswith('roi_head.mask_head.0.conv_res.')}
    _check_class_wise_boxes(weights, path)
    return Upgraded(weights, version, reason, _classes(checkpoint['meta'], weights))


def decide_version(weights: Mapping[str, Tensor], meta: Mapping[str, Any], path: str) -> tuple[str, str]:
    """By which mmdetection a checkpoint was written, and how that is known.

    Names decide, as a checkpoint keeps the `mmdet_version` it was trained with when somebody renames its parameters.

    Raises:
        CheckpointError: it is not of a two-stage detector.
    """
    if not any(name.startswith('rpn_head.') for name in weights):
        raise CheckpointError(
            f'{path}: has no `rpn_head.*`, so it is not of a two-stage detector of mmdetection 1.x or 2.x '
            f'(it begins with `{next(iter(weights), "nothing")}`)'
        )
    said = str(meta.get('mmdet_version', meta.get('mmengine_version', '')))
    written = f'meta says mmdet_version {said}' if 'mmdet_version' in meta else 'meta does not say an mmdet_version'
    if any(name.startswith('roi_head.') for name in weights):
        if 'mmengine_version' in meta or 'dataset_meta' in meta or said.startswith('3.'):
            return '3.x', f'its heads are in `roi_head.*` and its meta is of mmengine; {written}'
        return '2.x', f'its heads are in `roi_head.*`; {written}'
    if any(name.startswith('bbox_head.') for name in weights):
        return '1.x', f'its heads stand beside `rpn_head.*`, not in a `roi_head`; {written}'
    raise CheckpointError(f'{path}: has neither `bbox_head.*` nor `roi_head.*`, so it is of no two-stage detector')


def rotate_background(rows: Tensor) -> Tensor:
    """(C + 1, ...) rows of a classifier, background first -> background last."""
    return torch.cat([rows[1:], rows[:1]])


def _renamed(name: str) -> str:
    """mmdetection 3's name for a parameter of 1.x."""
    if name.split('.')[0] in ROI_HEADS:
        name = f'roi_head.{name}'
    return re.sub(r'\.conv(\d)_offset\.', r'.conv\1.conv_offset.', name)


def _background_last(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Classifiers with background last; class-wise boxes and masks without background."""
    moved = dict(weights)
    for name, rows in weights.items():
        head, _, parameter = name.rpartition('.fc_cls.')
        if not head:
            continue
        num_logits = len(rows)
        moved[name] = rotate_background(rows)
        deltas = f'{head}.fc_reg.{parameter}'
        if deltas in weights and len(weights[deltas]) == 4 * num_logits:
            moved[deltas] = weights[deltas][4:]
        masks = f'{head.replace("bbox_head", "mask_head")}.conv_logits.{parameter}'
        if masks in weights and len(weights[masks]) == num_logits:
            moved[masks] = weights[masks][1:]
    return moved


def _check_class_wise_boxes(weights: Mapping[str, Tensor], path: str) -> None:
    """Refuse boxes that have a slot for background where there must be none, or for another number of classes."""
    for name, rows in weights.items():
        head, _, parameter = name.rpartition('.fc_cls.')
        deltas = weights.get(f'{head}.fc_reg.{parameter}')
        if head and deltas is not None and len(deltas) not in (4, 4 * (len(rows) - 1)):
            raise CheckpointError(
                f'{path}: `{head}.fc_reg.{parameter}` has {len(deltas)} rows, but `{name}` with {len(rows)} calls for '
                f'4 or {4 * (len(rows) - 1)}; its order of classes is of no known version'
            )


def _classes(meta: Mapping[str, Any], weights: Mapping[str, Tensor]) -> list[str] | None:
    """The names that meta gives, if they are as many as the detector's classes."""
    of_dataset = meta.get('dataset_meta') or meta
    names = of_dataset.get('classes', of_dataset.get('CLASSES'))
    num_logits = next((len(rows) for name, rows in weights.items() if name.endswith('.fc_cls.bias')), 0)
    return list(names) if isinstance(names, (list, tuple)) and len(names) == num_logits - 1 else None
