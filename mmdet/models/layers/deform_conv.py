"""Deformable convolutions on torchvision's operator, with the parameters of mmcv's (`weight`, `conv_offset.*`)."""
import math

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from mmdet.registry import MODELS


@MODELS.register_module('DCN')
class DeformConv2d(nn.Module):
    """Deformable convolution, version 1 (arXiv 1703.06211): a convolution says where each tap of the kernel reads.

    With `conv_offset` at zero, as it starts, this is an ordinary convolution.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as of `torch.nn.Conv2d`.
        deform_groups: the input channels are split into so many groups with offsets of their own.
    """

    numbers_per_tap = 2  # y, x

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        deform_groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.conv_offset = nn.Conv2d(
            in_channels,
            deform_groups * self.numbers_per_tap * kernel_size**2,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
        )
        self.init_weights()

    def init_weights(self) -> None:
        """A uniform kernel, and no offsets."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H', W')."""
        return self._convolve(x, self.conv_offset(x))

    def _convolve(self, x: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        return deform_conv2d(x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask)


@MODELS.register_module('DCNv2')
class ModulatedDeformConv2d(DeformConv2d):
    """Deformable convolution, version 2 (arXiv 1811.11168): what each tap reads is also weighed, by a sigmoid."""

    numbers_per_tap = 3  # y, x, weight

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H', W')."""
        numbers = self.conv_offset(x)
        offsets = numbers.shape[1] // 3 * 2
        return self._convolve(x, numbers[:, :offsets], numbers[:, offsets:].sigmoid())
