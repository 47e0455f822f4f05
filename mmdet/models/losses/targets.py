"""From labels to what each logit is to say."""
import torch
from torch import Tensor


def one_hot(labels: Tensor, num_columns: int) -> Tensor:
    """(N, num_columns) bool from labels (N,), a row each; a label without a column, as background may be, has none."""
    return labels[:, None] == torch.arange(num_columns, device=labels.device)
