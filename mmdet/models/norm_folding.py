"""Batch norms that use their running statistics, folded into the convolutions before them.

Such a norm multiplies and shifts each channel by what it has learnt, whatever the image:

    gamma * (w * x + b - mean) / sqrt(var + eps) + beta = (scale * w) * x + (scale * (b - mean) + beta),
    scale = gamma / sqrt(var + eps)

A convolution with the weights on the right does the work of both, and in training the map between the two need not be
kept for the backward pass: two fifths of what a ResNet-50 keeps. Gradients reach w, b, gamma and beta through the
formula.
"""
from collections import Counter
from collections.abc import Iterator
from itertools import chain, pairwise

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .backbones.resnet import ResidualBlock, ResNet


def fold_norms(model: nn.Module, only_in_inference: bool) -> None:
    """Let convolutions do the work of the batch norms behind them, whenever these are in evaluation mode.

    Parameters and buffers, their names and their values stay as they are. Values that change are folded anew for the
    next pass: in a training step, whichever optimizer takes it; where they are loaded, moved or written in place; and
    where whoever writes to their `.data` calls `train()` or `eval()` afterwards, as hooks do that exchange weights for
    a validation.

    Args:
        only_in_inference: and where `torch.inference_mode()` says that nothing will be learnt.
    """
    pairs = list(_convs_and_norms(model))
    norms_of = Counter(id(conv) for conv, _ in pairs)
    convs_of = Counter(id(norm) for _, norm in pairs)
    for conv, norm in pairs:
        # Layers that are shared do not always stand before or behind the same other one.
        if _can_be_folded(conv, norm) and norms_of[id(conv)] == convs_of[id(norm)] == 1:
            folded = _FoldedNorm(conv, norm, only_in_inference)
            conv.forward, norm.forward, norm.train = folded.convolve, folded.normalize, folded.switch_mode


def _convs_and_norms(model: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Layers of which the second is given what the first returns, and nothing else is."""
    for module in model.modules():
        if isinstance(module, ResidualBlock):
            yield from ((getattr(module, conv), getattr(module, norm)) for conv, norm in module.layer_names)
        elif isinstance(module, ResNet):
            yield from pairwise(getattr(module, name) for name in module.stem_names)
        elif type(module).forward is nn.Sequential.forward:
            yield from pairwise(module)
        elif isinstance(module, ConvModule) and module.with_norm and module.order[:2] == ('conv', 'norm'):
            yield module.conv, module.norm


def _can_be_folded(conv: nn.Module, norm: nn.Module) -> bool:
    """Whether a convolution is an ordinary one, and the norm an ordinary one too that does the same to every image."""
    # A norm with a forward of its own may do more than normalise: timm's apply an activation function.
    ordinary = type(conv) is nn.Conv2d and type(norm).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
    return ordinary and norm.running_mean is not None


class _FoldedNorm:
    """Stands in for the `forward` of a convolution and of the batch norm behind it, and for the norm's `train`.

    Folded weights that no gradient flows through are kept for the next pass while nothing is learnt: from when the
    norm's mode is set, as it is before every validation, until gradients flow through the layer. What an optimizer does
    to weights leaves no other trace: fused ones, and whoever writes to `.data`, change neither address nor version.
    """

    def __init__(self, conv: nn.Conv2d, norm: _BatchNorm, only_in_inference: bool) -> None:
        self.conv = conv
        self.norm = norm
        self.only_in_inference = only_in_inference
        self._learning = False
        self._folded: tuple[Tensor, Tensor] | None = None
        self._folded_in_inference = False
        self._folded_from: list[tuple[Tensor, int]] = []

    @property
    def _active(self) -> bool:
        return not self.norm.training and (torch.is_inference_mode_enabled() or not self.only_in_inference)

    def switch_mode(self, mode: bool = True) -> nn.Module:
        """The norm's `train(mode)`, after which weights are folded anew."""
        # A gradient that waits for its step is a step that may come between any two passes.
        self._learning = any(parameter.grad is not None for parameter in self._parameters())
        self._folded = None
        return type(self.norm).train(self.norm, mode)

    def convolve(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H', W'), normalised already where that can be."""
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self._parameters()):
            self._learning = True
            self._folded = None
        if self._active:
            return self.conv._conv_forward(x, *self._weight_and_bias())
        return type(self.conv).forward(self.conv, x)

    def normalize(self, x: Tensor) -> Tensor:
        """What is left to do for the norm."""
        return x if self._active else type(self.norm).forward(self.norm, x)

    def _parameters(self) -> Iterator[nn.Parameter]:
        return chain(self.conv.parameters(recurse=False), self.norm.parameters(recurse=False))

    def _weight_and_bias(self) -> tuple[Tensor, Tensor]:
        if self._learning:
            return _fold(self.conv, self.norm)
        if self._folded is None or not self._is_up_to_date():
            self._folded = _fold(self.conv, self.norm)
            self._folded_in_inference = torch.is_inference_mode_enabled()
            # An alias keeps the address from being given to other values.
            self._folded_from = [(source.detach(), _version(source)) for source in self._sources()]
        return self._folded

    def _is_up_to_date(self) -> bool:
        """Whether what was folded is where it was and has not been written to."""
        # What inference mode has made is of no use to a backward pass through a frozen layer.
        return torch.is_inference_mode_enabled() == self._folded_in_inference and all(
            source.data_ptr() == kept.data_ptr() and _version(source) == version
            for source, (kept, version) in zip(self._sources(), self._folded_from, strict=True)
        )

    def _sources(self) -> list[Tensor]:
        conv, norm = self.conv, self.norm
        sources = (conv.weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
        return [source for source in sources if source is not None]


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


def _version(tensor: Tensor) -> int:
    """How often a tensor has been written to, as far as torch counts it."""
    return 0 if tensor.is_inference() else tensor._version
