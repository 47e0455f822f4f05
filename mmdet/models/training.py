"""A detector in the form in which it is trained fastest: the same parameters, the same losses up to float rounding."""
from torch import nn

from .norm_folding import fold_norms


def optimize_for_training(model: nn.Module) -> nn.Module:
    """Prepare a detector for training: norms that stay in evaluation mode (`norm_eval`) are folded into convolutions.

    Parameters and buffers, their names and their values stay as they are, and a model whose norms all learn their
    statistics computes what it did before, to the bit. Returns the model itself.
    """
    fold_norms(model, only_in_inference=False)
    return model
