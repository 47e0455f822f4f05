"""The convolution of few gradients has torch's gradients, however few."""
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mmdet.models.layers import sparse_gradient_conv
from mmdet.models.layers.sparse_gradient_conv import conv_with_sparse_gradient


def gradients(convolve, x: Tensor, conv: nn.Conv2d, grad: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    out = convolve(x)
    return out.detach(), *torch.autograd.grad(out, (x, conv.weight, conv.bias), grad)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    num_cells=st.integers(0, 8),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_gradients_are_torchs(batch, height, width, num_cells, channels_last, seed):
    torch.manual_seed(seed)
    conv = nn.Conv2d(3, 5, 3, padding=1).double()
    x = torch.randn(batch, 3, height, width, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    grad = torch.zeros(batch, 5, height, width, dtype=torch.float64)
    for _ in range(num_cells):
        grad[torch.randint(batch, ()), :, torch.randint(height, ()), torch.randint(width, ())] = torch.randn(5).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_gradient_conv, 'LEAST_CELLS', 0)
        patch.setattr(sparse_gradient_conv, 'SPARSE_UP_TO', 1)
        found = gradients(lambda x: conv_with_sparse_gradient(x, conv), x, conv, grad)
    torch.testing.assert_close(found, gradients(conv, x, conv, grad))


@pytest.mark.parametrize('size, num_cells', [(20, 1), (100, 1000)], ids=['small map', 'many cells'])
def test_where_it_does_not_pay_gradients_are_torchs_to_the_bit(size, num_cells):
    torch.manual_seed(0)
    conv, x, grad = nn.Conv2d(8, 8, 3, padding=1), torch.randn(1, 8, size, size), torch.zeros(1, 8, size, size)
    grad.view(8, -1)[:, torch.randperm(size**2)[:num_cells]] = torch.randn(8, num_cells)
    found = gradients(lambda x: conv_with_sparse_gradient(x, conv), x, conv, grad)
    assert all(map(torch.equal, found, gradients(conv, x, conv, grad)))


def test_half_precision():
    torch.manual_seed(0)
    conv, x, grad = nn.Conv2d(8, 8, 3, padding=1), torch.randn(1, 8, 100, 100), torch.zeros(1, 8, 100, 100)
    grad[0, :, [3, 99], [0, 7]] = torch.randn(8, 2)
    with torch.autocast('cpu', torch.bfloat16):
        found = gradients(lambda x: conv_with_sparse_gradient(x, conv), x, conv, grad.bfloat16())
        expected = gradients(conv, x, conv, grad.bfloat16())
    for ours, torchs in zip(found, expected, strict=True):
        assert ours.dtype == torchs.dtype
        torch.testing.assert_close(ours.float(), torchs.float(), rtol=2e-2, atol=2e-2)
