"""The mask head's shortcuts against the plain layers they stand for."""
import pytest
import torch
from torch import nn

from mmdet.models.roi_heads import FCNMaskHead
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import logits_of_class, upsample_without_overlap


def plain_forward(head: FCNMaskHead, roi_feats: torch.Tensor) -> torch.Tensor:
    """All classes' logits, layer by layer as published."""
    for conv in head.convs:
        roi_feats = conv(roi_feats)
    return head.conv_logits(head.upsample(roi_feats).relu())


@pytest.mark.parametrize('scale', [2, 3])
def test_upsampling_is_the_transposed_convolution(scale, device):
    deconv = nn.ConvTranspose2d(6, 5, scale, stride=scale).to(device)
    feats = torch.randn(3, 6, 4, 7, device=device)
    torch.testing.assert_close(upsample_without_overlap(feats, deconv), deconv(feats), atol=1e-5, rtol=1e-5)


def test_only_the_wanted_classes_logits(device):
    predictor = nn.Conv2d(6, 9, 1).to(device)
    feats, labels = torch.randn(4, 6, 5, 5, device=device), torch.tensor([0, 8, 3, 3], device=device)
    expected = predictor(feats)[torch.arange(4), labels]
    torch.testing.assert_close(logits_of_class(feats, predictor, labels), expected, atol=1e-5, rtol=1e-5)


def test_head_equals_the_plain_layers_with_gradients():
    torch.manual_seed(0)
    head = FCNMaskHead(num_convs=2, in_channels=4, conv_out_channels=6, num_classes=5)
    head.init_weights()
    roi_feats, labels = torch.randn(3, 4, 14, 14), torch.tensor([4, 0, 2])
    targets = (torch.rand(3, 28, 28) > 0.5).float()

    ours = head(roi_feats, labels)
    theirs = plain_forward(head, roi_feats)[torch.arange(3), labels]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)

    loss = head.loss(ours, targets)['loss_mask']
    expected = nn.functional.binary_cross_entropy_with_logits(theirs, targets)
    torch.testing.assert_close(loss, expected)
    ours_grad = torch.autograd.grad(loss, list(head.parameters()))
    theirs_grad = torch.autograd.grad(expected, list(head.parameters()))
    torch.testing.assert_close(ours_grad, theirs_grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(class_agnostic=True),
        dict(upsample_cfg=dict(type=None)),
        dict(upsample_cfg=dict(type='deconv', scale_factor=3)),
        dict(predictor_cfg=dict(type='NormedConv2d')),
    ],
)
@pytest.mark.parametrize('num_rois', [0, 3, 70])
def test_inference_equals_training(options, num_rois, device):
    torch.manual_seed(0)
    head = FCNMaskHead(num_convs=2, in_channels=4, conv_out_channels=6, num_classes=5, **options).to(device)
    head.init_weights()
    roi_feats = torch.randn(num_rois, 4, 14, 14, device=device)
    labels = torch.randint(5, (num_rois,), device=device)
    with torch.no_grad():
        expected = head(roi_feats, labels)
    with torch.inference_mode():
        torch.testing.assert_close(head(roi_feats, labels), expected, atol=1e-5, rtol=1e-5)


def test_class_agnostic_head_ignores_the_class():
    head = FCNMaskHead(num_convs=1, in_channels=4, conv_out_channels=4, num_classes=7, class_agnostic=True)
    roi_feats = torch.randn(2, 4, 14, 14)
    assert head.conv_logits.weight.shape == (1, 4, 1, 1)
    assert torch.equal(head(roi_feats, torch.tensor([0, 1])), head(roi_feats, torch.tensor([6, 2])))


def test_no_rois_give_a_zero_loss_that_still_has_gradients():
    head = FCNMaskHead(num_convs=1, in_channels=4, conv_out_channels=4, num_classes=3)
    loss = head.loss(head(torch.zeros(0, 4, 14, 14), torch.zeros(0, dtype=torch.int64)), torch.zeros(0, 28, 28))
    loss['loss_mask'].backward()
    assert loss['loss_mask'] == 0
    assert head.conv_logits.weight.grad is not None
