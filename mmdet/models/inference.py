"""A detector in the form in which it is tested fastest: the same parameters, the same detections up to float rounding.

Two things are done here, beforehand: batch norms are folded into the convolutions before them, and on a CPU the weights
of convolutions are laid out channels-last, which all feature maps then follow.

The rest is done on the way, by the parts themselves, where `torch.inference_mode()` says that nothing will be learnt
from what is computed: `RoIAlign` gathers from channels-last features, `FCNMaskHead` takes a few RoIs at a time. Outside
of inference mode, under `torch.no_grad()` too, these compute what they compute in training, to the bit; calibration,
whose trunk is frozen, depends on that.
"""
from collections.abc import Iterator
from itertools import pairwise

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .backbones.resnet import ResidualBlock, ResNet


def optimize_for_inference(model: nn.Module) -> nn.Module:
    """Prepare a detector for testing under `torch.inference_mode()`.

    Parameters and buffers, their names and their values stay as they are. Outside of inference mode the model computes
    what it did before, in training too, but for the rounding of convolutions in another layout.

    Args:
        model: on the device it will be tested on.

    Returns:
        The model itself, in evaluation mode.
    """
    model.eval()
    if all(parameter.device.type == 'cpu' for parameter in model.parameters()):
        model.to(memory_format=torch.channels_last)
    for conv, norm in _convs_and_norms(model):
        if _can_be_folded(conv, norm):
            folded = _FoldedNorm(conv, norm)
            conv.forward, norm.forward = folded.convolve, folded.normalize
    return model


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

    In inference mode, and where the norm is in evaluation mode, the convolution also does what the norm would:

        gamma * (w * x + b - mean) / sqrt(var + eps) + beta = (scale * w) * x + (scale * (b - mean) + beta),
        scale = gamma / sqrt(var + eps)

    The folded weights are kept beside the parameters, and made again when one of these has changed.
    """

    def __init__(self, conv: nn.Conv2d, norm: _BatchNorm) -> None:
        self.conv = conv
        self.norm = norm
        self._folded: tuple[Tensor, Tensor] | None = None
        self._folded_from: list[tuple[int, int]] = []

    @property
    def _active(self) -> bool:
        return torch.is_inference_mode_enabled() and not self.norm.training

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
        sources = (conv.weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
        state = [_state(source) for source in sources if source is not None]
        if self._folded is None or state != self._folded_from:
            scale = (norm.running_var + norm.eps).rsqrt()
            if norm.weight is not None:
                scale = scale * norm.weight
            bias = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
            bias = bias * scale
            if norm.bias is not None:
                bias = bias + norm.bias
            self._folded = conv.weight * scale.view(-1, 1, 1, 1), bias
            self._folded_from = state
        return self._folded


def _state(tensor: Tensor) -> tuple[int, int]:
    """Another one when a tensor has been moved or written to."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version
