"""A detector in the form in which it is trained fastest: the same parameters, the same losses up to float rounding."""
from torch import nn

from mmdet.utils.memory import keep_freed_memory

from .norm_folding import fold_norms


def optimize_for_training(model: nn.Module) -> nn.Module:
    """Prepare a detector for training: norms that stay in evaluation mode (`norm_eval`) are folded into convolutions.

    Parameters and buffers, their names and their values stay as they are, and a model whose norms all learn their
    statistics computes what it did before, to the bit. For a model on the CPU, `keep_freed_memory` is called. Returns
    the model itself.
    """
    if all(parameter.device.type == 'cpu' for parameter in model.parameters()):
        keep_freed_memory()
    fold_norms(model, only_in_inference=False)
    return model
