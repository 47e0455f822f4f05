"""Batch norms that use their running statistics, folded into the convolutions before them.

Such a norm multiplies and shifts each channel by what it has learnt, whatever the image:

    gamma * (w * x + b - mean) / sqrt(var + eps) + beta = (scale * w) * x + (scale * (b - mean) + beta),
    scale = gamma / sqrt(var + eps)

A convolution with the weights on the right does the work of both, and in training the map between the two need not be
kept for the backward pass: two fifths of what a ResNet-50 keeps. Gradients reach w, b, gamma and beta through the
formula.
"""
from collections.abc import Iterator
from itertools import pairwise

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .backbones.resnet import ResidualBlock, ResNet


def fold_norms(model: nn.Module, only_in_inference: bool) -> None:
    """Let convolutions do the work of the batch norms behind them, whenever these are in evaluation mode.

    Parameters and buffers, their names and their values stay as they are.

    Args:
        only_in_inference: and where `torch.inference_mode()` says that nothing will be learnt.
    """
    for conv, norm in _convs_and_norms(model):
        if _can_be_folded(conv, norm):
            folded = _FoldedNorm(conv, norm, only_in_inference)
            conv.forward, norm.forward = folded.convolve, folded.normalize


def _convs_and_norms(model: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Layers of which the second is given what the first returns, and nothing else is."""
    for module in model.modules():
        if isinstance(module, ResidualBlock):
            yield from ((getattr(module, conv), getattr(module, norm)) for conv, norm in module.layer_names)
        elif isinstance(module, ResNet):
            yield from pairwise(getattr(module, name) for name in module.stem_names)
        elif isinstance(module, nn.Sequential):
            yield from pairwise(module)
        elif isinstance(module, ConvModule) and module.with_norm and module.order[:2] == ('conv', 'norm'):
            yield module.conv, module.norm


def _can_be_folded(conv: nn.Module, norm: nn.Module) -> bool:
    """Whether a convolution is an ordinary one and the norm does the same to every image."""
    return type(conv) is nn.Conv2d and isinstance(norm, _BatchNorm) and norm.running_mean is not None


class _FoldedNorm:
    """Stands in for the `forward` of a convolution and of the batch norm behind it.

    Folded weights that no gradient flows through are kept beside the parameters, and made again when one of these has
    changed.
    """

    def __init__(self, conv: nn.Conv2d, norm: _BatchNorm, only_in_inference: bool) -> None:
        self.conv = conv
        self.norm = norm
        self.only_in_inference = only_in_inference
        self._folded: tuple[Tensor, Tensor] | None = None
        self._folded_from: list[bool | tuple[int, int]] = []

    @property
    def _active(self) -> bool:
        return not self.norm.training and (torch.is_inference_mode_enabled() or not self.only_in_inference)

    def convolve(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H', W'), normalised already where that can be."""
        if self._active:
            return self.conv._conv_forward(x, *self._weight_and_bias())
        return type(self.conv).forward(self.conv, x)

    def normalize(self, x: Tensor) -> Tensor:
        """What is left to do for the norm."""
        return x if self._active else type(self.norm).forward(self.norm, x)

    def _weight_and_bias(self) -> tuple[Tensor, Tensor]:
        conv, norm = self.conv, self.norm
        sources = [conv.weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var]
        sources = [source for source in sources if source is not None]
        if torch.is_grad_enabled() and any(source.requires_grad for source in sources):
            return _fold(conv, norm)
        # What inference mode has made is of no use to a backward pass through a frozen layer.
        state = [torch.is_inference_mode_enabled(), *map(_state, sources)]
        if self._folded is None or state != self._folded_from:
            self._folded = _fold(conv, norm)
            self._folded_from = state
        return self._folded


def _fold(conv: nn.Conv2d, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """The weight and the bias of a convolution that does the work of both."""
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    bias = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
    bias = bias * scale
    if norm.bias is not None:
        bias = bias + norm.bias
    return conv.weight * scale.view(-1, 1, 1, 1), bias


def _state(tensor: Tensor) -> tuple[int, int]:
    """Another one when a tensor has been moved or written to."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version
