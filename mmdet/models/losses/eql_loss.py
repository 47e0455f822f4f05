"""Equalization loss (Tan et al., "Equalization Loss for Long-Tailed Object Recognition", CVPR 2020)."""
from torch import Tensor

from mmdet.registry import MODELS

from .counted_loss import CountedLoss
from .targets import one_hot


@MODELS.register_module()
class EQLLoss(CountedLoss):
    """Sigmoid cross entropy in which an object of another class does not push a tail class down.

    With y the one-hot label of a RoI (all 0 for background), the cross entropy of class c has the weight

        w_c = 1 - E * T_c * (1 - y_c),    E = 1 for an object, 0 for background;  T_c = 1 where f_c < lambda

    and the loss of a RoI is the sum over classes. f_c is the share of training images with class c, among those with
    any; a training counts them (`CountedLoss`), where the authors' code, in which the loss is `EQL`, has lists.

    Args:
        lambda_: below this f_c a class belongs to the tail. The authors take 0.00177 for LVIS v0.5, 0.0011 for v1.
        use_sigmoid, loss_weight, prior_prob: see `SigmoidLoss`.
    """

    def __init__(
        self, lambda_: float = 0.00177, use_sigmoid: bool = True, loss_weight: float = 1.0, prior_prob: float = 0.001
    ) -> None:
        super().__init__(use_sigmoid, loss_weight, prior_prob)
        self.lambda_ = lambda_

    def forward(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, avg_factor: float | Tensor | None = None
    ) -> Tensor:
        """Loss of logits (N, C) and labels (N,)."""
        num_classes = pred.shape[1]
        targets = one_hot(target, num_classes)
        is_tail = self.image_count / self.num_images < self.lambda_
        is_object = (target < num_classes)[:, None]
        costs = ~(is_object & is_tail & ~targets)
        return self._mean_cross_entropy(pred, targets, costs, weight, avg_factor)
