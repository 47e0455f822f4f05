"""Detections drawn on their image: translucent masks, boxes, and labels that stay readable."""
import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from hotcoco import mask as rle
from mmengine.structures import InstanceData
from PIL import Image, ImageDraw

from mmdet.structures.masks import InstanceMasks

from .colours import class_colour, readable_on
from .text import font, shortened

READABLE_SIDE = 360  # pixels; images smaller than this are enlarged
MASK_OPACITY = 0.4


def draw_detections(
    image: np.ndarray,
    instances: Mapping[str, Any] | InstanceData,
    class_names: Sequence[str],
    score_thr: float = 0.3,
    scale: int | None = None,
) -> np.ndarray:
    """Draws what was detected (or annotated) on an image.

    Args:
        image: (H, W, 3) uint8 RGB; it is left as it is.
        instances: mapping or InstanceData with `labels` (N,) in 0..C-1 and `bboxes` (N, 4) xyxy in pixels of `image`;
            where there are any, `scores` (N,) and `masks`: N COCO run-length encodings of the image's size, an
            (N, H, W) array, or `InstanceMasks`.
        class_names: C names.
        score_thr: instances with lower scores are not drawn.
        scale: how many times to enlarge the image; None enlarges small ones so that labels find room.

    Returns:
        (H * scale, W * scale, 3) uint8 RGB.
    """
    height, width = image.shape[:2]
    scale = scale or math.ceil(READABLE_SIDE / max(height, width))
    labels = _array(instances['labels'])
    scores = _array(instances['scores']) if 'scores' in instances else None
    boxes = scale * _array(instances['bboxes']).reshape(-1, 4)
    shown = np.arange(len(labels)) if scores is None else np.argsort(scores, kind='stable')
    if scores is not None:
        shown = shown[scores[shown] >= score_thr]

    canvas = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    line_width = max(1, round(max(canvas.shape) / 500))
    if instances.get('masks') is not None:
        for i in shown:
            _draw_mask(canvas, _bitmap(instances['masks'], i), class_colour(int(labels[i])), line_width)
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    for i in shown:
        pen.rectangle(_inside(boxes[i], picture.size), outline=class_colour(int(labels[i])), width=line_width)
    taken: list[tuple[float, ...]] = []
    for i in shown[::-1]:  # the surest first: it gets the best place for its label
        score = '' if scores is None else f' {scores[i]:.2f}'
        name = class_names[labels[i]].replace('_', ' ')
        _draw_label(pen, name, score, boxes[i], class_colour(int(labels[i])), taken, picture.size)
    return np.asarray(picture)


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _bitmap(masks: Any, index: int) -> np.ndarray:
    """(H, W) uint8."""
    if isinstance(masks, InstanceMasks):
        return masks[index].to_bitmaps()[0]
    if isinstance(masks, Sequence):
        return rle.decode(masks[index])
    return _array(masks)[index].astype(np.uint8)


def _draw_mask(canvas: np.ndarray, bitmap: np.ndarray, colour: tuple[int, int, int], line_width: int) -> None:
    """Tints the masked part of the canvas in place and draws its outline, touching only the mask's own box."""
    rows, columns = np.flatnonzero(bitmap.any(1)), np.flatnonzero(bitmap.any(0))
    if len(rows) == 0:
        return
    scale = canvas.shape[0] / bitmap.shape[0]
    margin = 1
    top, bottom = max(rows[0] - margin, 0), rows[-1] + 1 + margin
    left, right = max(columns[0] - margin, 0), columns[-1] + 1 + margin
    part = bitmap[top:bottom, left:right]
    y, x = round(top * scale), round(left * scale)
    size = round(part.shape[1] * scale), round(part.shape[0] * scale)
    inside = cv2.resize(255 * part, size, interpolation=cv2.INTER_LINEAR) > 127
    window = canvas[y : y + size[1], x : x + size[0]]
    window[inside] = ((1 - MASK_OPACITY) * window[inside] + MASK_OPACITY * np.array(colour)).astype(np.uint8)
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, colour, line_width, cv2.LINE_AA, offset=(x, y))


def _inside(box: np.ndarray, size: tuple[int, int]) -> tuple[float, ...]:
    """A box whose outline can be seen, as PIL wants its corners."""
    x1, y1, x2, y2 = box
    x1, y1 = min(max(x1, 0), size[0] - 1), min(max(y1, 0), size[1] - 1)
    return x1, y1, max(min(x2, size[0] - 1), x1), max(min(y2, size[1] - 1), y1)


def _draw_label(
    pen: ImageDraw.ImageDraw,
    name: str,
    score: str,
    box: np.ndarray,
    colour: tuple[int, int, int],
    taken: list[tuple[float, ...]],
    size: tuple[int, int],
) -> None:
    """Writes a label by its box, where it covers as little as possible of the labels already written (`taken`)."""
    typeface = font(int(np.clip(max(size) / 42, 11, 20)))
    padding = 2
    text = shortened(name, size[0] - 2 * padding - typeface.getlength(score), typeface) + score
    width, height = math.ceil(typeface.getlength(text)) + 2 * padding, sum(typeface.getmetrics())
    x1, y1, x2, y2 = _inside(box, size)
    heights = (y1 - height, y2 + 1, y1, y2 - height, y1 - 2 * height, y1 + height, y2 + height, y2 - 2 * height)
    rectangles = []
    for y in heights:
        for x in (x1, x2 - width):
            left, top = min(max(x, 0), size[0] - width), min(max(y, 0), size[1] - height)
            rectangles.append((left, top, left + width, top + height))
    best = min(rectangles, key=lambda rectangle: sum(_overlap(rectangle, other) for other in taken))
    taken.append(best)
    pen.rectangle((best[0], best[1], best[2] - 1, best[3] - 1), fill=colour)
    pen.text((best[0] + padding, best[1]), text, font=typeface, fill=readable_on(colour))


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
