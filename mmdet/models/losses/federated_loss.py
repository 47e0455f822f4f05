"""Federated loss (Zhou et al., "Probabilistic Two-Stage Detection", 2021; CenterNet2 and Detic)."""
import torch
from torch import Tensor

from mmdet.registry import MODELS

from .counted_loss import CountedLoss
from .targets import one_hot


@MODELS.register_module()
class FederatedLoss(CountedLoss):
    """Sigmoid cross entropy over some of the classes only: those of the batch, and others at random.

    The labels that occur among the RoIs take part, and where these are fewer than `fed_loss_num_cat`, as many other
    classes as are missing, drawn without replacement in proportion to m_c ** `fed_loss_freq_weight`, m_c being the
    training images of class c. So a rare class is seldom pushed down where it is not present. The loss of a RoI is the
    sum over the classes that take part.

    As in the sources, background counts among the labels that occur, and a batch is what one process computes: each
    draws for itself. A union over processes would grow with their number until nothing was left to draw.
    A class without any training image is never drawn in the sources; here it always takes part, since
    nothing else would keep its scores low. Draws are torch's, on the CPU, which a training keys to seed, rank and step.

    No name is established; the arguments have those of the sources' settings.

    Args:
        fed_loss_num_cat: labels and drawn classes together, at least.
        fed_loss_freq_weight: exponent of m_c; 0 draws uniformly.
        use_sigmoid, loss_weight, prior_prob: see `SigmoidLoss`.

    Raises:
        ValueError: `fed_loss_num_cat` below 1, or a negative exponent.
    """

    def __init__(
        self,
        fed_loss_num_cat: int = 50,
        fed_loss_freq_weight: float = 0.5,
        use_sigmoid: bool = True,
        loss_weight: float = 1.0,
        prior_prob: float = 0.01,
    ) -> None:
        super().__init__(use_sigmoid, loss_weight, prior_prob)
        if fed_loss_num_cat < 1 or fed_loss_freq_weight < 0:
            raise ValueError(
                f'fed_loss_num_cat={fed_loss_num_cat}, fed_loss_freq_weight={fed_loss_freq_weight}: the first must be '
                'at least 1, the second not below 0'
            )
        self.fed_loss_num_cat = fed_loss_num_cat
        self.fed_loss_freq_weight = fed_loss_freq_weight

    def forward(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, avg_factor: float | Tensor | None = None
    ) -> Tensor:
        """Loss of logits (N, C) and labels (N,)."""
        takes_part = self.draw_classes(target)
        return self._mean_cross_entropy(pred, one_hot(target, pred.shape[1]), takes_part, weight, avg_factor)

    def draw_classes(self, labels: Tensor) -> Tensor:
        """(C,) bool, which classes take part in the loss of RoIs with these labels (N,)."""
        image_count = self.image_count.cpu()
        occurring = labels.unique().cpu()
        takes_part = image_count == 0
        takes_part[occurring[occurring < len(image_count)]] = True
        chance = torch.where(takes_part, 0, image_count**self.fed_loss_freq_weight)
        missing = min(self.fed_loss_num_cat - len(occurring), int((chance > 0).sum()))
        if missing > 0:
            takes_part[torch.multinomial(chance, missing)] = True
        return takes_part.to(labels.device)
