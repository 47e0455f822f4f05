"""Anchors: boxes of fixed shapes around every cell of every level of a feature pyramid."""
import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from mmdet.registry import TASK_UTILS


@TASK_UTILS.register_module()
class AnchorGenerator:
    """Anchors of every combination of `ratios` and `scales`, centred on the corner of each cell by default.

    An anchor of level l with scale s and ratio r (height over width) is `base_sizes[l] * s / sqrt(r)` pixels
    wide and `base_sizes[l] * s * sqrt(r)` high.

    Args:
        strides: pixels between the cells of each level; one number, or (x, y).
        ratios: heights over widths.
        scales: sizes in units of the base size. Give either these or the two octave arguments.
        base_sizes: pixels; default: the (smaller) stride of each level.
        scale_major: among the anchors of a cell the scale changes fastest; else the ratio does.
        octave_base_scale, scales_per_octave: the scales `octave_base_scale * 2 ** (i / scales_per_octave)` (RetinaNet).
        centers: (x, y) in pixels of the first cell's anchors, for each level.
        center_offset: that centre as a fraction of the base size, 0..1, instead.

    Raises:
        ValueError: arguments that contradict each other.
    """

    def __init__(
        self,
        strides: Sequence[int | tuple[int, int]],
        ratios: Sequence[float],
        scales: Sequence[float] | None = None,
        base_sizes: Sequence[float] | None = None,
        scale_major: bool = True,
        octave_base_scale: float | None = None,
        scales_per_octave: int | None = None,
        centers: Sequence[tuple[float, float]] | None = None,
        center_offset: float = 0.0,
    ) -> None:
        octaves = octave_base_scale is not None and scales_per_octave is not None
        if octaves == (scales is not None):
            raise ValueError('give either scales, or octave_base_scale and scales_per_octave')
        if octaves:
            scales = [octave_base_scale * 2 ** (i / scales_per_octave) for i in range(scales_per_octave)]
        if not 0 <= center_offset <= 1:
            raise ValueError(f'center_offset must be in 0..1, not {center_offset}')
        if centers is not None and center_offset != 0:
            raise ValueError('give either centers or center_offset')
        self.strides = [(s, s) if isinstance(s, (int, float)) else tuple(s) for s in strides]
        self.base_sizes = [min(stride) for stride in self.strides] if base_sizes is None else list(base_sizes)
        for name, per_level in (('base_sizes', self.base_sizes), ('centers', centers)):
            if per_level is not None and len(per_level) != len(self.strides):
                raise ValueError(f'{len(per_level)} {name} for {len(self.strides)} strides')
        self.scales = torch.tensor([float(s) for s in scales])
        self.ratios = torch.tensor([float(r) for r in ratios])
        self.scale_major = scale_major
        self.centers = centers
        self.center_offset = center_offset
        self.base_anchors = [self._base_anchors(level) for level in range(self.num_levels)]

    @property
    def num_levels(self) -> int:
        """Levels of the pyramid."""
        return len(self.strides)

    @property
    def num_base_priors(self) -> list[int]:
        """Anchors of one cell, for each level."""
        return [len(anchors) for anchors in self.base_anchors]

    def grid_priors(
        self,
        featmap_sizes: Sequence[tuple[int, int]],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = 'cpu',
    ) -> list[Tensor]:
        """The anchors of feature maps of these (height, width), in pixels of the padded image.

        Returns:
            One (height * width * anchors of a cell, 4) per level: rows, then columns, then the anchors of the cell.
            They are shared between calls and must not be changed in place.

        Raises:
            ValueError: another number of feature maps than of strides.
        """
        self._check_levels(featmap_sizes)
        return [
            _anchors_of_grid(tuple(map(tuple, base.tolist())), stride, tuple(size), dtype, torch.device(device))
            for base, stride, size in zip(self.base_anchors, self.strides, featmap_sizes, strict=True)
        ]

    def valid_flags(
        self,
        featmap_sizes: Sequence[tuple[int, int]],
        pad_shape: Sequence[int],
        device: torch.device | str = 'cpu',
    ) -> list[Tensor]:
        """Whether each anchor's cell lies on the image of `pad_shape` (height, width) and not on the batch's padding.

        Returns:
            One bool tensor per level, in the order of `grid_priors`.

        Raises:
            ValueError: another number of feature maps than of strides.
        """
        self._check_levels(featmap_sizes)
        flags = []
        for (height, width), (stride_x, stride_y), count in zip(
            featmap_sizes, self.strides, self.num_base_priors, strict=True
        ):
            valid = torch.zeros((height, width, count), dtype=torch.bool, device=device)
            valid[: math.ceil(pad_shape[0] / stride_y), : math.ceil(pad_shape[1] / stride_x)] = True
            flags.append(valid.flatten())
        return flags

    def _check_levels(self, featmap_sizes: Sequence[tuple[int, int]]) -> None:
        if len(featmap_sizes) != self.num_levels:
            raise ValueError(f'{len(featmap_sizes)} feature maps, but strides for {self.num_levels} levels')

    def _base_anchors(self, level: int) -> Tensor:
        """The anchors (A, 4) of the first cell."""
        widths, heights = self._base_shapes(level)
        x, y = self._base_center(level)
        return torch.stack([x - 0.5 * widths, y - 0.5 * heights, x + 0.5 * widths, y + 0.5 * heights], dim=-1)

    def _base_shapes(self, level: int) -> tuple[Tensor, Tensor]:
        """Widths and heights (A,) of the anchors of a cell."""
        size = self.base_sizes[level]
        of_height = torch.sqrt(self.ratios)
        of_width = 1 / of_height
        if self.scale_major:
            ratios_by_scales = [(size * side[:, None]) * self.scales for side in (of_width, of_height)]
            return ratios_by_scales[0].flatten(), ratios_by_scales[1].flatten()
        scales = (size * self.scales)[:, None]
        return (scales * of_width).flatten(), (scales * of_height).flatten()

    def _base_center(self, level: int) -> tuple[float, float]:
        """Where the anchors of the first cell are centred, in pixels."""
        if self.centers is not None:
            return self.centers[level]
        return (self.center_offset * self.base_sizes[level],) * 2


@TASK_UTILS.register_module()
class LegacyAnchorGenerator(AnchorGenerator):
    """Anchors as mmdetection 1.x made them: inclusive boxes (width x2 - x1 + 1), corners rounded to whole pixels.

    With `center_offset=0.5` they are centred on (base size - 1) / 2, as in all of its models.
    """

    def _base_anchors(self, level: int) -> Tensor:
        widths, heights = self._base_shapes(level)
        x, y = self._base_center(level)
        half_width, half_height = 0.5 * (widths - 1), 0.5 * (heights - 1)
        return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], dim=-1).round()

    def _base_center(self, level: int) -> tuple[float, float]:
        if self.centers is not None:
            return self.centers[level]
        return (self.center_offset * (self.base_sizes[level] - 1),) * 2


@TASK_UTILS.register_module()
class TorchvisionAnchorGenerator(AnchorGenerator):
    """Anchors as torchvision's detectors make them: corners rounded to whole pixels, strides measured.

    A level's cells lie as many whole pixels apart as its map is smaller than the padded image. Where a map has been
    rounded up that is less than the nominal stride: 25 cells are pooled to 13, which then lie 61 pixels apart, not 64.
    The padded image's sides are taken to be multiples of the finest stride.
    """

    def grid_priors(
        self,
        featmap_sizes: Sequence[tuple[int, int]],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = 'cpu',
    ) -> list[Tensor]:
        """See `AnchorGenerator`."""
        self._check_levels(featmap_sizes)
        (finest_x, finest_y), (finest_rows, finest_columns) = self.strides[0], featmap_sizes[0]
        height, width = finest_rows * finest_y, finest_columns * finest_x
        return [
            _anchors_of_grid(
                tuple(map(tuple, base.tolist())),
                (width // columns, height // rows),
                (rows, columns),
                dtype,
                torch.device(device),
            )
            for base, (rows, columns) in zip(self.base_anchors, featmap_sizes, strict=True)
        ]

    def _base_anchors(self, level: int) -> Tensor:
        return super()._base_anchors(level).round()


@lru_cache(maxsize=32)  # five levels each of half a dozen image sizes; some 5 MB for one image of 800 x 1333
def _anchors_of_grid(
    base_anchors: tuple[tuple[float, ...], ...],
    stride: tuple[int, int],
    size: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """`base_anchors` moved to each cell of one level."""
    # Made outside of inference mode whoever asks first: an inference tensor could not take part in training later.
    with torch.inference_mode(False):
        y = torch.arange(size[0], device=device).to(dtype) * stride[1]
        x = torch.arange(size[1], device=device).to(dtype) * stride[0]
        y, x = torch.meshgrid(y, x, indexing='ij')
        shifts = torch.stack([x, y, x, y], dim=-1)
        anchors = torch.tensor(base_anchors, dtype=dtype, device=device)
        return (shifts[:, :, None] + anchors).view(-1, 4)
