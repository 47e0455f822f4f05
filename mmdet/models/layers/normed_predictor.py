"""Classifiers by cosine: weights and inputs have unit length, so that no class wins by the size of its weights."""
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet.registry import MODELS


@MODELS.register_module()
class NormedLinear(nn.Linear):
    """`temperature * x / |x| ** power @ (w / |w| ** power) + bias`.

    Args:
        in_features, out_features, bias: as of `torch.nn.Linear`.
        temperature: the factor.
        power: of the norms.
        eps: added to them.
        tempearture: mmdetection's spelling of `temperature` up to 3.3; where given, it counts.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        temperature: float = 20,
        power: float = 1.0,
        eps: float = 1e-6,
        tempearture: float | None = None,
    ) -> None:
        self.temperature = temperature if tempearture is None else tempearture
        self.power = power
        self.eps = eps
        super().__init__(in_features, out_features, bias)
        self.init_weights()

    def init_weights(self) -> None:
        """Weights from a normal distribution of deviation 0.01, bias 0."""
        nn.init.normal_(self.weight, std=0.01)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        weight = self.weight / (self.weight.norm(dim=1, keepdim=True).pow(self.power) + self.eps)
        x = x / (x.norm(dim=1, keepdim=True).pow(self.power) + self.eps) * self.temperature
        return F.linear(x, weight, self.bias)


@MODELS.register_module()
class NormedConv2d(nn.Conv2d):
    """The same for each pixel of a feature map.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as of `torch.nn.Conv2d`.
        temperature: the factor.
        power: of the norms.
        eps: added to them.
        norm_over_kernel: a weight's norm is over channels and kernel; else over the channels, for each tap.
        tempearture: mmdetection's spelling of `temperature` up to 3.3; where given, it counts.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        temperature: float = 20,
        power: float = 1.0,
        eps: float = 1e-6,
        norm_over_kernel: bool = False,
        tempearture: float | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.temperature = temperature if tempearture is None else tempearture
        self.power = power
        self.eps = eps
        self.norm_over_kernel = norm_over_kernel

    def normed_weight(self) -> Tensor:
        """The weight used, (out_channels, in_channels // groups, k, k)."""
        axes = (1, 2, 3) if self.norm_over_kernel else (1,)
        norm = self.weight.pow(2).sum(dim=axes, keepdim=True).sqrt()
        return self.weight / (norm.pow(self.power) + self.eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H', W')."""
        x = x / (x.norm(dim=1, keepdim=True).pow(self.power) + self.eps) * self.temperature
        return F.conv2d(x, self.normed_weight(), self.bias, self.stride, self.padding, self.dilation, self.groups)
