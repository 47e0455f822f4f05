"""What a loss knows of a step's RoIs beside their features, of which other ranks may have a share."""
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.dist import all_gather, all_reduce, get_world_size
from torch import Tensor

from mmdet.utils.seeding import keyed_torch_rng

_CHANCE_STREAM = 3  # sets these numbers apart from all others that are keyed to an image's draw


@dataclass(frozen=True)
class StepRoIs:
    """R RoIs of this rank at one stage, image by image.

    Attributes:
        labels: (R,) int64, C for background.
        num_rois: what a sum over the RoIs is divided by to get this rank's share of the mean over the step: the RoIs of
            all ranks divided by the number of ranks (whose gradients are averaged), at least 1 of all.
        sizes: for each image how many of the RoIs are its own.
        keys: for each image what its random numbers are keyed to.
    """

    labels: Tensor
    num_rois: float
    sizes: Sequence[int] = ()
    keys: Sequence[tuple[int, ...]] = ()

    def chances(self, stream: int = 0) -> Tensor:
        """(R,) uniform random numbers, each RoI's own whatever ranks share the step.

        Args:
            stream: tells apart several numbers of the same RoI.
        """
        numbers = [torch.empty(0)]
        for key, size in zip(self.keys, self.sizes, strict=True):
            with keyed_torch_rng(*key, _CHANCE_STREAM, stream):
                numbers.append(torch.rand(size))
        return torch.cat(numbers).to(self.labels.device)

    def share_of_mean(self, values: Tensor, weights: Tensor) -> Tensor:
        """This rank's share of the weighted mean of `values` (R,) over the step; 0 where no RoI has any weight."""
        total = sum_over_ranks(weights.sum()) / get_world_size()
        return (values * weights).sum() / torch.where(total > 0, total, 1)


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of a tensor over all ranks; not for gradients."""
    value = value.detach().clone()
    if get_world_size() > 1:
        all_reduce(value)
    return value


def highest_of_step(numbers: Tensor, count: int) -> tuple[int, float]:
    """Which of all ranks' numbers are the highest `count`.

    Args:
        numbers: (N,) of this rank.
        count: the same on all ranks.

    Returns:
        How many these are (no more than there are), and the lowest of them, infinite where there is none.
    """
    if get_world_size() > 1:
        lengths = torch.cat(all_gather(torch.tensor([len(numbers)], device=numbers.device)))
        padded = torch.nn.functional.pad(numbers, (0, int(lengths.max()) - len(numbers)), value=-1.0)
        gathered = all_gather(padded)
        numbers = torch.cat([of_rank[:length] for of_rank, length in zip(gathered, lengths.tolist(), strict=True)])
    count = min(count, len(numbers))
    return count, float(numbers.topk(count).values[-1]) if count else float('inf')
