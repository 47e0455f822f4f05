"""The detectors of the BAGS release (balanced group softmax; mmdetection 1.0rc0) as checkpoints of this project.

Such a detector's last layer is BAGS's, of C + 6 outputs: it stands where the base's own was, which is not in the file.
Its outputs have the order of `BAGS` here: background and object, then for each group `others` and the group's classes
by their ids. All other weights are the base's, as they were not trained. `configs/bags/released` computes as the
release did.
"""
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmdet.calibration.calibrators.bags import group_of_class
from mmdet.engine import fingerprint, save_checkpoint
from mmdet.errors import CheckpointError, ConfigError

from .class_counts import ClassCounts
from .data_only import read_data_only
from .mmdet_legacy import upgrade_mmdet
from .release import Converted, box_heads, detector_meta

EDGES = (10, 100, 1000)
NUM_GROUPS = len(EDGES) + 1
# The release has detectors of LVIS v0.5 alone. So many of its 1,230 classes are in each group.
GROUPS_OF_LVIS = (294, 453, 302, 181)
PARAMETERS = ('weight', 'bias')


def is_bags_release(weights: Mapping[str, Tensor], counts: ClassCounts | None, path: str | Path) -> bool:
    """Whether an mmdetection 1.x detector's classifier is one of BAGS: it has C + 6 outputs in the place of C + 1.

    C is what boxes or masks say if every class has its own. If none does, it is that of LVIS v0.5, of which the release
    is, or of the training counts.

    Args:
        weights: by their names in the file.
        counts: training counts, if there are any.
        path: of the file, for the message.

    Raises:
        CheckpointError: a classifier of neither number of outputs.
    """
    classifier = next((name for name in weights if re.fullmatch(r'bbox_head\.(\d+\.)?fc_cls\.weight', name)), None)
    if classifier is None:
        return False
    num_outputs = len(weights[classifier])
    evidence = next(_class_wise_rows(weights), None)
    if evidence is None:
        likely = [sum(GROUPS_OF_LVIS)] + ([] if counts is None else [len(counts.frequency)])
        return num_outputs in map(_num_outputs, likely)
    name, num_classes = evidence
    if num_outputs not in (num_classes + 1, _num_outputs(num_classes)):
        raise CheckpointError(
            f'{path}: `{classifier}` has {num_outputs} rows, but `{name}` is of {num_classes} classes and background, '
            f'which calls for {num_classes + 1}, or for {_num_outputs(num_classes)} in a detector of BAGS'
        )
    return num_outputs == _num_outputs(num_classes)


def convert_bags_release(
    checkpoint: Mapping[str, Any],
    left_aside: Sequence[str],
    path: str | Path,
    out: str | Path,
    counts: ClassCounts | None,
    base: str | Path | None = None,
) -> Converted:
    """Write a detector of BAGS as a calibrated checkpoint, as `tools/calibrate.py` would have.

    Without the base the checkpoint has no classifier but BAGS's, and its meta says so (`base_classifier`): it can be
    tested under `calibrated` alone, and not be calibrated again.

    Args:
        checkpoint: of a detector that `is_bags_release`, with `state_dict` and `meta`.
        left_aside: what was not read of it.
        path: of its file, for messages.
        out: where the checkpoint goes.
        counts: training counts, by which the classes are grouped.
        base: the checkpoint of mmdetection 1.x that BAGS began from, for its classifier.

    Raises:
        CheckpointError: a base of other weights, or a detector that the outputs of BAGS say too little for.
        ConfigError: no counts, or those of other data than the detector's.
    """
    if counts is None:
        raise ConfigError(
            f'{path}: is a detector of BAGS, whose classes are grouped by their training counts: give '
            '--train-annotations or --counts'
        )
    weights = checkpoint['state_dict']
    stages = box_heads(weights)
    num_classes = len(weights[f'{stages[0]}.fc_cls.weight']) - _num_outputs(0)
    _check_boxes(weights, stages, path)
    if base is None:
        classifiers, base_left_aside = _stand_ins(weights, stages, num_classes), []
    else:
        classifiers, base_left_aside = _classifiers(base, weights, stages, num_classes, path)
    upgraded = upgrade_mmdet(dict(checkpoint, state_dict={**weights, **classifiers}), str(path))
    if base is None:
        own = {name: tensor for name, tensor in upgraded.weights.items() if not _is_of_classifier(name)}
        upgraded = upgraded._replace(weights=own)

    meta = detector_meta(upgraded.classes, counts, num_classes)
    _check_groups(counts, num_classes)
    meta['calibrator'] = dict(type='BAGS', edges=list(EDGES))
    if base is None:
        meta['base_classifier'] = False
    else:
        meta['base_sha256'] = fingerprint(upgraded.weights)
    layers = {
        f'roi_head.calibrator.layers.{number}.{parameter}': weights[f'{stage}.fc_cls.{parameter}']
        for number, stage in enumerate(stages)
        for parameter in PARAMETERS
    }
    save_checkpoint(dict(state_dict={**upgraded.weights, **layers}, meta=meta), out)
    not_read = sorted({*left_aside, *base_left_aside})
    return Converted(upgraded, meta['calibrator'], num_classes, len(stages), not_read)


def _num_outputs(num_classes: int) -> int:
    """How many outputs BAGS's layer has: classes, `others` of every group, background and object."""
    return num_classes + NUM_GROUPS + 2


def _is_of_classifier(name: str) -> bool:
    return '.fc_cls.' in name


def _class_wise_rows(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, int]]:
    """The box and mask predictors that have a slot for every class and background, and of how many classes."""
    for name, rows in weights.items():
        if name.endswith('.fc_reg.weight') and len(rows) != 4:
            yield name, len(rows) // 4 - 1
        if re.fullmatch(r'mask_head\.(\d+\.)?conv_logits\.weight', name) and len(rows) != 1:
            yield name, len(rows) - 1


def _check_boxes(weights: Mapping[str, Tensor], stages: Sequence[str], path: str | Path) -> None:
    """Refuse a cascade that would move a RoI by its best class's deltas: grouped outputs name no best class.

    Raises:
        CheckpointError: naming the deltas.
    """
    for stage in stages[:-1]:
        if len(weights[f'{stage}.fc_reg.weight']) != 4:
            raise CheckpointError(
                f'{path}: `{stage}.fc_reg.weight` has boxes for every class, and outputs of BAGS do not say by which '
                "one a cascade moves a RoI; the release's cascades share boxes between classes"
            )


def _stand_ins(weights: Mapping[str, Tensor], stages: Sequence[str], num_classes: int) -> dict[str, Tensor]:
    """Classifiers of C + 1 rows, by which the upgrade knows which rows of boxes and masks are background's."""
    return {
        name: weights[name].new_zeros(num_classes + 1, *weights[name].shape[1:])
        for name in _classifier_names(stages)
    }


def _classifiers(
    base: str | Path, weights: Mapping[str, Tensor], stages: Sequence[str], num_classes: int, path: str | Path
) -> tuple[dict[str, Tensor], list[str]]:
    """The base's classifiers by their names in its file, and what was not read of it.

    Raises:
        CheckpointError: another base than that of the detector; the message names the first parameter that differs.
    """
    contents, left_aside = read_data_only(base)
    of_base = contents['state_dict']
    for name in [*weights, *of_base]:
        if not name.endswith('.num_batches_tracked') and not _is_of_classifier(name):
            if not _same(weights.get(name), of_base.get(name)):
                raise CheckpointError(
                    f'{base}: `{name}` is not as in {path}, and all but fc_cls must be the same in both; give the '
                    'detector that BAGS began from'
                )
    for name in _classifier_names(stages):
        rows = len(of_base.get(name, ()))
        if rows != num_classes + 1:
            raise CheckpointError(
                f'{base}: `{name}` has {rows} rows, and the base of a detector of {num_classes} classes has '
                f'{num_classes + 1}; give the detector that BAGS began from'
            )
    return {name: of_base[name] for name in _classifier_names(stages)}, left_aside


def _classifier_names(stages: Sequence[str]) -> list[str]:
    return [f'{stage}.fc_cls.{parameter}' for stage in stages for parameter in PARAMETERS]


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and one.dtype == other.dtype and torch.equal(one, other)


def _check_groups(counts: ClassCounts, num_classes: int) -> None:
    """See that counts of as many classes as LVIS v0.5 has are those of its training images.

    Raises:
        ConfigError: naming the sizes of the groups.
    """
    sizes = tuple(group_of_class(counts.frequency, EDGES).bincount(minlength=NUM_GROUPS).tolist())
    if num_classes == sum(GROUPS_OF_LVIS) and sizes != GROUPS_OF_LVIS:
        raise ConfigError(
            f'the training counts put {", ".join(map(str, sizes))} classes into the groups that divide at '
            f'{", ".join(map(str, EDGES))} instances, and the released detectors have '
            f'{", ".join(map(str, GROUPS_OF_LVIS))} there: give the training annotations of LVIS v0.5'
        )
