"""A 3x3 convolution whose backward pass costs as much as there are cells with a gradient.

A region proposal network is run on every cell of a feature pyramid and learns from 256 anchors: on an 800 x 1067
image the gradient of its shared convolution is zero in 99 cells of 100. torch's backward pass multiplies by the zeros.
"""
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# The share of cells with a gradient up to which it pays, and the cells a batch of maps has at least: there is little to
# save on smaller ones, whose training so stays what it always was, to the bit.
SPARSE_UP_TO = 1 / 16
LEAST_CELLS = 10_000


def conv_with_sparse_gradient(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """`conv(x)` of a 3x3 convolution of stride 1 with padding 1; on the CPU with the backward pass described above.

    (B, C, H, W) -> (B, D, H, W).
    """
    if x.device.type == 'cpu' and torch.is_grad_enabled():
        return _SparseGradientConv.apply(x, conv.weight, conv.bias)
    return conv(x)


class _SparseGradientConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        num_cells = grad[:, 0].numel()
        if num_cells >= LEAST_CELLS:
            cells = (grad != 0).any(dim=1).flatten().nonzero().flatten()
            if len(cells) <= SPARSE_UP_TO * num_cells:
                with torch.autocast('cpu', enabled=False):
                    return _sparse_gradients(grad.to(weight.dtype), x.to(weight.dtype), weight, cells)
        settings = [len(weight)], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, ctx.needs_input_grad
        return torch.ops.aten.convolution_backward(grad, x.to(grad.dtype), weight.to(grad.dtype), *settings)


def _sparse_gradients(grad: Tensor, x: Tensor, weight: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input, weight and bias by the output's gradient, which is zero outside `cells`."""
    batch, channels, height, width = x.shape
    taps = _taps(cells, height, width)
    grad = grad.permute(0, 2, 3, 1).flatten(0, 2)[cells]
    padded = F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1).flatten(0, 2)
    weight = weight.permute(0, 2, 3, 1)
    grad_weight = (grad.T @ padded[taps].flatten(1)).view(weight.shape).permute(0, 3, 1, 2)
    grad_taps = (grad @ weight.flatten(1)).view(-1, channels)
    grad_padded = torch.zeros_like(padded).index_add_(0, taps.flatten(), grad_taps)
    grad_x = grad_padded.view(batch, height + 2, width + 2, channels)[:, 1:-1, 1:-1].permute(0, 3, 1, 2)
    return grad_x, grad_weight, grad.sum(dim=0)


def _taps(cells: Tensor, height: int, width: int) -> Tensor:
    """(K, 9): where the 3x3 surroundings of cells lie in a batch padded by a cell on each side.

    Args:
        cells: (K,) int64, in 0..B * H * W - 1.
    """
    image, row, column = cells // (height * width), cells // width % height, cells % width
    first = (image * (height + 2) + row) * (width + 2) + column
    steps = torch.arange(3, device=cells.device)
    return first[:, None] + (steps[:, None] * (width + 2) + steps).flatten()
