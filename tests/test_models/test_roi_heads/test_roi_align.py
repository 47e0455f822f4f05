"""Backward pass and inference against torchvision's, tap by tap."""
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from mmdet.errors import ConfigError
from mmdet.models.roi_heads import RoIAlign
from mmdet.models.roi_heads.roi_extractors import roi_align as module

coordinate = st.floats(-60, 260)
roi = st.tuples(st.integers(0, 1), coordinate, coordinate, st.floats(0, 200), st.floats(0, 200))


@pytest.mark.slow
@given(
    rois=st.lists(roi, min_size=1, max_size=6),
    output_size=st.sampled_from([1, 7]),
    sampling_ratio=st.sampled_from([0, 1, 2]),
    aligned=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_gradient_equals_torchvisions(rois, output_size, sampling_ratio, aligned):
    boxes = torch.tensor([[image, x, y, x + w, y + h] for image, x, y, w, h in rois])
    generator = torch.Generator().manual_seed(0)
    feats = torch.randn(2, 3, 13, 17, generator=generator, requires_grad=True)
    grad = torch.randn(len(rois), 3, output_size, output_size, generator=generator)
    pooled = RoIAlign(output_size, 1 / 16, sampling_ratio, aligned)(feats, boxes)
    expected = roi_align(feats, boxes, output_size, 1 / 16, sampling_ratio, aligned)
    assert torch.equal(pooled, expected)
    torch.testing.assert_close(
        torch.autograd.grad(pooled, feats, grad)[0],
        torch.autograd.grad(expected, feats, grad)[0],
        atol=2e-4,
        rtol=1e-4,
    )


@given(
    rois=st.lists(roi, min_size=0, max_size=6),
    output_size=st.sampled_from([1, 7]),
    sampling_ratio=st.sampled_from([0, 1, 2]),
    aligned=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_inference_equals_torchvisions(rois, output_size, sampling_ratio, aligned):
    boxes = torch.tensor([[image, x, y, x + w, y + h] for image, x, y, w, h in rois]).view(-1, 5)
    feats = torch.randn(2, 3, 13, 17, generator=torch.Generator().manual_seed(0))
    expected = roi_align(feats, boxes, output_size, 1 / 16, sampling_ratio, aligned)
    layer = RoIAlign(output_size, 1 / 16, sampling_ratio, aligned)
    with torch.inference_mode():
        torch.testing.assert_close(layer(feats, boxes), expected, atol=1e-4, rtol=1e-4)
        channels_last = feats.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(layer(channels_last, boxes), expected, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        assert torch.equal(layer(feats, boxes), expected)


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_deterministic_algorithms_on_a_gpu(deterministic, monkeypatch):
    monkeypatch.setattr(module, 'roi_align', lambda *_: 'torchvision decides')
    monkeypatch.setattr(module, 'kernel_roi_align', lambda *_: 'the kernel')
    # As much of a tensor on a GPU as decides how RoIs are pooled.
    learnt, frozen = (SimpleNamespace(device=torch.device('cuda'), requires_grad=wanted) for wanted in (True, False))
    with pytest.raises(ConfigError, match='^randomness.deterministic=True: on cuda .*sampling_ratio=2') as error:
        RoIAlign(7)(learnt, None)
    assert '\n' not in str(error.value)
    assert RoIAlign(7, sampling_ratio=2)(learnt, None) == 'torchvision decides'
    assert RoIAlign(7)(frozen, None) == 'the kernel'
    with torch.no_grad():
        assert RoIAlign(7)(learnt, None) == 'the kernel'
    torch.use_deterministic_algorithms(False)
    assert RoIAlign(7)(learnt, None) == 'torchvision decides'


def test_deterministic_algorithms_on_a_cpu(deterministic):
    feats, rois = torch.randn(1, 3, 13, 17, requires_grad=True), torch.tensor([[0, 8.0, 16.0, 120.0, 200.0]])
    pooled = RoIAlign(7, 1 / 16)(feats, rois)
    assert torch.equal(pooled, module.kernel_roi_align(feats, rois, 7, 1 / 16, 0, True))
    assert torch.equal(pooled, roi_align(feats, rois, 7, 1 / 16, 0, True))
    pooled.sum().backward()
    assert feats.grad.any()


def test_more_rois_than_are_pooled_at_a_time():
    torch.manual_seed(0)
    feats, corners = torch.randn(2, 3, 40, 40), 30 * torch.rand(300, 2)
    rois = torch.cat([torch.randint(2, (300, 1)).float(), corners, corners + 20 * torch.rand(300, 2)], dim=1)
    with torch.inference_mode():
        pooled = RoIAlign(4)(feats, rois)
    torch.testing.assert_close(pooled, roi_align(feats, rois, 4, aligned=True), atol=1e-5, rtol=1e-5)


def test_no_rois_give_a_zero_gradient():
    feats = torch.randn(1, 3, 8, 8, requires_grad=True)
    RoIAlign(7)(feats, torch.zeros(0, 5)).sum().backward()
    assert torch.equal(feats.grad, torch.zeros_like(feats))


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_any_memory_format(memory_format):
    feats = torch.randn(2, 4, 9, 9).to(memory_format=memory_format).requires_grad_()
    rois = torch.tensor([[0, 0.0, 0, 5, 6], [1, 2, 2, 8, 8]])
    pooled = RoIAlign(2, sampling_ratio=2)(feats, rois)
    expected = roi_align(feats, rois, 2, 1.0, 2, True)
    grads = [torch.autograd.grad(out.square().sum(), feats)[0] for out in (pooled, expected)]
    torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-5)
