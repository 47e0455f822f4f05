"""Text on pictures, in the font that matplotlib ships, so that it looks alike everywhere."""
from functools import cache
from pathlib import Path

import matplotlib
from PIL import ImageFont


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, `size` pixels high."""
    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / 'fonts/ttf' / name), size)


def shortened(text: str, width: float, typeface: ImageFont.FreeTypeFont) -> str:
    """`text`, with its end replaced by an ellipsis where it is wider than `width` pixels."""
    if typeface.getlength(text) <= width:
        return text
    while text and typeface.getlength(text + '…') > width:
        text = text[:-1]
    return text.rstrip() + '…'
