"""Seesaw loss (Wang et al., "Seesaw Loss for Long-Tailed Instance Segmentation", CVPR 2021)."""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.registry import MODELS

from .accuracy import accuracy
from .reduction import check_reduction, reduce_loss


@MODELS.register_module()
class SeesawLoss(nn.Module):
    """Softmax cross entropy in which a rare class is pushed down less by samples of frequent ones.

    For a sample of class i, the logit of another class j is raised by log S_ij (which is mostly below 0), with

        S_ij = min(1, (N_j / N_i) ** p) * max(1, (prob_j / prob_i) ** q)

    where N counts the samples seen so far in training: mitigation by frequency, compensation for misclassification.
    Foreground against background is decided by two logits of their own, so that the classifier has C + 2 outputs:
    C classes, then objectness (object, background).

    Args:
        use_sigmoid: must be False; mmdetection's configs say so.
        p, q: exponents of mitigation and compensation.
        num_classes: C.
        eps: the smallest probability that is divided by.
        reduction: `'none'`, `'mean'` or `'sum'`.
        loss_weight: factor of both parts.
        return_dict: give the two parts as `loss_cls_objectness` and `loss_cls_classes`; else their sum.

    Raises:
        ValueError: `use_sigmoid`, or an unknown reduction.
    """

    custom_cls_channels = True
    custom_activation = True
    custom_accuracy = True

    def __init__(
        self,
        use_sigmoid: bool = False,
        p: float = 0.8,
        q: float = 2.0,
        num_classes: int = 1203,
        eps: float = 1e-2,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        return_dict: bool = True,
    ) -> None:
        super().__init__()
        if use_sigmoid:
            raise ValueError('Seesaw loss is a softmax loss: use_sigmoid must be False')
        self.p = p
        self.q = q
        self.num_classes = num_classes
        self.eps = eps
        self.reduction = check_reduction(reduction)
        self.loss_weight = loss_weight
        self.return_dict = return_dict
        self.register_buffer('cum_samples', torch.zeros(num_classes + 1))

    def get_cls_channels(self, num_classes: int) -> int:
        """Outputs of a classifier of `num_classes` classes."""
        return num_classes + 2

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Probabilities (N, C + 1), background last, from logits (N, C + 2)."""
        classes, objectness = self._split(cls_score)
        objectness = objectness.softmax(dim=-1)
        return torch.cat([classes.softmax(dim=-1) * objectness[..., :1], objectness[..., 1:]], dim=-1)

    @staticmethod
    def to_softmax_logits(cls_score: Tensor) -> Tensor:
        """From logits (N, C + 2) to logits (N, C + 1) whose ordinary softmax is `get_activation`."""
        classes, objectness = cls_score[..., :-2].log_softmax(dim=-1), cls_score[..., -2:].log_softmax(dim=-1)
        return torch.cat([classes + objectness[..., :1], objectness[..., 1:]], dim=-1)

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Per cent right among the logits (N, C + 2): object against background, and class among the objects."""
        classes, objectness = self._split(cls_score)
        is_object = labels < self.num_classes
        return dict(
            acc_objectness=accuracy(objectness, (~is_object).long()),
            acc_classes=accuracy(classes[is_object], labels[is_object]),
        )

    def forward(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, avg_factor: float | Tensor | None = None
    ) -> dict[str, Tensor] | Tensor:
        """Loss of logits (N, C + 2) and labels (N,) in 0..C, C being background; counts the labels."""
        classes, objectness = self._split(pred)
        is_object = target < self.num_classes
        self.cum_samples += torch.bincount(target, minlength=self.num_classes + 1)
        if weight is None:
            weight = pred.new_ones(target.shape)
        if is_object.any():
            loss_classes = self._reduce(
                self._seesaw(classes[is_object], target[is_object]), weight[is_object], avg_factor
            )
        else:
            loss_classes = classes[is_object].sum()
        objectness_loss = F.cross_entropy(objectness, (~is_object).long(), reduction='none')
        loss_objectness = self._reduce(objectness_loss, weight, avg_factor)
        if self.return_dict:
            return dict(loss_cls_objectness=loss_objectness, loss_cls_classes=loss_classes)
        return loss_objectness + loss_classes

    def _split(self, cls_score: Tensor) -> tuple[Tensor, Tensor]:
        if cls_score.shape[-1] != self.num_classes + 2:
            raise ValueError(f'{cls_score.shape[-1]} logits, but {self.num_classes} classes need two more than these')
        return cls_score[..., :-2], cls_score[..., -2:]

    def _reduce(self, loss: Tensor, weight: Tensor, avg_factor: float | Tensor | None) -> Tensor:
        return self.loss_weight * reduce_loss(loss, weight.float(), self.reduction, avg_factor)

    def _seesaw(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Losses (P,) of the class logits (P, C) of objects."""
        log_factors = torch.zeros_like(logits)
        if self.p > 0:
            seen = self.cum_samples[: self.num_classes].clamp(min=1)
            log_factors += (seen / seen[labels][:, None]).clamp(max=1).pow(self.p).log()
        if self.q > 0:
            probabilities = logits.detach().softmax(dim=1)
            own = probabilities.gather(1, labels[:, None]).clamp(min=self.eps)
            log_factors += (probabilities / own).clamp(min=1).pow(self.q).log()
        log_factors.scatter_(1, labels[:, None], 0.0)
        return F.cross_entropy(logits + log_factors, labels, reduction='none')
