"""Regression losses."""
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.registry import MODELS

from .reduction import check_reduction, reduce_loss


@MODELS.register_module()
class L1Loss(nn.Module):
    """`loss_weight * |pred - target|`."""

    def __init__(self, reduction: str = 'mean', loss_weight: float = 1.0) -> None:
        super().__init__()
        self.reduction = check_reduction(reduction)
        self.loss_weight = loss_weight

    def forward(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, avg_factor: float | Tensor | None = None
    ) -> Tensor:
        """`pred` and `target` of one shape, `weight` of a shape that broadcasts with it."""
        loss = F.l1_loss(pred, target, reduction='none')
        return self.loss_weight * reduce_loss(loss, weight, self.reduction, avg_factor)


@MODELS.register_module()
class SmoothL1Loss(nn.Module):
    """`loss_weight` times d ** 2 / (2 beta) where d = |pred - target| < `beta`, else d - beta / 2 (Fast R-CNN)."""

    def __init__(self, beta: float = 1.0, reduction: str = 'mean', loss_weight: float = 1.0) -> None:
        super().__init__()
        self.beta = beta
        self.reduction = check_reduction(reduction)
        self.loss_weight = loss_weight

    def forward(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, avg_factor: float | Tensor | None = None
    ) -> Tensor:
        """`pred` and `target` of one shape, `weight` of a shape that broadcasts with it."""
        loss = F.smooth_l1_loss(pred, target, reduction='none', beta=self.beta)
        return self.loss_weight * reduce_loss(loss, weight, self.reduction, avg_factor)
