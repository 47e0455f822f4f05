"""A detector in the form in which it is tested fastest: the same parameters, the same detections up to float rounding.

This is done here, beforehand: batch norms are folded into the convolutions before them, and on a CPU the weights of
convolutions are laid out channels-last, which all feature maps then follow, and the process keeps the memory it frees.

The rest is done on the way, by the parts themselves, where `torch.inference_mode()` says that nothing will be learnt
from what is computed: `RoIAlign` gathers from channels-last features, `FCNMaskHead` takes a few RoIs at a time. Outside
of inference mode, under `torch.no_grad()` too, these compute what they compute in training, to the bit; calibration,
whose trunk is frozen, depends on that.
"""
import torch
from torch import nn

from mmdet.utils.memory import keep_freed_memory

from .norm_folding import fold_norms


def optimize_for_inference(model: nn.Module) -> nn.Module:
    """Prepare a detector for testing under `torch.inference_mode()`.

    Parameters and buffers, their names and their values stay as they are. Outside of inference mode the model computes
    what it did before, in training too, but for the rounding of convolutions in another layout. For a model on the CPU,
    `keep_freed_memory` is called.

    Args:
        model: on the device it will be tested on.

    Returns:
        The model itself, in evaluation mode.
    """
    model.eval()
    if all(parameter.device.type == 'cpu' for parameter in model.parameters()):
        model.to(memory_format=torch.channels_last)
        keep_freed_memory()
    fold_norms(model, only_in_inference=True)
    return model
