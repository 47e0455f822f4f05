"""Scenes of solid pictographs: background, clutter, overlapping objects, and the polygons of what stays visible."""
from dataclasses import dataclass

import cv2
import numpy as np

from .glyphs import CANVAS, GLYPH_SIDE, GlyphShape

_FINE = 4
"""Fine pixels per image pixel and axis: masks and edges are drawn on the fine grid."""
_SIZES = (24, 64)
_MIN_VISIBLE = 0.65
_PLACEMENTS = 30


@dataclass(frozen=True)
class SceneObject:
    """What to paint: a shape and its class's typical hue (degrees)."""

    shape: GlyphShape
    hue: float


def paint_scene(
    objects: list[SceneObject], side: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[list[np.ndarray]]]:
    """Paint `objects` on a textured background, the last on top.

    Args:
        objects: in the order they are painted.
        side: height and width of the image in pixels.
        rng: where everything random comes from.

    Returns:
        The image (side, side, 3) uint8 BGR, and for each object the polygons [(n, 2) float] of its visible region in
        pixels of the image; several where something lies across it.
    """
    image = _scatter_clutter(_background(side, rng), rng)
    angle = rng.uniform(0, 2 * np.pi)
    light = np.array([np.sin(angle), np.cos(angle)])
    poses = _place([item.shape for item in objects], side, rng)
    owner = np.zeros((side * _FINE, side * _FINE), np.uint8)
    for number, (item, pose) in enumerate(zip(objects, poses, strict=True), start=1):
        window = _window(pose, side)
        body = _warp(item.shape.body, pose, window, _FINE)
        strokes = _warp(item.shape.strokes, pose, window, _FINE)
        window.of(owner, _FINE)[body > 127] = number
        _paint_object(window.of(image), _coverage(body), _coverage(strokes), item.hue, light, side / 64, rng)
    if rng.random() < 0.3:
        image = _lay_stroke_across(image, owner, rng)
    image += rng.normal(0, rng.uniform(0.005, 0.025), image.shape).astype(np.float32)
    pixels = np.clip(image * 255, 0, 255).round().astype(np.uint8)
    return pixels, [_outline(owner == number + 1) for number in range(len(objects))]


# ---------------------------------------------------------------- background


def _background(side: int, rng: np.random.Generator) -> np.ndarray:
    """Two muted colours mixed by noise of several octaves, some with stripes or checks: (side, side, 3) float32."""
    mixture = np.zeros((side, side), np.float32)
    for cells, weight in ((2, 1.0), (5, 0.6), (12, 0.35), (40, 0.2)):
        grid = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        mixture += weight * cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
    kind = rng.integers(4)
    if kind < 2:
        y, x = np.mgrid[:side, :side] / side
        waves = np.sin(2 * np.pi * rng.uniform(3, 9) * _turned(x, y, rng.uniform(0, np.pi)) + mixture)
        if kind == 1:
            waves = waves * np.sin(2 * np.pi * rng.uniform(3, 9) * _turned(y, x, rng.uniform(0, np.pi)))
        mixture = 0.5 * mixture + 0.9 * np.tanh(3 * waves).astype(np.float32)
    share = (1 / (1 + np.exp(-1.5 * mixture)))[..., None]
    first, second = (_bgr(rng.uniform(0, 360), rng.uniform(0, 0.35), rng.uniform(0.25, 0.9)) for _ in range(2))
    return (share * first + (1 - share) * second).astype(np.float32)


def _scatter_clutter(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw blobs and curved strokes of many colours, to lie below the objects."""
    side = len(image)
    # OpenCV smooths the edges of what it draws in 8-bit images only.
    image = np.round(image * 255).astype(np.uint8)
    for _ in range(rng.integers(2, 7)):
        colour = (255 * _bgr(rng.uniform(0, 360), rng.uniform(0, 0.8), rng.uniform(0.2, 0.95))).tolist()
        if rng.random() < 0.4:
            centre, axes = rng.uniform(0, side, 2), rng.uniform(0.02, 0.09, 2) * side
            cv2.ellipse(image, (centre.tolist(), (2 * axes).tolist(), rng.uniform(0, 180)), colour, -1, cv2.LINE_AA)
        else:
            thickness = int(rng.integers(1, 4))
            cv2.polylines(image, [_curve(side, rng)], False, colour, thickness, cv2.LINE_AA, shift=4)
    return image.astype(np.float32) / 255


def _curve(side: int, rng: np.random.Generator) -> np.ndarray:
    """A quadratic Bezier curve, (16, 2) int32 in sixteenths of a pixel."""
    start = rng.uniform(0, side, 2)
    bend, end = start + rng.normal(0, 0.3 * side, (2, 2))
    t = np.linspace(0, 1, 16)[:, None]
    return np.round(16 * ((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end)).astype(np.int32)


# ---------------------------------------------------------------- objects


def _place(shapes: list[GlyphShape], side: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Choose a pose (2x3, canvas to image pixels) for each shape so that every one stays mostly visible."""
    visible: list[tuple[np.ndarray, float]] = []
    poses = []
    for shape in shapes:
        limit, best = 1.0, None
        for _ in range(_PLACEMENTS):
            pose = _random_pose(side, limit, rng)
            cover = _warp(shape.body, pose, _Window(0, 0, side, side), 1) > 127
            full_area = shape.area * abs(np.linalg.det(pose[:, :2]))
            worst = min([cover.sum() / full_area, *((mask & ~cover).sum() / area for mask, area in visible)])
            if best is None or worst > best[0]:
                best = worst, pose, cover, full_area
            if worst >= _MIN_VISIBLE:
                break
            limit *= 0.95
        _, pose, cover, full_area = best
        visible = [(mask & ~cover, area) for mask, area in visible]
        visible.append((cover, full_area))
        poses.append(pose)
    return poses


def _random_pose(side: int, limit: float, rng: np.random.Generator) -> np.ndarray:
    """A random size up to `limit` times the largest, turn, stretch and place: canvas to image pixels."""
    low, high = (size * side / 128 for size in _SIZES)
    size = np.exp(rng.uniform(np.log(low), np.log(max(low + 1, high * limit))))
    angle, stretch = np.radians(rng.uniform(-30, 30)), np.exp(rng.uniform(-0.12, 0.12))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.diag([stretch, 1 / stretch]) * size / GLYPH_SIDE
    centre = rng.uniform(0.35 * size, side - 0.35 * size, 2)
    return np.column_stack([linear, centre - linear @ (CANVAS / 2, CANVAS / 2)])


@dataclass(frozen=True)
class _Window:
    """A rectangle of the image, in pixels: what one object can touch."""

    top: int
    left: int
    bottom: int
    right: int

    def of(self, image: np.ndarray, fine: int = 1) -> np.ndarray:
        """The view of this window in an image of `fine` pixels per pixel."""
        return image[self.top * fine : self.bottom * fine, self.left * fine : self.right * fine]


def _window(pose: np.ndarray, side: int) -> _Window:
    corners = pose @ np.array([[0, CANVAS, 0, CANVAS], [0, 0, CANVAS, CANVAS], [1, 1, 1, 1]])
    left, top = np.clip(np.floor(corners.min(axis=1)).astype(int), 0, side - 1)
    right, bottom = np.clip(np.ceil(corners.max(axis=1)).astype(int), 1, side)
    return _Window(int(top), int(left), int(bottom), int(right))


def _warp(layer: np.ndarray, pose: np.ndarray, window: _Window, fine: int) -> np.ndarray:
    """Draw a canvas layer in a window at `fine` pixels per pixel; the centre of a pixel is at integer + 0.5."""
    matrix = (pose - [[0, 0, window.left], [0, 0, window.top]]) * fine
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    size = (window.right - window.left) * fine, (window.bottom - window.top) * fine
    return cv2.warpAffine(layer, matrix, size, flags=cv2.INTER_LINEAR)


def _coverage(fine_layer: np.ndarray) -> np.ndarray:
    """From the fine grid to the image's: the share of each pixel that is covered, float32 0..1."""
    height, width = fine_layer.shape
    layer = cv2.resize(fine_layer, (width // _FINE, height // _FINE), interpolation=cv2.INTER_AREA)
    return layer.astype(np.float32) / 255


def _paint_object(
    image: np.ndarray,
    body: np.ndarray,
    strokes: np.ndarray,
    hue: float,
    light: np.ndarray,
    depth: float,
    rng: np.random.Generator,
) -> None:
    """Cast a shadow, then paint body and strokes, lit from one side, into `image`.

    `body` and `strokes` are coverages 0..1 of the pixels of `image`, `light` is the direction it falls in (y, x), and
    `depth` the length of the shadow in pixels.
    """
    body_colour, stroke_colour = _object_colours(hue, rng)
    paint = body_colour + strokes[..., None] * (stroke_colour - body_colour)

    soft = cv2.GaussianBlur(body, (0, 0), depth)
    shadow = _shifted(soft, light * depth)
    rim = shadow - _shifted(soft, -light * depth)
    y, x = (np.linspace(-0.5, 0.5, length) for length in body.shape)
    slope = (light[0] * y[:, None] + light[1] * x).astype(np.float32)
    paint *= (1 - 0.25 * slope + 0.3 * rim)[..., None]

    image *= (1 - 0.45 * shadow * (1 - body))[..., None]
    image += body[..., None] * (paint - image)


def _shifted(layer: np.ndarray, step: np.ndarray) -> np.ndarray:
    """`layer` moved by `step` (y, x) pixels, zeros moving in."""
    matrix = np.array([[1, 0, step[1]], [0, 1, step[0]]])
    return cv2.warpAffine(layer, matrix, layer.shape[::-1], flags=cv2.INTER_LINEAR)


def _object_colours(hue: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Body and stroke colours: body hues scatter about the class's own; one colour is light, the other dark."""
    body_hue, stroke_hue = rng.normal(hue, 30), rng.uniform(0, 360)
    light = rng.uniform(0.35, 0.9), rng.uniform(0.75, 1.0)
    dark = rng.uniform(0.3, 0.9), rng.uniform(0.1, 0.35)
    if rng.random() < 0.75:
        return _bgr(body_hue, *light), _bgr(stroke_hue, *dark)
    return _bgr(body_hue, dark[0], dark[1] + 0.15), _bgr(stroke_hue, 0.5 * light[0], light[1])


def _lay_stroke_across(image: np.ndarray, owner: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw one thin curve over everything; what it hides belongs to no object any more."""
    side = len(image)
    stroke = np.zeros(owner.shape, np.uint8)
    curve = _curve(side, rng) * _FINE
    cv2.polylines(stroke, [curve], False, 255, int(_FINE * side / 128 * rng.uniform(1, 2.5)), cv2.LINE_AA, shift=4)
    owner[stroke > 127] = 0
    colour = _bgr(rng.uniform(0, 360), rng.uniform(0, 0.8), rng.uniform(0.2, 0.95))
    return image + _coverage(stroke)[..., None] * (colour - image)


# ---------------------------------------------------------------- polygons


def _outline(mask: np.ndarray) -> list[np.ndarray]:
    """Polygons of a mask on the fine grid, in pixels of the image; specks below 4 pixels are left out."""
    mask = mask.astype(np.uint8)
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parents = np.reshape(hierarchy, (-1, 4))[:, 3] if contours else []
    holes = [contour for contour, parent in zip(contours, parents, strict=True) if parent >= 0]
    if holes:
        # A list of polygons cannot say "hole": cut the mask open along a column through each.
        for hole in holes:
            mask[:, int(hole[:, 0, 0].mean())] = 0
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    parts = [cv2.approxPolyDP(part, 1.0, True) for part in contours if cv2.contourArea(part) >= 4 * _FINE**2]
    return [(part[:, 0].astype(np.float64) + 0.5) / _FINE for part in parts if len(part) >= 3]


# ---------------------------------------------------------------- helpers


def _bgr(hue: float, saturation: float, value: float) -> np.ndarray:
    """A colour (3,) float32 0..1 from a hue in degrees, saturation and value 0..1."""
    sector = (np.array([5, 3, 1]) + hue % 360 / 60) % 6
    rgb = value - value * saturation * np.clip(np.minimum(sector, 4 - sector), 0, 1)
    return rgb[::-1].astype(np.float32)


def _turned(x: np.ndarray, y: np.ndarray, angle: float) -> np.ndarray:
    return x * np.cos(angle) + y * np.sin(angle)
