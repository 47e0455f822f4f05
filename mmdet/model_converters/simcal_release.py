"""The files of the SimCal release, and mmdetection 1.x's and 2.x's in general, as one checkpoint of this project.

The release kept the detector and its calibrated heads in files of their own, one head for each stage, with background
as class 0 in all of them. `configs/simcal/released` computes as the release did; here are names and the order of
classes. The detectors of another release of mmdetection 1.x, BAGS's, are known by their number of outputs; what they
need is in `bags_release`.
"""
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from mmdet.engine import fingerprint, save_checkpoint
from mmdet.errors import CheckpointError, ConfigError

from .bags_release import convert_bags_release, is_bags_release
from .class_counts import ClassCounts
from .data_only import read_data_only
from .mmdet_legacy import rotate_background, upgrade_mmdet
from .release import Converted, box_heads, detector_meta

DEFAULT_THRESHOLD = 100


class ReleasedHead(NamedTuple):
    """A kind of calibrated head: `SimCal`'s name for it, and the released name of each layer with the name here."""

    head: str
    layers: Mapping[str, str]

    @property
    def classifier(self) -> str:
        """The released name of the last layer."""
        return list(self.layers)[-1]


# The release has the same layers, and no other trace, of heads that began as the base's classifier and at random.
RELEASED_HEADS = (
    ReleasedHead(
        '3fc_ft',
        {
            'feat_classifier.fc1': 'path.shared_fcs.0',
            'feat_classifier.fc2': 'path.shared_fcs.1',
            'feat_classifier.fc_classifier': 'path.fc_cls',
        },
    ),
    ReleasedHead('2fc_rand', {'feat_extractor.fc1': '1', 'feat_extractor.fc2': '3'}),
)


def convert_simcal_release(
    detector: str | Path,
    heads: Sequence[str | Path],
    out: str | Path,
    counts: ClassCounts | None = None,
    threshold: int | None = None,
    base: str | Path | None = None,
) -> Converted:
    """Write a detector and what calibrates it as one checkpoint, as `tools/calibrate.py` would have.

    Args:
        detector: a two-stage checkpoint of mmdetection 1.x (the release's, and that of BAGS), 2.x or 3.x.
        heads: SimCal's calibrated heads, stage by stage; none for a detector of BAGS, or one that is not calibrated.
        out: where the checkpoint goes.
        counts: training counts; calibrated heads and BAGS need them.
        threshold: T of SimCal, in training instances. Default: 100.
        base: the detector that one of BAGS began from, for its scores; see `convert_bags_release`.

    Raises:
        CheckpointError: a file that cannot be read, or is of another kind or size than the others.
        ConfigError: heads or BAGS without counts, counts of other classes, or what the detector has no use for.
    """
    checkpoint, left_aside = read_data_only(detector)
    if is_bags_release(checkpoint['state_dict'], counts, detector):
        for given, what in ((len(heads) > 0, 'a calibrated head'), (threshold is not None, '--threshold')):
            if given:
                raise ConfigError(f'{detector}: is a detector of BAGS, which has no use for {what}; leave it out')
        return convert_bags_release(checkpoint, left_aside, detector, out, counts, base)
    if base is not None:
        raise ConfigError(
            f'--base {base}: {detector} is no detector of BAGS and holds its own classifier; leave --base out'
        )

    upgraded = upgrade_mmdet(checkpoint, str(detector))
    stages = box_heads(upgraded.weights)
    num_classes = len(upgraded.weights[f'{stages[0]}.fc_cls.weight']) - 1
    if heads and len(heads) != len(stages):
        raise CheckpointError(
            f'{detector}: has {len(stages)} stages, and {len(heads)} heads are given; give one for each, in their order'
        )
    weights, kinds = dict(upgraded.weights), []
    for number, (stage, file) in enumerate(zip(stages, heads, strict=bool(heads))):
        contents, also_left_aside = read_data_only(file)
        kind, layers = _head(contents['state_dict'], file)
        _check_fits(kind, layers, upgraded.weights, stage, file, detector)
        kinds.append(kind)
        left_aside = [*left_aside, *also_left_aside]
        weights.update(_calibrator_weights(kind, layers, number))
    if len({kind.head for kind in kinds}) > 1:
        raise CheckpointError(f'{", ".join(map(str, heads))}: of different kinds; all stages have heads of one kind')

    meta = detector_meta(upgraded.classes, counts, num_classes)
    if kinds:
        if counts is None:
            raise ConfigError('calibrated heads need training counts: give --train-annotations or --counts')
        threshold = DEFAULT_THRESHOLD if threshold is None else threshold
        meta['calibrator'] = dict(type='SimCal', head=kinds[0].head, threshold=threshold)
        meta['base_sha256'] = fingerprint(upgraded.weights)
    save_checkpoint(dict(state_dict=weights, meta=meta), out)
    return Converted(upgraded, meta.get('calibrator'), num_classes, len(stages), sorted(set(left_aside)))


def _head(weights: Mapping[str, Tensor], path: str | Path) -> tuple[ReleasedHead, Mapping[str, Tensor]]:
    """A head's kind, and its parameters by their released names."""
    for kind in RELEASED_HEADS:
        names = {f'{layer}.{parameter}' for layer in kind.layers for parameter in ('weight', 'bias')}
        if names == weights.keys():
            return kind, weights
    expected = ' or '.join(f'`{kind.classifier}.weight`' for kind in RELEASED_HEADS)
    raise CheckpointError(
        f'{path}: is no calibrated head of the release: it begins with `{next(iter(weights), "nothing")}`, and such a '
        f'head has {expected}; give the detector first, then the heads'
    )


def _check_fits(
    kind: ReleasedHead,
    layers: Mapping[str, Tensor],
    detector: Mapping[str, Tensor],
    stage: str,
    path: str | Path,
    detector_path: str | Path,
) -> None:
    """See that a head has its stage's classes and RoI features.

    Raises:
        CheckpointError: naming both numbers.
    """
    first = next(iter(kind.layers))
    pairs = (
        (f'{kind.classifier}.weight', 0, f'{stage}.fc_cls.weight', 'rows'),
        (f'{first}.weight', 1, f'{stage}.shared_fcs.0.weight', 'columns'),
    )
    for name, axis, base_name, what in pairs:
        given, wanted = layers[name].shape[axis], detector[base_name].shape[axis]
        if given != wanted:
            raise CheckpointError(
                f'{path}: `{name}` has {given} {what}, and `{base_name}` of {detector_path} has {wanted}; '
                'give the head that was calibrated for this detector'
            )


def _calibrator_weights(kind: ReleasedHead, layers: Mapping[str, Tensor], stage: int) -> dict[str, Tensor]:
    """A head's parameters by their names in the calibrated detector, background last."""
    weights = {}
    for released, own in kind.layers.items():
        for parameter in ('weight', 'bias'):
            tensor = layers[f'{released}.{parameter}']
            rows = rotate_background(tensor) if released == kind.classifier else tensor
            weights[f'roi_head.calibrator.heads.{stage}.{own}.{parameter}'] = rows
    return weights
