"""How often the classifier's first guess is right."""
import torch
from torch import Tensor


@torch.no_grad()
def accuracy(pred: Tensor, target: Tensor) -> Tensor:
    """Per cent of the rows of `pred` (N, C) whose largest entry is at `target` (N,); 0 where N is 0."""
    if len(target) == 0:
        return pred.new_zeros(())
    return (pred.argmax(dim=1) == target).float().mean() * 100
