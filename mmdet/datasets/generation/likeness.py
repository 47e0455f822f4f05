"""How alike two glyphs can look in GlyphLT's scenes, and which glyphs of the font can all be told apart.

    python -m mmdet.datasets.generation.likeness

prints the catalogue `DISTINCT` of glyphs.py, in minutes.
"""
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product

import cv2
import numpy as np
from matplotlib.ft2font import FT2Font

from .glyphs import CATALOGUE, FONT, glyph_shape

LIMIT = 0.92
"""Glyphs as like as this are near-doubles: only one of them may be a class."""
_GRID = 24
_RADIUS = 6
# Two objects are each turned by up to 30 degrees, so one may be turned by 60 against the other; each is stretched by up
# to 12 %; training mirrors images. A glyph's own size says nothing, because the scene chooses the object's.
_TURNS = range(-60, 61, 10)
_STRETCHES = (0.88, 1.0, 1.13)
_SIZES = (0.9, 1.0, 1.1)
_SHIFTS = (-1, 0, 1)
_STROKES_WEIGHT = 1.5
# Box drawing and Braille differ in where in its cell a stroke or a dot is, and glyphs lose theirs. Specials are empty.
_LEFT_OUT = (range(0x2500, 0x2580), range(0x2800, 0x2900), range(0xFFF0, 0x10000))


def distinct_glyphs(characters: Iterable[str], number: int) -> str:
    """The first `number` characters each of which is less than `LIMIT` like every one chosen before it."""
    chosen = ''
    for character in characters:
        if len(chosen) == number:
            break
        if not chosen or likeness(character, chosen) < LIMIT:
            chosen += character
    return chosen


def likeness(character: str, others: str) -> float:
    """How like a glyph is to the most similar of others.

    It is the largest correlation of two glyphs' pictures as one is mirrored, turned, stretched, scaled and moved a
    little. A picture has 24x24 pixels, blurred by a pixel, and two layers: the filled outline and the strokes, whose
    values less their mean are the vector that is correlated, strokes weighted by 1.5. Glyphs come to it with the same
    radius of gyration.

    Args:
        character: the one that is turned.
        others: characters, at least one.

    Returns:
        At most 1, which says that two are the same shape.
    """
    return float((_views(character) @ np.concatenate([_moved(other) for other in others]).T).max())


def candidates() -> Iterator[str]:
    """The font's characters that make solid objects of one piece: pictographs first, then signs, then letters."""
    return filter(_is_solid, sorted(map(chr, FT2Font(str(FONT)).get_charmap()), key=_preference))


def _is_solid(character: str) -> bool:
    if unicodedata.category(character)[0] in 'CMZ' or unicodedata.decomposition(character):
        return False
    if any(ord(character) in block for block in _LEFT_OUT):
        return False
    body = (glyph_shape(character).body > 127).astype(np.uint8)
    pieces = cv2.connectedComponents(body)[0] - 1
    depth = cv2.distanceTransform(body, cv2.DIST_L2, 5).max()
    return pieces == 1 and depth >= 14 and body.mean() > 0.12


def _preference(character: str) -> tuple[int, int]:
    code = ord(character)
    if character in CATALOGUE:
        return 0, CATALOGUE.index(character)
    blocks = (
        [(0x2600, 0x27C0), (0x1F000, 0x1F700)],  # symbols, dingbats, games, faces
        [(0x2300, 0x2400), (0x2B00, 0x2C00), (0x2190, 0x2200), (0x25A0, 0x2600)],  # technical, arrows, geometric shapes
        [(0x2000, 0x2190), (0x2200, 0x2300), (0x2900, 0x2A00)],  # punctuation, currencies, mathematics
    )
    for rank, ranges in enumerate(blocks, start=1):
        if any(low <= code < high for low, high in ranges):
            return rank, code
    return 4 + (unicodedata.category(character) == 'Ll'), code


def _views(character: str) -> np.ndarray:
    """(views, pixels) unit vectors without mean: the glyph in all poses that a scene may show it in."""
    poses = product((False, True), _STRETCHES, _SIZES, _TURNS)
    return np.stack([_picture(character, *pose) for pose in poses])


@cache
def _moved(character: str) -> np.ndarray:
    """(moves, pixels): the upright glyph, moved by up to a pixel."""
    return np.stack([_picture(character, False, 1, 1, 0, move) for move in product(_SHIFTS, _SHIFTS)])


def _picture(
    character: str, mirrored: bool, stretch: float, size: float, turn: float, move: tuple[int, int] = (0, 0)
) -> np.ndarray:
    layers, centre, radius = _normalised(character)
    angle = np.radians(turn)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = rotation @ np.diag([-stretch if mirrored else stretch, 1 / stretch]) * size * _RADIUS / radius
    pose = np.column_stack([linear, np.add(move, _GRID / 2 - 0.5) - linear @ centre])
    picture = cv2.warpAffine(layers, pose, (_GRID, _GRID))
    vector = ((picture - picture.mean(axis=(0, 1))) * (1, _STROKES_WEIGHT)).ravel()
    return (vector / np.linalg.norm(vector)).astype(np.float32)


@cache
def _normalised(character: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Blurred layers (CANVAS, CANVAS, 2) float32 0..1, and the body's centre (x, y) and radius of gyration."""
    shape = glyph_shape(character)
    y, x = np.nonzero(shape.body > 127)
    centre = np.array([x.mean(), y.mean()])
    radius = float(np.sqrt(x.var() + y.var()))
    layers = np.dstack([shape.body, shape.strokes]).astype(np.float32) / 255
    return cv2.GaussianBlur(layers, (0, 0), radius / _RADIUS), centre, radius


if __name__ == '__main__':
    print(distinct_glyphs(candidates(), 400))
