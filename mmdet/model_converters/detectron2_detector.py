"""detectron2's Mask R-CNN with FPN, of its model zoo and of its training program, as checkpoints of this project.

The configs in `configs/detectron2` compute what detectron2 computes, and its order of classes is ours (background
last); here are the names.
"""
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmdet.engine import own_weights, save_checkpoint
from mmdet.engine.restricted_pickle import read_array_pickle
from mmdet.errors import CheckpointError, ConfigError

from .class_names import COCO_CLASSES, COCO_IDS
from .data_only import read_data_only
from .renaming import Rule, renamed

SOURCE = 'detectron2 Mask R-CNN with FPN'
LVIS = {1230: 'lvis-v0.5', 1203: 'lvis-v1'}

BLOCK = r'backbone\.bottom_up\.res(\d)\.(\d+)\.'
RULES: Sequence[Rule] = (
    (r'backbone\.bottom_up\.stem\.conv1\.norm\.', 'backbone.bn1.'),
    (r'backbone\.bottom_up\.stem\.conv1\.', 'backbone.conv1.'),
    (BLOCK + r'shortcut\.norm\.', lambda match: f'backbone.layer{int(match[1]) - 1}.{match[2]}.downsample.1.'),
    (BLOCK + r'shortcut\.', lambda match: f'backbone.layer{int(match[1]) - 1}.{match[2]}.downsample.0.'),
    (BLOCK + r'conv(\d)\.norm\.', lambda match: f'backbone.layer{int(match[1]) - 1}.{match[2]}.bn{match[3]}.'),
    (BLOCK + r'conv(\d)\.', lambda match: f'backbone.layer{int(match[1]) - 1}.{match[2]}.conv{match[3]}.'),
    (r'backbone\.fpn_lateral(\d)\.', lambda match: f'neck.lateral_convs.{int(match[1]) - 2}.conv.'),
    (r'backbone\.fpn_output(\d)\.', lambda match: f'neck.fpn_convs.{int(match[1]) - 2}.conv.'),
    (r'proposal_generator\.rpn_head\.conv\.', 'rpn_head.rpn_conv.'),
    (r'proposal_generator\.rpn_head\.objectness_logits\.', 'rpn_head.rpn_cls.'),
    (r'proposal_generator\.rpn_head\.anchor_deltas\.', 'rpn_head.rpn_reg.'),
    (r'roi_heads\.box_head\.fc(\d)\.', lambda match: f'roi_head.bbox_head.shared_fcs.{int(match[1]) - 1}.'),
    (r'roi_heads\.box_predictor\.cls_score\.', 'roi_head.bbox_head.fc_cls.'),
    (r'roi_heads\.box_predictor\.bbox_pred\.', 'roi_head.bbox_head.fc_reg.'),
    (r'roi_heads\.mask_head\.mask_fcn(\d)\.', lambda match: f'roi_head.mask_head.convs.{int(match[1]) - 1}.conv.'),
    (r'roi_heads\.mask_head\.deconv\.', 'roi_head.mask_head.upsample.'),
    (r'roi_heads\.mask_head\.predictor\.', 'roi_head.mask_head.conv_logits.'),
    # These are in the configs.
    (r'(pixel_mean|pixel_std)$', None),
    (r'proposal_generator\.anchor_generator\.', None),
)


def convert_detectron2(path: str | Path, out: str | Path, classes: Sequence[str] | None = None) -> dict[str, Any]:
    """Write detectron2's weights as a checkpoint of this project.

    Args:
        path: a `.pkl` of detectron2's model zoo, or a `.pth` of its training program.
        out: where the checkpoint goes.
        classes: names in the order of detectron2's labels. Default: COCO's for 80 classes; for LVIS's 1230 and 1203 the
            category ids alone are known, and for other numbers nothing.

    Returns:
        `config`, the name of the config the checkpoint is for, and `num_classes`.

    Raises:
        CheckpointError: the file cannot be read, holds anything but data, or is of another detector.
        ConfigError: classes that do not fit.
    """
    weights = renamed(_read(path), RULES, str(path), SOURCE)
    for name in ('roi_head.bbox_head.fc_cls.weight', 'roi_head.mask_head.conv_logits.weight', 'backbone.conv1.weight'):
        if name not in weights:
            raise CheckpointError(f'{path}: lacks what becomes `{name}`; give the weights of a {SOURCE}')
    _complete_norms(weights)
    num_classes = len(weights['roi_head.bbox_head.fc_cls.weight']) - 1
    if classes is not None and len(classes) != num_classes:
        raise ConfigError(f'--classes: {len(classes)} classes, but the detector in {path} has {num_classes}')
    save_checkpoint(dict(state_dict=weights, meta=dict(dataset_meta=_dataset_meta(num_classes, classes))), out)
    data = LVIS.get(num_classes, 'coco')
    return dict(config=f'configs/detectron2/mask-rcnn_{_trunk(weights)}_fpn_{data}.py', num_classes=num_classes)


def _read(path: str | Path) -> Mapping[str, Tensor]:
    """Named tensors from either kind of file."""
    if Path(path).suffix != '.pkl':
        checkpoint, _ = read_data_only(path)
        return checkpoint['state_dict']
    contents = read_array_pickle(path)
    weights = contents.get('model', contents) if isinstance(contents, dict) else None
    arrays = weights.values() if isinstance(weights, dict) else [None]
    if not all(isinstance(array, (np.ndarray, np.generic)) for array in arrays):
        raise CheckpointError(f'{path}: holds no `model` of named arrays; give a .pkl of the detectron2 model zoo')
    return own_weights({name: torch.from_numpy(np.array(array)) for name, array in weights.items()}, path)


def _complete_norms(weights: dict[str, Tensor]) -> None:
    """Norms whose statistics are folded into weight and bias (Caffe2's) get mean 0 and variance 1, as in detectron2."""
    for name in [name for name in weights if name.startswith('backbone.') and name.endswith('.bias')]:
        norm = name.removesuffix('.bias')
        weights.setdefault(f'{norm}.running_mean', torch.zeros_like(weights[name]))
        weights.setdefault(f'{norm}.running_var', torch.ones_like(weights[name]))


def _dataset_meta(num_classes: int, classes: Sequence[str] | None) -> dict[str, list]:
    """What is known of the classes."""
    if classes is not None:
        return dict(classes=list(classes))
    if num_classes == len(COCO_IDS):
        return dict(classes=COCO_CLASSES, category_ids=COCO_IDS)
    return dict(category_ids=list(range(1, num_classes + 1))) if num_classes in LVIS else {}


def _trunk(weights: Mapping[str, Tensor]) -> str:
    """The backbone's name in that of the config."""
    depth = 101 if 'backbone.layer3.22.conv1.weight' in weights else 50
    conv = weights['backbone.layer1.0.conv2.weight']
    return f'r{depth}' if conv.shape[0] == conv.shape[1] else f'x{depth}-32x8d'
