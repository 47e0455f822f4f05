"""Second stages of mmdetection 1.x: what they see of a RoI, in which pixels they suppress, whose masks they paste."""
import copy

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mmdet.models.post_processing import paste_masks_legacy_to_rle
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.boxes import boxes_to_rois

from .mmdet1_loops import level_of, pool

STRIDES = (4, 8, 16, 32)
EXTRACTOR = dict(
    type='LegacySingleRoIExtractor',
    roi_layer=dict(type='LegacyRoIAlign', output_size=3, sampling_ratio=2),
    out_channels=2,
    featmap_strides=STRIDES,
)


def test_features_are_those_of_inclusive_rois_without_shift(device):
    rng = torch.Generator().manual_seed(0)
    feats = [torch.randn(2, 2, 256 // stride, 256 // stride, generator=rng) for stride in STRIDES]
    # The last two: 111 and 112 pixels wide and high, the last of level 0 and the first of level 1; then a thin one.
    rois = [[0, 10, 20, 50.5, 60], [1, 0, 0, 250, 255], [1, 30, 40, 140, 150], [0, 30, 40, 141, 151], [0, 7, 9, 6.2, 9]]
    extractor = MODELS.build(EXTRACTOR).to(device)
    found = extractor([feat.to(device) for feat in feats], torch.tensor(rois, dtype=torch.float32, device=device))
    expected = []
    for image, *box in rois:
        level = level_of(box)
        expected.append(pool(feats[level][image].double().numpy(), box, STRIDES[level], 3))
    np.testing.assert_allclose(found.cpu(), np.stack(expected), atol=1e-4)


def tiny_head(**change) -> torch.nn.Module:
    layers = dict(in_channels=2, num_classes=2)
    return MODELS.build(
        ConfigDict(
            type='LegacyStandardRoIHead',
            bbox_roi_extractor=EXTRACTOR,
            bbox_head=dict(
                type='Shared2FCBBoxHead',
                roi_feat_size=3,
                fc_out_channels=4,
                reg_class_agnostic=True,
                bbox_coder=dict(type='LegacyDeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2]),
                **layers,
            ),
            mask_head=dict(type='FCNMaskHead', num_convs=1, roi_feat_size=3, conv_out_channels=2, **layers),
            test_cfg=dict(
                score_thr=0.0,
                nms=dict(type='nms', iou_threshold=0.41, offset=1),
                max_per_img=10,
                mask_thr_binary=0.5,
            ),
            **change,
        )
    )


@pytest.mark.parametrize(('factor', 'survivors'), [(4.0, 2), (1.0, 4)])
@torch.no_grad()
def test_boxes_are_suppressed_and_masks_pasted_in_original_pixels(factor, survivors):
    """At a factor of 4 the boxes are 10 pixels wide: with the last pixel 6 of 14 overlap, 21 of 53 in the network's."""
    head = tiny_head()
    for parameter in head.bbox_head.fc_reg.parameters():
        torch.nn.init.zeros_(parameter)
    rng = torch.Generator().manual_seed(1)
    feats = [torch.randn(1, 2, 128 // stride, 128 // stride, generator=rng) for stride in STRIDES]
    boxes = torch.tensor([[40.0, 40, 76, 76], [56, 40, 92, 76]])
    size = (int(128 / factor),) * 2
    sample = DetDataSample(metainfo=dict(img_shape=(128, 128), ori_shape=size, scale_factor=(factor, factor)))
    (detections,) = head.predict(feats, [InstanceData(bboxes=boxes)], [sample])
    found = detections['base']
    assert len(found) == survivors

    rows = [(boxes / factor).tolist().index(box) for box in found.bboxes.tolist()]
    rois = boxes_to_rois([boxes[rows]])
    probabilities = head.mask_logits(feats, rois, found.labels).sigmoid()
    assert found.masks == paste_masks_legacy_to_rle(probabilities, boxes[rows] / factor, size)


@torch.no_grad()
def test_htc_pastes_the_mean_of_the_stages_masks():
    rng = torch.Generator().manual_seed(2)
    feats = [torch.randn(1, 2, 128 // stride, 128 // stride, generator=rng) for stride in STRIDES]
    mask_head = dict(type='HTCMaskHead', num_convs=2, in_channels=2, conv_out_channels=2, num_classes=3)
    one_stage = tiny_head()
    config = ConfigDict(
        type='LegacyHybridTaskCascadeRoIHead',
        num_stages=3,
        stage_loss_weights=[1, 1, 1],
        bbox_roi_extractor=EXTRACTOR,
        bbox_head=dict(type='Shared2FCBBoxHead', in_channels=2, roi_feat_size=3, fc_out_channels=4, num_classes=3),
        mask_head=[dict(mask_head, with_conv_res=stage > 0) for stage in range(3)],
        test_cfg=one_stage.test_cfg,
    )
    rois = boxes_to_rois([torch.tensor([[4.0, 8, 60, 50], [10, 10, 100, 120]])])
    labels = torch.tensor([2, 0])
    for mask_info_flow in (True, False):
        head = MODELS.build(ConfigDict(copy.deepcopy(config), mask_info_flow=mask_info_flow))
        of_stages = [head.mask_logits(feats, rois, labels, stage).sigmoid() for stage in range(3)]
        found = head.mask_probabilities(head.context(feats), rois, labels)
        torch.testing.assert_close(found, torch.stack(of_stages).mean(0))
        assert not torch.allclose(found, of_stages[-1])
