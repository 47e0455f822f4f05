"""The precision that scores, deltas and probabilities are computed in."""
import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """A tensor in half precision as float32, for there a coordinate is off by pixels; any other as it is.

    A detector in double precision stays in it: compared so, two implementations differ in what they compute and not in
    how they round.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))
