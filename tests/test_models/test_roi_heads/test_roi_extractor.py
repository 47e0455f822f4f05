"""Which pyramid level serves which RoI, and RoIAlign on it."""
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from mmdet.models.roi_heads import SingleRoIExtractor

STRIDES = (4, 8, 16, 32)


def extractor(**kwargs) -> SingleRoIExtractor:
    return SingleRoIExtractor(dict(type='RoIAlign', output_size=7, **kwargs), out_channels=3, featmap_strides=STRIDES)


@given(width=st.floats(1, 2000), height=st.floats(1, 2000))
@settings(max_examples=200, deadline=None)
def test_levels_follow_the_formula(width, height):
    scale = math.sqrt(width * height)
    doublings = math.log2(scale / 56)
    if abs(doublings - round(doublings)) < 1e-4:
        return
    expected = min(max(math.floor(doublings), 0), 3)
    rois = torch.tensor([[0, 5.0, 6.0, 5 + width, 6 + height]], dtype=torch.float64)
    assert int(extractor().levels_of(rois)) == expected


def test_a_roi_of_twice_the_finest_scale_starts_the_second_level():
    rois = torch.tensor([[0, 0, 0, 111.9, 111.9], [0, 0, 0, 112, 112], [0, 0, 0, 448, 448], [0, 0, 0, 0, 0]])
    assert extractor().levels_of(rois).tolist() == [0, 1, 3, 0]


@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_features_are_roi_align_of_the_rois_level(sampling_ratio, device):
    feats = [torch.randn(2, 3, 512 // stride, 512 // stride, device=device) for stride in STRIDES]
    rois = torch.tensor(
        [[0, 10, 20, 50, 60], [1, 0, 0, 500, 500], [1, 30, 30, 230, 190], [0, 5, 5, 300, 400]],
        dtype=torch.float32,
        device=device,
    )
    levels = [0, 3, 1, 2]
    pooled = extractor(sampling_ratio=sampling_ratio).to(device)(feats, rois)
    for i, level in enumerate(levels):
        expected = roi_align(feats[level], rois[i : i + 1], 7, 1 / STRIDES[level], sampling_ratio, aligned=True)
        torch.testing.assert_close(pooled[i], expected[0])


def test_no_rois():
    feats = [torch.randn(1, 3, 8, 8) for _ in STRIDES]
    assert extractor()(feats, torch.zeros(0, 5)).shape == (0, 3, 7, 7)
