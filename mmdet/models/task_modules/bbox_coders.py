"""Between boxes and the numbers a regressor learns."""
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmdet.registry import TASK_UTILS
from mmdet.structures.boxes import clip_boxes

WH_RATIO_CLIP = 16 / 1000


@TASK_UTILS.register_module()
class DeltaXYWHBBoxCoder:
    """R-CNN's deltas: shift of the centre in units of the box's size, and log ratios of width and height.

        dx = (gx - px) / pw,  dy = (gy - py) / ph,  dw = log(gw / pw),  dh = log(gh / ph)

    with p the box given, g the one wanted, (x, y) centres; then normalised by `target_means` and `target_stds`.

    Args:
        target_means: of dx, dy, dw, dh, subtracted from the deltas.
        target_stds: by which they are divided after that.
        clip_border: decoded boxes are cut to the image where its size is given.
        add_ctr_clamp: limit the centre's shift to `ctr_clamp` pixels, and log ratios only upwards (YOLOF).
        ctr_clamp: pixels.
    """

    encode_size = 4

    def __init__(
        self,
        target_means: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
        target_stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        clip_border: bool = True,
        add_ctr_clamp: bool = False,
        ctr_clamp: float = 32,
    ) -> None:
        self.means = tuple(target_means)
        self.stds = tuple(target_stds)
        self.clip_border = clip_border
        self.add_ctr_clamp = add_ctr_clamp
        self.ctr_clamp = ctr_clamp

    def encode(self, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
        """Deltas (N, 4) that turn each of `boxes` (N, 4) into its row of `gt_boxes` (N, 4)."""
        centers, sizes = self._centers_and_sizes(boxes)
        gt_centers, gt_sizes = self._centers_and_sizes(gt_boxes)
        deltas = torch.cat([(gt_centers - centers) / sizes, torch.log(gt_sizes / sizes)], dim=-1)
        return deltas.sub_(deltas.new_tensor(self.means)).div_(deltas.new_tensor(self.stds))

    def decode(
        self,
        boxes: Tensor,
        deltas: Tensor,
        max_shape: Sequence[int] | None = None,
        wh_ratio_clip: float = WH_RATIO_CLIP,
    ) -> Tensor:
        """Boxes moved and stretched by deltas, the inverse of `encode`.

        Args:
            boxes: (N, 4).
            deltas: (N, 4) or, class by class, (N, C * 4).
            max_shape: (height, width) of the image to which boxes are cut, in pixels.
            wh_ratio_clip: a box grows or shrinks at most by this ratio.

        Returns:
            In the shape of `deltas`.
        """
        shape = deltas.shape
        deltas = deltas.reshape(len(boxes), shape[1] // 4, 4)
        deltas = deltas * deltas.new_tensor(self.stds) + deltas.new_tensor(self.means)
        centers, sizes = self._centers_and_sizes(boxes[:, None])
        shifts = sizes * deltas[..., :2]
        log_ratios = deltas[..., 2:]
        limit = abs(math.log(wh_ratio_clip))
        if self.add_ctr_clamp:
            shifts = shifts.clamp(-self.ctr_clamp, self.ctr_clamp)
            log_ratios = log_ratios.clamp(max=limit)
        else:
            log_ratios = self._limited(log_ratios, limit)
        decoded = self._corners(centers + shifts, sizes * log_ratios.exp())
        if self.clip_border and max_shape is not None:
            decoded = self._clip(decoded, max_shape)
        return decoded.view(shape)

    def _limited(self, log_ratios: Tensor, limit: float) -> Tensor:
        return log_ratios.clamp(-limit, limit)

    def _centers_and_sizes(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Both (..., 2)."""
        return (boxes[..., :2] + boxes[..., 2:]) * 0.5, boxes[..., 2:] - boxes[..., :2]

    def _corners(self, centers: Tensor, sizes: Tensor) -> Tensor:
        half = sizes * 0.5
        return torch.cat([centers - half, centers + half], dim=-1)

    def _clip(self, boxes: Tensor, max_shape: Sequence[int]) -> Tensor:
        return clip_boxes(boxes, max_shape)


@TASK_UTILS.register_module()
class LegacyDeltaXYWHBBoxCoder(DeltaXYWHBBoxCoder):
    """Deltas as mmdetection 1.x computed them, between inclusive boxes (width x2 - x1 + 1).

    Decoded boxes are cut to 0..width - 1 and 0..height - 1.
    """

    def _centers_and_sizes(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        return (boxes[..., :2] + boxes[..., 2:]) * 0.5, boxes[..., 2:] - boxes[..., :2] + 1.0

    def _corners(self, centers: Tensor, sizes: Tensor) -> Tensor:
        half = sizes * 0.5 - 0.5
        return torch.cat([centers - half, centers + half], dim=-1)

    def _clip(self, boxes: Tensor, max_shape: Sequence[int]) -> Tensor:
        return clip_boxes(boxes, (max_shape[0] - 1, max_shape[1] - 1))


@TASK_UTILS.register_module()
class Box2BoxTransform(DeltaXYWHBBoxCoder):
    """Deltas as detectron2 (whose name this is) and torchvision decode them: a box may shrink by any ratio."""

    def _limited(self, log_ratios: Tensor, limit: float) -> Tensor:
        return log_ratios.clamp(max=limit)
