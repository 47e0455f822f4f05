"""Mixed precision: float16 with loss scaling on CUDA (mmengine's), bfloat16 on CPUs."""
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmdet.errors import ConfigError

from .registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Runs the forward pass in the CPU's bfloat16, which has float32's range, so that losses need no scaling."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of the forward pass and the loss."""
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield


def mixed_precision(optim_wrapper: Mapping[str, Any]) -> dict[str, Any]:
    """The config of an optimizer wrapper for mixed precision on the device there is.

    Raises:
        ConfigError: where the wrapper is of a type that has no mixed-precision counterpart.
    """
    kind = optim_wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper', 'CpuAmpOptimWrapper'):
        raise ConfigError(f"--amp: optim_wrapper.type={kind} has no mixed-precision form; use type='OptimWrapper'")
    if torch.cuda.is_available():
        return dict(dict(loss_scale='dynamic'), **dict(optim_wrapper, type='AmpOptimWrapper'))
    settings = {key: value for key, value in optim_wrapper.items() if key not in ('loss_scale', 'dtype')}
    return dict(settings, type='CpuAmpOptimWrapper')
