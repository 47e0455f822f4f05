"""torchvision's Faster and Mask R-CNN with ResNet-50 and FPN, both versions, as checkpoints of this project.

The configs in `configs/torchvision` compute what torchvision computes; here are names and the order of classes:
torchvision's background is the first class, ours the last. Its detectors of COCO have a row for every number up to 90,
of which ten are no category; those rows are dropped.
"""
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mmdet.engine import save_checkpoint
from mmdet.errors import CheckpointError, ConfigError

from .class_names import COCO_CLASSES, COCO_IDS, COCO_NUMBERS
from .data_only import read_data_only
from .renaming import Rule, renamed

SOURCE = 'torchvision Faster or Mask R-CNN with ResNet-50-FPN'
OUR_EPS = 1e-5

# Older files have `conv.` and `mask_fcn1.` where newer ones have `conv.0.0.` and `0.0.`: both kinds are around. In the
# second version of the detectors `.0.` is a convolution and `.1.` its norm.
RULES: Sequence[Rule] = (
    (r'backbone\.body\.', 'backbone.'),
    (r'backbone\.fpn\.inner_blocks\.(\d)\.(?:0\.)?(?=weight|bias)', r'neck.lateral_convs.\1.conv.'),
    (r'backbone\.fpn\.inner_blocks\.(\d)\.1\.', r'neck.lateral_convs.\1.bn.'),
    (r'backbone\.fpn\.layer_blocks\.(\d)\.(?:0\.)?(?=weight|bias)', r'neck.fpn_convs.\1.conv.'),
    (r'backbone\.fpn\.layer_blocks\.(\d)\.1\.', r'neck.fpn_convs.\1.bn.'),
    (r'rpn\.head\.conv\.(?=weight|bias)', 'rpn_head.rpn_conv.'),
    (r'rpn\.head\.conv\.(\d)\.0\.', r'rpn_head.rpn_conv.\1.conv.'),
    (r'rpn\.head\.cls_logits\.', 'rpn_head.rpn_cls.'),
    (r'rpn\.head\.bbox_pred\.', 'rpn_head.rpn_reg.'),
    (r'roi_heads\.box_head\.fc6\.', 'roi_head.bbox_head.shared_fcs.0.'),
    (r'roi_heads\.box_head\.fc7\.', 'roi_head.bbox_head.shared_fcs.1.'),
    (r'roi_heads\.box_head\.(\d)\.0\.', r'roi_head.bbox_head.shared_convs.\1.conv.'),
    (r'roi_heads\.box_head\.(\d)\.1\.', r'roi_head.bbox_head.shared_convs.\1.bn.'),
    (r'roi_heads\.box_head\.5\.', 'roi_head.bbox_head.shared_fcs.0.'),
    (r'roi_heads\.box_predictor\.cls_score\.', 'roi_head.bbox_head.fc_cls.'),
    (r'roi_heads\.box_predictor\.bbox_pred\.', 'roi_head.bbox_head.fc_reg.'),
    (r'roi_heads\.mask_head\.mask_fcn(\d)\.', lambda match: f'roi_head.mask_head.convs.{int(match[1]) - 1}.conv.'),
    (r'roi_heads\.mask_head\.(\d)\.0\.', r'roi_head.mask_head.convs.\1.conv.'),
    (r'roi_heads\.mask_head\.(\d)\.1\.', r'roi_head.mask_head.convs.\1.bn.'),
    (r'roi_heads\.mask_predictor\.conv5_mask\.', 'roi_head.mask_head.upsample.'),
    (r'roi_heads\.mask_predictor\.mask_fcn_logits\.', 'roi_head.mask_head.conv_logits.'),
)


def convert_torchvision(
    path: str | Path,
    out: str | Path,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
    bn_eps: float | None = None,
) -> dict[str, Any]:
    """Write a state dict of torchvision as a checkpoint of this project.

    Args:
        path: a state dict, or what torchvision's training program saves.
        out: where the checkpoint goes.
        classes: names, in the order of torchvision's labels from 1 on. Default: COCO's where the detector has a row for
            every one of its 91 numbers (and `num_classes` is not given), else unknown.
        num_classes: C, without background, where no row is to be dropped.
        bn_eps: what torchvision's batch norms add to the variance. Default: 0 where they are frozen, as in all that
            begins with its published detectors, else 1e-5. (Frozen ones of detectors that begin with an ImageNet
            backbone alone add 1e-5 too: give it for those.)

    Returns:
        `config`, the name of the config the checkpoint is for; `num_classes`; `bn_eps`.

    Raises:
        CheckpointError: the file cannot be read, or is of another detector.
        ConfigError: classes that do not fit.
    """
    checkpoint, _ = read_data_only(path)  # torchvision's training saves its command line too
    weights = checkpoint['state_dict']
    frozen = not any(name.endswith('.num_batches_tracked') for name in weights)
    if bn_eps is None:
        bn_eps = 0.0 if frozen else OUR_EPS
    weights = renamed(weights, RULES, str(path), SOURCE)
    if 'rpn_head.rpn_conv.1.conv.weight' not in weights:
        # One convolution is not a list of them.
        weights = {name.replace('rpn_conv.0.conv.', 'rpn_conv.'): tensor for name, tensor in weights.items()}
    for name, tensor in weights.items():
        if name.endswith('.running_var'):
            weights[name] = tensor + (bn_eps - OUR_EPS)
    rows, dataset_meta = _foreground(weights, classes, num_classes, path)
    _reorder_classes(weights, rows)
    save_checkpoint(dict(state_dict=weights, meta=dict(dataset_meta=dataset_meta)), out)
    return dict(config=_config(weights), num_classes=len(rows), bn_eps=bn_eps)


def _foreground(
    weights: Mapping[str, Tensor], classes: Sequence[str] | None, num_classes: int | None, path: str | Path
) -> tuple[list[int], dict[str, list]]:
    """torchvision's labels that are classes, in the order of ours, and what is known of these classes."""
    if 'roi_head.bbox_head.fc_cls.weight' not in weights:
        raise CheckpointError(
            f'{path}: has no `roi_heads.box_predictor.cls_score.weight`; give the state dict of a {SOURCE}'
        )
    count = len(weights['roi_head.bbox_head.fc_cls.weight']) - 1
    for option, wanted in (('--classes', classes and len(classes)), ('--num-classes', num_classes)):
        if wanted is not None and wanted != count:
            raise ConfigError(f'{option}: {wanted} classes, but the detector in {path} has {count} and background')
    if classes is None and num_classes is None and count + 1 == COCO_NUMBERS:
        return COCO_IDS, dict(classes=COCO_CLASSES, category_ids=COCO_IDS)
    return list(range(1, count + 1)), dict(classes=list(classes)) if classes is not None else {}


def _reorder_classes(weights: dict[str, Tensor], rows: Sequence[int]) -> None:
    """Keep these labels' rows of the predictors, and the background's, label 0, as the classifier's last."""
    for kind in ('weight', 'bias'):
        of_classes = weights[f'roi_head.bbox_head.fc_cls.{kind}']
        weights[f'roi_head.bbox_head.fc_cls.{kind}'] = of_classes[[*rows, 0]]
        deltas = weights[f'roi_head.bbox_head.fc_reg.{kind}']
        weights[f'roi_head.bbox_head.fc_reg.{kind}'] = deltas.unflatten(0, (-1, 4))[rows].flatten(0, 1)
        masks = weights.get(f'roi_head.mask_head.conv_logits.{kind}')
        if masks is not None:
            weights[f'roi_head.mask_head.conv_logits.{kind}'] = masks[rows]


def _config(weights: Mapping[str, Tensor]) -> str:
    """The config of `configs/torchvision` that a detector is built by."""
    detector = 'mask-rcnn' if 'roi_head.mask_head.conv_logits.weight' in weights else 'faster-rcnn'
    version = '-v2' if 'roi_head.bbox_head.shared_convs.0.conv.weight' in weights else ''
    return f'configs/torchvision/{detector}_r50{version}_fpn_coco.py'
