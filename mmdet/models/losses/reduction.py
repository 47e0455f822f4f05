"""From losses of single elements to one number."""
import torch
from torch import Tensor

REDUCTIONS = ('none', 'mean', 'sum')


def check_reduction(reduction: str) -> str:
    """The name itself if it is one of `REDUCTIONS`, else a ValueError."""
    if reduction not in REDUCTIONS:
        raise ValueError(f'reduction must be one of {REDUCTIONS}, not {reduction!r}')
    return reduction


def reduce_loss(
    loss: Tensor, weight: Tensor | None = None, reduction: str = 'mean', avg_factor: float | Tensor | None = None
) -> Tensor:
    """Weigh elementwise losses and reduce them.

    Args:
        loss: of any shape.
        weight: of a shape that broadcasts with it.
        reduction: `'none'`, `'mean'` or `'sum'`.
        avg_factor: a mean is the sum over this number instead of over the elements.

    Raises:
        ValueError: `avg_factor` with the reduction `'sum'`.
    """
    if weight is not None:
        loss = loss * weight
    if reduction == 'sum':
        if avg_factor is not None:
            raise ValueError("avg_factor has no meaning with reduction='sum'")
        return loss.sum()
    if reduction == 'none':
        return loss
    if avg_factor is None:
        return loss.mean()
    return loss.sum() / (avg_factor + torch.finfo(torch.float32).eps)
