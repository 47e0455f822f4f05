"""FRACAL (Alexandridis et al., "Fractal Calibration for Long-tailed Object Detection", CVPR 2025)."""
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.models.roi_heads.roi_outputs import RoIOutputs
from mmdet.registry import CALIBRATORS
from mmdet.structures import ClassFrequency

from ..calibrator import Logits, check_range, device_of
from ..composition import Part, ScoreRule
from ..training_annotations import TrainingAnnotations
from .class_counts import seen_counts
from .norcal import normalised

FINEST_GRID = 64
FEWEST_BOXES = 4


@CALIBRATORS.register_module()
class FRACAL(ScoreRule):
    """Scores corrected for how often a class occurs, and for how evenly its objects are spread over the image.

    With m[c] the training images of class c, N all training images and Phi[c] the fractal dimension of the class's box
    centres, the logit of the class gains log10(N / m[c]) - log10(C); the softmax of these is divided by
    Phi[c] ** dimension_power (background by 1), and every RoI's row made to sum to 1 again. The base-10 logarithm is
    the published code's.

    The scores of a detector with a sigmoid for each class are sigma(z[c]) * sigma(z[c] + w[c] + f[c]): w as above, and
    f[c] = log10 of the mean of all Phi ** dimension_power over the class's own; background is as the detector has it.

    Args:
        dimension_power: lambda, at least 0.
        on, on_scores: see `ScoreRule`.
    """

    choices = {'dimension_power': (2.0, 0.0, 1.0, 3.0)}

    def __init__(self, dimension_power: float = 2.0, on: Part = None, on_scores: str | None = None):
        super().__init__(on, on_scores)
        self.dimension_power = dimension_power

    def bind(self, base_heads: Sequence[nn.Module], frequency: ClassFrequency) -> 'FRACAL':
        """Count the training images of every class; dimensions come with `prepare`, or from a state dict."""
        device = device_of(base_heads)
        counts = seen_counts(frequency.image_count, frequency.names, device)
        self.register_buffer('image_count', counts, persistent=False)
        self.register_buffer('num_images', torch.ones((), dtype=torch.float64, device=device))
        self.register_buffer('dimensions', torch.ones(len(frequency), dtype=torch.float64, device=device))
        has_softmax = not base_heads[0].has_custom_cls_logits or hasattr(base_heads[0].loss_cls, 'to_softmax_logits')
        self.is_sigmoid = self.on is None and not has_softmax
        return super().bind(base_heads, frequency)

    def prepare(self, annotations: TrainingAnnotations) -> None:
        """Compute the dimension of every class from its boxes in the training annotations."""
        super().prepare(annotations)
        centres, labels = annotations.box_centres
        self.num_images.fill_(annotations.num_images)
        self.dimensions.copy_(torch.from_numpy(fractal_dimensions(centres, labels, len(self.dimensions))))

    def choose(self, **values: float) -> None:
        """Set lambda.

        Raises:
            ConfigError: a lambda below 0.
        """
        super().choose(**values)
        check_range('dimension_power', self.dimension_power, self.dimension_power >= 0, 'a number from 0')

    def logits(self, outputs: RoIOutputs, stage: int = 0) -> Logits:
        """The parts' logits, or of a detector with a sigmoid for each class its own (R, C) ones."""
        if self.is_sigmoid:
            return (outputs.logits[:, : len(self.dimensions)],)
        return super().logits(outputs, stage)

    def scores(self, base_scores: Tensor, logits: Logits, setting: str = 'calibrated') -> Tensor:
        """(R, C + 1) base scores and logits -> (R, C + 1) float32 scores."""
        if setting == 'calibrated' and self.is_sigmoid:
            return torch.cat([base_scores[:, :-1] * self._sigmoid_factors(logits[0]), base_scores[:, -1:]], dim=1)
        return super().scores(base_scores, logits, setting)

    def adjusted(self, scores: Tensor) -> Tensor:
        """(R, C + 1) scores -> (R, C + 1) scores whose rows sum to 1."""
        factors = self.prior_shift().exp() / self.dimensions**self.dimension_power
        return normalised(scores * F.pad(factors, (0, 1), value=1.0).to(scores.dtype))

    def _sigmoid_factors(self, logits: Tensor) -> Tensor:
        spread = self.dimensions**self.dimension_power
        shift = self.prior_shift() + (spread.mean() / spread).log10()
        return (logits + shift.to(logits.dtype)).sigmoid()

    def prior_shift(self) -> Tensor:
        """(C,) what every class's logit gains for its frequency."""
        return (self.num_images / self.image_count).log10() - np.log10(len(self.image_count))


def fractal_dimensions(centres: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """How evenly the boxes of each class are spread: the box-counting dimension of their centres.

    It is the slope of a straight line through log(occupied cells of a g x g grid) against log(g), for all grids up to
    64 that have no more cells than the class has boxes. It is at least 1, and 1 for a class with fewer than 4 boxes.

    Args:
        centres: (M, 2) float64 x and y, as shares of the image's width and height.
        labels: (M,) int64.
        num_classes: C.

    Returns:
        (C,) float64.
    """
    dimensions = np.ones(num_classes)
    order = np.argsort(labels, kind='stable')
    bounds = np.searchsorted(labels[order], np.arange(num_classes + 1))
    for label in range(num_classes):
        of_class = centres[order[bounds[label] : bounds[label + 1]]]
        if len(of_class) >= FEWEST_BOXES:
            dimensions[label] = max(_dimension(of_class), 1.0)
    return dimensions


def _dimension(centres: np.ndarray) -> float:
    grids = np.arange(1, min(FINEST_GRID, int(np.sqrt(len(centres)))) + 1)
    occupied = [_occupied_cells(centres, grid) for grid in grids.tolist()]
    x, y = np.log(grids), np.log(np.maximum(occupied, 1))
    x = x - x.mean()
    return float(x @ y / (x @ x))


def _occupied_cells(centres: np.ndarray, grid: int) -> int:
    """Cells of a grid x grid raster with a centre in them; a centre on the image's far edge is in none."""
    # The published cells have edges at multiples of the rounded number 1 / grid.
    edges = np.arange(grid + 1) * (1 / grid)
    cells = np.searchsorted(edges, centres, side='right') - 1
    inside = ((cells >= 0) & (cells < grid)).all(axis=1)
    return len(np.unique(cells[inside] @ np.array([grid, 1])))
