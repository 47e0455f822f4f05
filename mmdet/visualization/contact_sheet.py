"""A sheet of pictures for comparison: columns are settings, rows are images."""
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .colours import INK, PAPER
from .text import font, shortened

GAP = 8
FAINT = (222, 224, 228)


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]], headers: Sequence[str], across: int = 2, cell_width: int = 384
) -> np.ndarray:
    """Pictures of each row side by side under the headers, several rows across the sheet.

    Args:
        rows: pictures, (H, W, 3) uint8 RGB of any sizes; as many in each row as there are headers.
        headers: what the columns show, e.g. `('base', 'dual')`.
        across: how many rows stand next to each other.
        cell_width: every picture is scaled to this width in pixels, its height to at most the same.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    across = min(across, len(rows))
    pictures = [[_fitted(picture, cell_width) for picture in row] for row in rows]
    lines = [pictures[first : first + across] for first in range(0, len(pictures), across)]
    heights = [max(picture.height for row in line for picture in row) for line in lines]
    row_width = len(headers) * (cell_width + GAP) - GAP
    gutter = 3 * GAP
    typeface = font(max(12, cell_width // 20), bold=True)
    header_height = sum(typeface.getmetrics()) + 2 * GAP

    size = 2 * GAP + across * (row_width + gutter) - gutter, header_height + sum(heights) + len(heights) * GAP + GAP
    sheet = Image.new('RGB', size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for block in range(across):
        for column, header in enumerate(headers):
            middle = GAP + block * (row_width + gutter) + column * (cell_width + GAP) + cell_width / 2
            text = shortened(header, cell_width, typeface)
            pen.text((middle, header_height / 2), text, font=typeface, fill=INK, anchor='mm')
        if block:
            x = GAP + block * (row_width + gutter) - gutter / 2
            pen.line((x, GAP, x, size[1] - GAP), fill=FAINT, width=1)
    y = header_height
    for line, height in zip(lines, heights, strict=True):
        for block, row in enumerate(line):
            for column, picture in enumerate(row):
                x = GAP + block * (row_width + gutter) + column * (cell_width + GAP)
                sheet.paste(picture, (x + (cell_width - picture.width) // 2, y + (height - picture.height) // 2))
        y += height + GAP
    return np.asarray(sheet)


def _fitted(picture: np.ndarray, side: int) -> Image.Image:
    height, width = picture.shape[:2]
    scale = min(side / width, side / height)
    image = Image.fromarray(picture)
    if scale == 1:
        return image
    return image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS)
