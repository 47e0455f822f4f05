"""The pictographs of GlyphLT: which ones, and their solid shapes from DejaVu Sans."""
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

FONT = Path(matplotlib.get_data_path()) / 'fonts/ttf/DejaVuSans.ttf'

# Chosen by eye for silhouettes and strokes that can be told apart at 24 pixels, mirrored or turned by 30 degrees.
# The default 60 come first; what follows them is a little harder to tell from one of those.
CATALOGUE = (
    '☀☁☂☃★☄☽❄⚡'  # weather and sky
    '♚♛♜♞♟♠♥⚄⛃'  # games
    '♆♈♊♋♎♏♒'  # planets and zodiac
    '✂✈✉✍✏✔☞'  # hands, tools and the post
    '☎☕♨♫♿⚑⚒⚓⚖⚗⚙⚱⌘⌨'  # things
    '☠☢☣☯☸⚠☺'  # signs
    '☘❀✠🐭🐮🐱🐵'  # plants and animals
    '⛢♃♌♉♑♓☮♻⚛✌✆✡✦❣❦➲⏎⏏⬍☤☥⚷♯♦😎😱🂡'
)
# Chosen by the rule of likeness.py, which prints them: pictographs, signs and letters, none of which correlates by 0.92
# with one before it as it is mirrored, turned, stretched, scaled or moved a little.
DISTINCT = (
    '☀☁☂☃★☄☽❄⚡♛♞♟⚄♆♈♊♋♎♏♒✂✈✍✔☞☕♨♫♿⚑⚒⚓⚗⚱⌘☠☢☣☯⚠☺☘✠⛢♃♌♉♑♓✌'
    '✡✦❣➲⏎☥⚷♯🂡☆☇☈☉☊☋☌☏☓☔☙☟☡☦☧☩☪☭☰☿♄♅♇♐♔♗♘♢♩♪♬♭♶⚋⚏⚐⚕⚘⚚⚞⚣'
    '⚤⚩⚮⚲⚳⚵⚶⚸✐✗✞✧✶✿❝❞❡❪➔➚➛➢➩➫➬➭➮➳🀱😴😸↜↞↡↢↥↧↨↩↯↰↶↸↺⇄⇅⇇⇈⇊⇑'
    '⇣⇩⇰⇱⇲⇶⌁⌂⌃⌄⌅⌆⌇⌌⌎⌐⌤⌥⍵⍺⍽⎇⎨⏨▻◔◩◭⬎“”‰‽⁁⁂⁊⁌⁒⁝₠₡₣₤₥₧€₭₮₯₰'
    '₱₳₴₹₺℄℈℞℟℥℮Ⅎ⅁⅄⅋ↅ∀∂∏∐∑∓∔√∛∠∢∮∸∹∺∻∼∾≆≍≏≒≚≟≤≦≪≼⊆⊢⊥⊧⊨⊩'
    '⊪⊫⊰⊴⊹⊺⊻⊼⊽⊾⋀⋋⋔⋜⋞⋲⋵⋶⋸⧔$%&3459GHMNWY¥±¿ÆÞĦŁƁƇƑƘƜƝƤƦƬƻ'
    'ƼǶȜȤȺȾɄͲΨϏϠϨϪϾЂЉЋДЖУЦЧЫѤѦѨѪѬѮѸҊҒҘҠҤҦҴҶҸҺҾӃӅӇӺԂԄԎԔԖ'
    'ԘԢԤԶԷԹԻԽԿՃՆՇՊՎՔ՞׆לעקשװ؉؊بتجحذسطعفكمي٪ٴٹټڊڑڕږڜڥڨڪگڸ'
)
CATALOGUES = {'pictographs': CATALOGUE, 'distinct': DISTINCT}
"""What GlyphLT can take its classes from, by the name that a config gives."""
CANVAS = 192
"""Side, in pixels, of the square a glyph's shape is drawn on."""
GLYPH_SIDE = 144
"""Longest side, in pixels, of the glyph within its canvas."""
_RIM = 6
_GAP = 15


@dataclass(frozen=True)
class GlyphShape:
    """A pictograph as a solid object.

    Attributes:
        body: (CANVAS, CANVAS) uint8, 255 within the outline: the glyph with holes and narrow gaps filled and a rim
            added, because a mask of thin strokes is more than a 28x28 mask head can express.
        strokes: (CANVAS, CANVAS) uint8, 255 on the glyph's own strokes, which lie inside the body.
        area: pixels of the body.
    """

    body: np.ndarray
    strokes: np.ndarray
    area: int


def glyph_name(character: str) -> str:
    """The Unicode name as an LVIS-like category name, e.g. `black_chess_knight`."""
    return unicodedata.name(character).lower().replace(' ', '_').replace('-', '_')


@cache
def glyph_shape(character: str) -> GlyphShape:
    """Draw one character of the catalogue."""
    outlines = TextPath((0, 0), character, size=100, prop=FontProperties(fname=FONT)).to_polygons()
    points = np.concatenate(outlines)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = GLYPH_SIDE / (high - low).max()
    contours = [(outline - (low + high) / 2) * (scale, -scale) + CANVAS / 2 for outline in outlines]
    fixed_point = [np.round(contour * 16).astype(np.int32) for contour in contours]

    strokes = np.zeros((CANVAS, CANVAS), np.uint8)
    cv2.fillPoly(strokes, fixed_point, 255, lineType=cv2.LINE_AA, shift=4)
    body = cv2.dilate(strokes, _disc(_RIM))
    body = cv2.morphologyEx(body, cv2.MORPH_CLOSE, _disc(_GAP), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    outer, _ = cv2.findContours(np.where(body > 127, 255, 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(body, outer, -1, 255, thickness=-1)
    return GlyphShape(body, strokes, int((body > 127).sum()))


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
