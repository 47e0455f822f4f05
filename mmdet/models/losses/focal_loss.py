"""Focal loss (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017)."""
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from mmdet.registry import MODELS

from .reduction import check_reduction, reduce_loss
from .sigmoid_loss import SigmoidLoss, full_precision
from .targets import one_hot


@MODELS.register_module()
class FocalLoss(nn.Module):
    """Sigmoid cross entropy in which what is nearly right already counts little.

    With p the sigmoid of a logit and p_t = p where its target is 1, 1 - p where it is 0, an element costs

        -alpha_t * (1 - p_t) ** gamma * log(p_t),    alpha_t = alpha where the target is 1, else 1 - alpha

    In a box head it means what it means in mmdetection 3: C + 1 logits, one of them background's, and, since the loss
    says nothing of scores, their softmax in a test. `FocalCustomLoss` has C logits and tests with sigmoids.

    Args:
        use_sigmoid: must be True; mmdetection's configs say so.
        gamma, alpha: see above.
        reduction: `'none'`, `'mean'` or `'sum'`.
        loss_weight: factor of the loss.

    Raises:
        ValueError: `use_sigmoid=False`, or an unknown reduction.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: float = 0.25,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not use_sigmoid:
            raise ValueError('FocalLoss is a sigmoid loss: use_sigmoid must be True')
        self.use_sigmoid = use_sigmoid
        self.gamma = gamma
        self.alpha = alpha
        self.reduction = check_reduction(reduction)
        self.loss_weight = loss_weight

    def forward(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, avg_factor: float | Tensor | None = None
    ) -> Tensor:
        """The loss, a number with the reductions `'mean'` (over all elements, without `avg_factor`) and `'sum'`.

        Args:
            pred: (N, K) logits.
            target: labels (N,), one of K or more being background; or 0..1 (N, K).
            weight: (N,) or (N, K).
            avg_factor: see `reduce_loss`.
        """
        losses = _focal(pred, target, self.gamma, self.alpha)
        return self.loss_weight * reduce_loss(losses, _by_row(weight), self.reduction, avg_factor)


@MODELS.register_module()
class FocalCustomLoss(SigmoidLoss):
    """`FocalLoss` for a box head of C logits, none of background, whose scores are their sigmoids.

    Named as in mmdetection 3, which has it for V3Det.

    Args:
        num_classes: C.
        gamma, alpha, reduction: see `FocalLoss`.
        use_sigmoid, loss_weight, prior_prob: see `SigmoidLoss`.
    """

    def __init__(
        self,
        num_classes: int,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: float = 0.25,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        prior_prob: float = 0.01,
    ) -> None:
        super().__init__(use_sigmoid, loss_weight, prior_prob)
        self.num_classes = num_classes
        self.gamma = gamma
        self.alpha = alpha
        self.reduction = check_reduction(reduction)

    def forward(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, avg_factor: float | Tensor | None = None
    ) -> Tensor:
        """Loss of logits (N, C) and labels (N,), reduced as that of `FocalLoss`."""
        losses = _focal(pred, target, self.gamma, self.alpha)
        return self.loss_weight * reduce_loss(losses, _by_row(weight), self.reduction, avg_factor)


def _focal(pred: Tensor, target: Tensor, gamma: float, alpha: float) -> Tensor:
    """(N, K) losses of logits (N, K), for labels (N,) or targets (N, K)."""
    pred = full_precision(pred)
    targets = one_hot(target, pred.shape[1]) if target.dim() < pred.dim() else target
    return sigmoid_focal_loss(pred, targets.to(pred.dtype), alpha, gamma)


def _by_row(weight: Tensor | None) -> Tensor | None:
    """Weights (N,) as a column, others as they are."""
    return weight[:, None] if weight is not None and weight.dim() == 1 else weight
