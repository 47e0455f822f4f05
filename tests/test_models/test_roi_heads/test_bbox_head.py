"""Boxes of some classes of some RoIs, without those of all."""
import pytest
import torch

from mmdet.models.roi_heads import Shared2FCBBoxHead


@pytest.mark.parametrize('agnostic', [False, True])
@pytest.mark.parametrize('num_pairs', [0, 1, 20, 3000])
@torch.no_grad()
def test_candidate_deltas_are_those_among_all(agnostic, num_pairs, device):
    torch.manual_seed(0)
    head = Shared2FCBBoxHead(
        in_channels=2, roi_feat_size=2, fc_out_channels=8, num_classes=60, reg_class_agnostic=agnostic
    ).to(device)
    reg_feats = torch.randn(10, 8, device=device)
    roi_index = torch.randint(10, (num_pairs,), device=device)
    labels = torch.randint(60, (num_pairs,), device=device)
    expected = head.deltas_of_class(head.fc_reg(reg_feats), roi_index, labels)
    found = head.candidate_deltas(reg_feats, roi_index, labels)
    assert found.shape == (num_pairs, 4)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_more_candidates_than_are_regressed_at_a_time():
    torch.manual_seed(0)
    head = Shared2FCBBoxHead(in_channels=2, roi_feat_size=2, fc_out_channels=8, num_classes=400)
    reg_feats, roi_index, labels = torch.randn(100, 8), torch.randint(100, (2050,)), torch.randint(400, (2050,))
    expected = head.deltas_of_class(head.fc_reg(reg_feats), roi_index, labels)
    torch.testing.assert_close(head.candidate_deltas(reg_feats, roi_index, labels), expected, atol=1e-6, rtol=1e-5)
