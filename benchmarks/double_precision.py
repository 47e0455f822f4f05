"""Double precision for comparisons of what detectors compute.

In single precision every processor rounds sums in an order of its own, and weights that were never trained enlarge
that to pixels. In double precision what is left of it is far below what is compared.
"""
from torch import nn


def in_double_precision(detector: nn.Module) -> nn.Module:
    """The detector, from now on computing in double precision from the single precision input it is given."""
    detector.backbone.register_forward_pre_hook(lambda backbone, inputs: tuple(each.double() for each in inputs))
    return detector.double()
