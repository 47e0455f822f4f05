"""Cross entropy: over classes, class by class, or over the pixels of a mask."""
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.registry import MODELS

from .reduction import check_reduction, reduce_loss
from .targets import one_hot


@MODELS.register_module()
class CrossEntropyLoss(nn.Module):
    """One of three cross entropies between logits and labels.

    Args:
        use_sigmoid: each class on its own: binary cross entropy with the one-hot label. A label of C or more, for
            which there is no logit, is background: all zeros; a negative one costs nothing.
        use_mask: binary cross entropy of the mask logits of each instance's own class. Neither: softmax cross entropy.
        reduction: `'none'`, `'mean'` or `'sum'`.
        class_weight: one factor for each class.
        ignore_index: a label that costs nothing; default -100.
        loss_weight: factor of the whole.
        avg_non_ignore: a mean without `avg_factor` is over the labels not ignored, instead of over all.

    Raises:
        ValueError: both `use_sigmoid` and `use_mask`, or an unknown reduction.
    """

    def __init__(
        self,
        use_sigmoid: bool = False,
        use_mask: bool = False,
        reduction: str = 'mean',
        class_weight: Sequence[float] | None = None,
        ignore_index: int | None = None,
        loss_weight: float = 1.0,
        avg_non_ignore: bool = False,
    ) -> None:
        super().__init__()
        if use_sigmoid and use_mask:
            raise ValueError('give either use_sigmoid or use_mask')
        self.use_sigmoid = use_sigmoid
        self.use_mask = use_mask
        self.reduction = check_reduction(reduction)
        self.class_weight = class_weight
        self.ignore_index = -100 if ignore_index is None else ignore_index
        self.loss_weight = loss_weight
        self.avg_non_ignore = avg_non_ignore

    def forward(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, avg_factor: float | Tensor | None = None
    ) -> Tensor:
        """The loss, a number with the reductions `'mean'` and `'sum'`.

        Args:
            pred: logits. Softmax: (N, C, ...); sigmoid: (N, C), or of the shape of `target`; mask: (N, H, W), each
                instance's logits of its own class.
            target: int64 labels (N, ...); sigmoid: labels (N,), or 0..1 in the shape of `pred`; mask: 0..1 likewise.
            weight: factor of each label, in the shape of the labels.
            avg_factor: see `reduce_loss`.
        """
        if self.use_mask:
            loss = F.binary_cross_entropy_with_logits(pred, target.float(), reduction='none')
        elif self.use_sigmoid:
            loss, weight, avg_factor = self._class_by_class(pred, target, weight, avg_factor)
        else:
            loss = F.cross_entropy(
                pred, target, self._class_weight(pred), reduction='none', ignore_index=self.ignore_index
            )
            avg_factor = self._avg_factor(target != self.ignore_index, avg_factor)
        return self.loss_weight * reduce_loss(loss, weight, self.reduction, avg_factor)

    def _class_by_class(
        self, pred: Tensor, target: Tensor, weight: Tensor | None, avg_factor: float | Tensor | None
    ) -> tuple[Tensor, Tensor, float | Tensor | None]:
        """Elementwise losses in the shape of `pred`, weights of them, and the divisor of their mean."""
        valid = (target >= 0) & (target != self.ignore_index)
        if pred.dim() != target.dim():
            target = one_hot(target, pred.shape[1])
            valid = valid[:, None].expand_as(pred)
            weight = None if weight is None else weight[:, None]
        weight = valid.float() if weight is None else valid * weight
        loss = F.binary_cross_entropy_with_logits(
            pred, target.float(), pos_weight=self._class_weight(pred), reduction='none'
        )
        return loss, weight, self._avg_factor(valid, avg_factor)

    def _class_weight(self, pred: Tensor) -> Tensor | None:
        return None if self.class_weight is None else pred.new_tensor(self.class_weight)

    def _avg_factor(self, valid: Tensor, avg_factor: float | Tensor | None) -> float | Tensor | None:
        """The mean's divisor: the one given, the number of valid labels where asked for, or None for all elements."""
        if avg_factor is None and self.avg_non_ignore and self.reduction == 'mean':
            return valid.sum()
        return avg_factor
