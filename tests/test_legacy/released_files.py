"""Small files as releases of mmdetection 1.0rc0 have them: their configs, and random weights by the released names."""
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine import Config
from mmengine.structures import InstanceData

from mmdet.engine import load_config
from mmdet.registry import MODELS
from mmdet.structures.masks import coco_mask

from .mmdet1_loops import Detection

ROOT = Path(__file__).resolve().parents[2]
CHANNELS, HIDDEN = 8, 16
ORIGINAL_SIZE, SCALE = (71, 96), (133, 80)
Shapes = dict[str, tuple[int, ...]]


def tiny_config(name: str, num_classes: int) -> Config:
    """A config of a release, named from `configs` on, with few channels, classes and proposals."""
    config = load_config(ROOT / 'configs' / name)
    model = config.model
    model.backbone.update(depth=50, base_channels=8, init_cfg=None)
    if model.backbone.type == 'ResNeXt':
        model.backbone.update(groups=2, base_width=4)
    model.neck.update(in_channels=[32, 64, 128, 256], out_channels=CHANNELS)
    model.rpn_head.update(in_channels=CHANNELS, feat_channels=CHANNELS)
    roi_head = model.roi_head
    for extractor in ('bbox_roi_extractor', 'mask_roi_extractor', 'semantic_roi_extractor'):
        if extractor in roi_head:
            roi_head[extractor].out_channels = CHANNELS
    for kind, change in (
        ('bbox_head', dict(fc_out_channels=HIDDEN)),
        ('mask_head', dict(conv_out_channels=CHANNELS)),
        ('semantic_head', dict(conv_out_channels=CHANNELS, num_classes=5)),
    ):
        heads = roi_head.get(kind, [])
        for head in heads if isinstance(heads, list) else [heads]:
            head.update(in_channels=CHANNELS, **change)
            if kind != 'semantic_head':
                head.num_classes = num_classes
    model.test_cfg.rpn.update(nms_pre=20, max_per_img=12)
    model.test_cfg.rcnn.max_per_img = 10
    config.test_dataloader.dataset.pipeline[1].scale = SCALE
    return config


def released_shapes(config: Config, num_outputs: int | None = None) -> Shapes:
    """The parameters of the detector's file; those of the trunk, whose names have stayed, as in the config's model.

    Args:
        num_outputs: rows of the classifier, where they are not the config's classes and background.
    """
    with torch.device('meta'):
        trunk = MODELS.build(config.model)
    shapes = {
        name.replace('.conv2.conv_offset.', '.conv2_offset.'): tuple(tensor.shape)
        for name, tensor in trunk.state_dict().items()
        if name.startswith(('backbone.', 'neck.'))
    }
    shapes |= conv('rpn_head.rpn_conv', CHANNELS, 3) | conv('rpn_head.rpn_cls', 3) | conv('rpn_head.rpn_reg', 12)
    bbox_head = config.model.roi_head.bbox_head
    staged = isinstance(bbox_head, list)
    slots = (bbox_head[0] if staged else bbox_head).num_classes + 1
    class_rows = slots if num_outputs is None else num_outputs
    if not staged:
        box_rows = 4 if bbox_head.reg_class_agnostic else 4 * slots
        mask_rows = 1 if config.model.roi_head.mask_head.get('class_agnostic') else slots
        return shapes | box_shapes('bbox_head', class_rows, box_rows) | mask_shapes('mask_head', mask_rows)
    for stage in range(3):
        shapes |= box_shapes(f'bbox_head.{stage}', class_rows, 4) | mask_shapes(f'mask_head.{stage}', slots)
        shapes |= conv(f'mask_head.{stage}.conv_res.conv', CHANNELS)
    for i in range(5):
        shapes |= conv(f'semantic_head.lateral_convs.{i}.conv', CHANNELS)
    for i in range(4):
        shapes |= conv(f'semantic_head.convs.{i}.conv', CHANNELS, 3)
    return shapes | conv('semantic_head.conv_embedding.conv', CHANNELS) | conv('semantic_head.conv_logits', 5)


def box_shapes(name: str, class_rows: int, box_rows: int) -> Shapes:
    shapes = linear(f'{name}.shared_fcs.0', HIDDEN, CHANNELS * 49) | linear(f'{name}.shared_fcs.1', HIDDEN, HIDDEN)
    return shapes | linear(f'{name}.fc_cls', class_rows, HIDDEN) | linear(f'{name}.fc_reg', box_rows, HIDDEN)


def mask_shapes(name: str, mask_rows: int) -> Shapes:
    shapes = conv(f'{name}.upsample', CHANNELS, 2) | conv(f'{name}.conv_logits', mask_rows)
    for i in range(4):
        shapes |= conv(f'{name}.convs.{i}.conv', CHANNELS, 3)
    return shapes


def linear(name: str, rows: int, columns: int) -> Shapes:
    return {f'{name}.weight': (rows, columns), f'{name}.bias': (rows,)}


def conv(name: str, channels: int, size: int = 1) -> Shapes:
    return {f'{name}.weight': (channels, CHANNELS, size, size), f'{name}.bias': (channels,)}


def filled(shapes: Shapes, seed: int) -> dict[str, torch.Tensor]:
    """Weights under which activations keep their size and scores differ."""
    rng = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=rng)
        if name.endswith('num_batches_tracked'):
            weights[name] = torch.zeros(shape, dtype=torch.int64)
        elif name.endswith('running_var') or (name.endswith('weight') and len(shape) == 1):
            weights[name] = (0.3 if name.endswith('bn3.weight') else 1.0) + 0.1 * noise.abs()
        elif name.endswith('weight'):
            gain = 0.3 if 'fc_reg' in name or 'rpn_reg' in name else 1.4
            weights[name] = gain * noise / noise[0].numel() ** 0.5
        else:
            weights[name] = 0.05 * noise
    return weights


def write_counts(counts: Sequence[int], path: Path) -> Path:
    """A file of training counts, whose category ids are not the places of the classes."""
    categories = [
        dict(id=10 * i, name=f'class {i}', instance_count=count, image_count=1) for i, count in enumerate(counts)
    ]
    path.write_text(json.dumps(dict(categories=categories)))
    return path


def assert_same_detections(found: InstanceData, expected: Sequence[Detection]) -> None:
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.scores, [each.score for each in expected], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.bboxes, [each.box for each in expected], rtol=0, atol=1e-4)
    assert found.labels.tolist() == [each.label for each in expected]
    masks = np.stack([coco_mask.decode(mask) for mask in found.masks]).astype(bool)
    assert (masks != np.stack([each.mask for each in expected])).mean() < 1e-3
    assert masks.any()
