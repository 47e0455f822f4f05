"""What classification losses with one sigmoid for each class have in common."""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .accuracy import accuracy
from .reduction import reduce_loss


class SigmoidLoss(nn.Module):
    """Base of losses that ask of each class, and of no other at the same time, whether a RoI shows it.

    A box head asks its loss how many logits it has and what scores they mean. Here they are C, none of background, and
    the score of a class is its sigmoid. A subclass's `forward` takes logits, labels (N,) in 0..C, C being background, a
    factor `weight` (N,) of each RoI, and `avg_factor`, by which the sum over RoIs is divided instead of by N.

    Args:
        use_sigmoid: must be True; mmdetection's configs say so.
        loss_weight: factor of the loss.
        prior_prob: the score that the classifier's biases give every class before the first step, unless the box head
            has an `init_cfg` of its own. A thousand sigmoids of 0.5 would make a loss that no training survives.

    Raises:
        ValueError: `use_sigmoid=False`, or a `prior_prob` that is not between 0 and 1.
    """

    custom_cls_channels = True

    def __init__(self, use_sigmoid: bool, loss_weight: float, prior_prob: float) -> None:
        super().__init__()
        if not use_sigmoid:
            raise ValueError(f'{type(self).__name__} is a sigmoid loss: use_sigmoid must be True')
        if not 0 < prior_prob < 1:
            raise ValueError(f'prior_prob={prior_prob}: must lie between 0 and 1')
        self.loss_weight = loss_weight
        self.prior_prob = prior_prob

    def get_cls_channels(self, num_classes: int) -> int:
        """Outputs of a classifier of `num_classes` classes."""
        return num_classes

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Scores (N, C + 1) from logits (N, C). The last, background's, is what the others leave of 1, or 0."""
        scores = cls_score.sigmoid()
        return torch.cat([scores, (1 - scores.sum(dim=-1, keepdim=True)).clamp(min=0)], dim=-1)

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Per cent of the objects whose class has the highest of the logits (N, C)."""
        is_object = labels < cls_score.shape[1]
        return dict(acc_classes=accuracy(cls_score[is_object], labels[is_object]))

    def _mean_cross_entropy(
        self,
        pred: Tensor,
        targets: Tensor,
        element_weight: Tensor,
        weight: Tensor | None,
        avg_factor: float | Tensor | None,
    ) -> Tensor:
        """The mean over rows of the sum of a row's binary cross entropies.

        Args:
            pred, targets: (N, K).
            element_weight: (N, K), or (K,) for all rows.
            weight, avg_factor: of the rows, see `reduce_loss`.
        """
        pred = full_precision(pred)
        losses = F.binary_cross_entropy_with_logits(
            pred, targets.to(pred.dtype), element_weight.to(pred.dtype), reduction='none'
        )
        return self.loss_weight * reduce_loss(losses.sum(dim=1), weight, 'mean', avg_factor)


def full_precision(logits: Tensor) -> Tensor:
    """The logits as float32, or as they are where they are float64."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
