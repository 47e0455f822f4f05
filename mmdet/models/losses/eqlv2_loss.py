"""Equalization loss v2 (Tan et al., "Equalization Loss v2", CVPR 2021)."""
import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor

from mmdet.registry import MODELS

from .sigmoid_loss import SigmoidLoss, full_precision
from .targets import one_hot


@MODELS.register_module()
class EQLV2Loss(SigmoidLoss):
    """Sigmoid cross entropy that keeps, class by class, what pulls a score up in balance with what pushes it down.

    With g_c the sum of the absolute gradients that class c has had as a label, over that of those it has had otherwise,
    both with their weights and up to the step before,

        negative weight = 1 / (1 + exp(-gamma (g_c - mu)))
        positive weight = 1 + alpha (1 - negative weight)

    and the loss of a RoI is the weighted sum over C + 1 logits. The last is background against object, always of
    weight 1. In a test the score of class c is sigmoid(z_c) * (1 - sigmoid(z_background)).

    Named as in mmdetection 3, whose checkpoints have the same buffers, but whose box head tests it with a softmax; in
    the authors' code it is `EQLv2`. The sums never decay; they are of all processes, and part of the state dict.

    Args:
        num_classes: C.
        gamma, mu, alpha: see above.
        test_with_obj: False leaves the factor of background out of the scores.
        use_sigmoid, loss_weight, prior_prob: see `SigmoidLoss`.

    Attributes:
        pos_grad, neg_grad: (C,) float32, the sums.
        pos_neg: (C,) float32, g; 100 before the first step, whose weights are thus 1.
    """

    def __init__(
        self,
        num_classes: int = 1203,
        gamma: float = 12.0,
        mu: float = 0.8,
        alpha: float = 4.0,
        test_with_obj: bool = True,
        use_sigmoid: bool = True,
        loss_weight: float = 1.0,
        prior_prob: float = 0.001,
    ) -> None:
        super().__init__(use_sigmoid, loss_weight, prior_prob)
        self.num_classes = num_classes
        self.gamma = gamma
        self.mu = mu
        self.alpha = alpha
        self.test_with_obj = test_with_obj
        self.register_buffer('pos_grad', torch.zeros(num_classes))
        self.register_buffer('neg_grad', torch.zeros(num_classes))
        self.register_buffer('pos_neg', torch.full((num_classes,), 100.0))

    def get_cls_channels(self, num_classes: int) -> int:
        """Outputs of a classifier of `num_classes` classes."""
        return num_classes + 1

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Scores (N, C + 1), background last, from logits (N, C + 1)."""
        scores = cls_score.sigmoid()
        if not self.test_with_obj:
            return scores
        classes, background = scores[..., :-1], scores[..., -1:]
        return torch.cat([classes * (1 - background), background], dim=-1)

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Per cent of the objects whose class has the highest of the first C logits."""
        return super().get_accuracy(cls_score[:, :-1], labels)

    def forward(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, avg_factor: float | Tensor | None = None
    ) -> Tensor:
        """Loss of logits (N, C + 1) and labels (N,); adds up their gradients.

        Every process must call it in every step, also without a RoI.
        """
        targets = one_hot(target, self.num_classes + 1)
        positive, negative = self.weights()
        element_weight = torch.where(targets, positive, negative)
        loss = self._mean_cross_entropy(pred, targets, element_weight, weight, avg_factor)
        self._add_gradients(pred, targets, element_weight if weight is None else element_weight * weight[:, None])
        return loss

    def weights(self) -> tuple[Tensor, Tensor]:
        """Positive and negative weights (C + 1,) of the next step."""
        negative = F.pad((self.gamma * (self.pos_neg - self.mu)).sigmoid(), (0, 1), value=1.0)
        return 1 + self.alpha * (1 - negative), negative

    @torch.no_grad()
    def _add_gradients(self, pred: Tensor, targets: Tensor, element_weight: Tensor) -> None:
        pred = full_precision(pred)
        # |p - y| without the rounding of 1 - p.
        gradients = (torch.where(targets, -pred, pred).sigmoid() * element_weight)[:, :-1]
        is_positive = targets[:, :-1]
        of_step = torch.stack(
            [torch.where(is_positive, gradients, 0).sum(dim=0), torch.where(is_positive, 0, gradients).sum(dim=0)]
        )
        all_reduce(of_step)
        self.pos_grad += of_step[0]
        self.neg_grad += of_step[1]
        self.pos_neg.copy_(self.pos_grad / (self.neg_grad + 1e-10))
