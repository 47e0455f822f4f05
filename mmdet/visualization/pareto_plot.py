"""Rare classes against frequent ones: which calibrators give most of both."""
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mmdet.utils.files import written_whole

from .ap_plot import BASE, DUAL, FAINT, INK, STYLE


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
        figure = Figure(figsize=(8, 6), dpi=160, layout='constrained')
        axes = figure.subplots()
        axes.grid(color=FAINT, linewidth=0.6)
        best = sorted((points[number] for number in front), key=lambda point: point.frequent)
        axes.plot([p.frequent for p in best], [p.rare for p in best], color=DUAL, linewidth=1.2, zorder=2)
        for number, point in enumerate(points):
            colour = INK if number == 0 else DUAL if number in front else BASE
            marker = 's' if number == 0 else 'o' if point.how == 'published' else 'D'
            axes.scatter(point.frequent, point.rare, 26, marker=marker, color=colour, linewidth=0, zorder=3)
        for number, (x, y) in enumerate(_apart(points)):
            point = points[number]
            axes.annotate(
                point.name if point.how != 'chosen' else f'{point.name} *', (point.frequent, point.rare), (x, y),
                textcoords='data', fontsize=6.5, color=DUAL if number in front else INK, va='center',
                arrowprops=dict(arrowstyle='-', color=FAINT, linewidth=0.6, shrinkA=0, shrinkB=2),
            )  # fmt: skip
        axes.margins(x=0.16, y=0.08)
        axes.set_xlabel(f'{what} of frequent classes (%)')
        axes.set_ylabel(f'{what} of rare classes (%)')
        axes.set_title('Square: the detector itself. * chosen without test labels. Line: none is better', fontsize=8)
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


def _apart(points: Sequence[Point]) -> np.ndarray:
    """(N, 2) where the names go: right of their points, moved up or down until none covers another."""
    rare, frequent = (np.array([getattr(point, name) for point in points]) for name in ('rare', 'frequent'))
    height, width = max(np.ptp(rare), 1e-6) / 34, max(np.ptp(frequent), 1e-6)
    places = np.stack([frequent + 0.015 * width, rare], axis=1)
    order = np.argsort(rare, kind='stable')
    for place, number in enumerate(order):
        near = [other for other in order[:place] if abs(places[other, 0] - places[number, 0]) < 0.25 * width]
        if near:
            places[number, 1] = max(places[number, 1], places[near, 1].max() + height)
    return places
