"""Rare classes against frequent ones: which calibrators give most of both."""
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure

from mmdet.utils.files import written_whole

from .ap_plot import BASE, DUAL, FAINT, INK, STYLE

CHOSEN = 'chosen'
EXPLANATION = 'Square: the detector itself. Diamond, *: chosen without test labels. Line: none is better'


class Point(NamedTuple):
    """A calibrator: its name, whether it is as published or chosen, its AP of rare and of frequent classes."""

    name: str
    how: str
    rare: float
    frequent: float


def plot_pareto_front(points: Sequence[Point], what: str, path: str | Path) -> None:
    """Draw calibrators by their AP of frequent classes (x) and of rare ones (y), and the front of those that none beats
    in both.

    Args:
        points: the first is the detector without a calibrator.
        what: is measured, for the axes.
        path: of the picture; its suffix says which kind.
    """
    front = pareto_front(points)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 7), dpi=160)
        axes = figure.add_axes((0.08, 0.08, 0.62, 0.86))
        axes.grid(color=FAINT, linewidth=0.6)
        best = sorted((points[number] for number in front), key=lambda point: point.frequent)
        axes.plot([p.frequent for p in best], [p.rare for p in best], color=DUAL, linewidth=1.2, zorder=2)
        for number, point in enumerate(points):
            colour = INK if number == 0 else DUAL if number in front else BASE
            marker = 's' if number == 0 else 'D' if point.how == CHOSEN else 'o'
            axes.scatter(point.frequent, point.rare, 26, marker=marker, color=colour, linewidth=0, zorder=3)
        # The names stand beside the axes in the points' order from top to bottom: none covers another.
        order = sorted(range(len(points)), key=lambda number: points[number].rare)
        for place, number in enumerate(order):
            point = points[number]
            axes.annotate(
                f'{point.name} *' if point.how == CHOSEN else point.name,
                (point.frequent, point.rare), (1.03, (place + 0.5) / len(order)), textcoords='axes fraction',
                fontsize=6.5, color=DUAL if number in front else INK, va='center',
                arrowprops=dict(arrowstyle='-', color=FAINT, linewidth=0.5, shrinkA=0, shrinkB=2, relpos=(0, 0.5)),
            )  # fmt: skip
        axes.margins(0.04)
        axes.set_xlabel(f'{what} of frequent classes (%)')
        axes.set_ylabel(f'{what} of rare classes (%)')
        axes.set_title(EXPLANATION, fontsize=8)
        picture = BytesIO()
        figure.savefig(picture, format=Path(path).suffix[1:])
    with written_whole(path) as file:
        file.write(picture.getvalue())


def pareto_front(points: Sequence[Point]) -> list[int]:
    """The numbers of the points that no other one beats in both figures, or in one while it equals the other."""
    return [
        number
        for number, point in enumerate(points)
        if not any(
            other.rare >= point.rare
            and other.frequent >= point.frequent
            and (other.rare > point.rare or other.frequent > point.frequent)
            for other in points
        )
    ]

