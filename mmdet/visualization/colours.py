"""One colour per class, the same in every picture."""
from functools import cache

import numpy as np

GOLDEN_RATIO = (5**0.5 - 1) / 2
LIGHTNESS = (0.70, 0.58, 0.80)
CHROMA = 0.16
INK, PAPER = (24, 26, 30), (255, 255, 255)


@cache
def class_colour(label: int) -> tuple[int, int, int]:
    """RGB of a class: neighbouring labels are far apart in hue, and hues that come back differ in lightness."""
    return oklch_to_rgb(LIGHTNESS[label % len(LIGHTNESS)], CHROMA, label * GOLDEN_RATIO % 1)


def oklch_to_rgb(lightness: float, chroma: float, hue: float) -> tuple[int, int, int]:
    """A colour of the perceptually even OKLCH space (hue in turns) in 8-bit sRGB, clipped to what a screen can show.

    Björn Ottosson, "A perceptual color space for image processing", 2020.
    """
    a, b = chroma * np.cos(2 * np.pi * hue), chroma * np.sin(2 * np.pi * hue)
    long, medium, short = (
        (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3,
        (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3,
        (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3,
    )
    linear = np.clip(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        0,
        1,
    )
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return tuple(int(channel) for channel in np.round(255 * gamma))


def readable_on(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Dark or white, whichever reads better on `colour`."""
    red, green, blue = colour
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else PAPER
