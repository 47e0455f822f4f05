"""AP of every class against its number of training instances: what the long tail loses, and what calibration gains."""
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from mmdet.evaluation import average_precision_by_bin
from mmdet.utils.files import written_whole

BASE, DUAL = '#5f6b7a', '#e8590c'
GAIN, LOSS = '#2f9e44', '#e03131'
INK, FAINT = '#343a40', '#d5d9de'
STYLE = {
    'font.family': 'DejaVu Sans',
    'font.size': 9,
    'axes.edgecolor': '#868e96',
    'axes.spines.top': False,
    'axes.spines.right': False,
    'xtick.color': '#495057',
    'ytick.color': '#495057',
}


class _Classes(NamedTuple):
    """The classes that have training instances and ground truth: (C,) each, AP in per cent."""

    instances: np.ndarray
    base: np.ndarray
    dual: np.ndarray


def plot_ap_against_instances(
    per_class_base: Sequence[Mapping[str, Any]],
    per_class_dual: Sequence[Mapping[str, Any]],
    path: str | Path,
    iou_type: str = 'segm',
    bins: Sequence[int] = (1, 10, 100, 1000),
    names: tuple[str, str] = ('base', 'dual'),
) -> None:
    """Draws AP of each class under two settings, and below it each class's gain; horizontal bars are means of the bins.

    Args:
        per_class_base: a metric's `per_class` with training instances, or as read from its JSON file.
        per_class_dual: the same under the other setting, of the same classes in the same order.
        path: of the picture; its suffix says the format (`.png`, `.pdf`, `.svg`, ...).
        iou_type: `'segm'` or `'bbox'`.
        bins: ascending lower edges of the training-instance bins.
        names: of the two settings.

    Raises:
        ValueError: the two are not of the same classes.
        UserError: the file cannot be written.
    """
    classes = _paired(per_class_base, per_class_dual, f'{iou_type}_AP')
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 5.4), dpi=160, layout='constrained')
        upper, lower = figure.subplots(2, sharex=True, height_ratios=[2.4, 1])
        _draw_ap(upper, classes, names)
        _draw_gain(lower, classes)
        _draw_bins(upper, lower, classes, bins)
        kind = {'segm': 'Mask', 'bbox': 'Box'}[iou_type]
        upper.set_ylabel(f'{kind} AP of a class (%)')
        lower.set_ylabel('Gain (points)')
        lower.set_xlabel('Training instances of the class')
        lower.set_xscale('log')
        lower.set_xlim(*_x_limits(classes, bins))
        lower.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:,.0f}'))
        lower.xaxis.set_minor_formatter(NullFormatter())
        picture = BytesIO()
        figure.savefig(picture, format=Path(path).suffix[1:])
    with written_whole(path) as file:
        file.write(picture.getvalue())


def _paired(base: Sequence[Mapping[str, Any]], dual: Sequence[Mapping[str, Any]], key: str) -> _Classes:
    if [row['category_id'] for row in base] != [row['category_id'] for row in dual]:
        raise ValueError('the two settings are not of the same classes in the same order')
    instances = np.array([row['train_instances'] for row in base], dtype=float)
    ap = [100 * np.array([row[key] for row in rows], dtype=float) for rows in (base, dual)]
    usable = (instances > 0) & ~np.isnan(ap[0]) & ~np.isnan(ap[1])
    return _Classes(instances[usable], ap[0][usable], ap[1][usable])


def _draw_ap(axes: Axes, classes: _Classes, names: tuple[str, str]) -> None:
    x, weight = _spread(classes.instances), _weight(classes)
    size = 5 + 21 * weight
    colours = np.where(classes.dual >= classes.base, GAIN, LOSS)
    axes.vlines(x, classes.base, classes.dual, colors=colours, linewidth=0.5 + 0.5 * weight, alpha=0.45, zorder=2)
    axes.scatter(x, classes.base, size, facecolor='white', edgecolor=BASE, linewidth=0.9, label=names[0], zorder=3)
    axes.scatter(x, classes.dual, size, color=DUAL, linewidth=0, alpha=0.85, label=names[1], zorder=4)
    axes.plot([], [], color=INK, linewidth=2, label='mean of the bin')
    highest = max(1, classes.base.max(initial=0), classes.dual.max(initial=0))
    axes.set_ylim(-0.025 * highest, 1.18 * highest)
    axes.grid(axis='y', color=FAINT, linewidth=0.6)
    axes.legend(loc='upper left', ncols=3, handletextpad=0.4, borderaxespad=0.2, edgecolor='none', framealpha=0.9)


def _draw_gain(axes: Axes, classes: _Classes) -> None:
    gain = classes.dual - classes.base
    axes.axhline(0, color='#868e96', linewidth=0.8)
    axes.vlines(
        _spread(classes.instances),
        0,
        gain,
        colors=np.where(gain >= 0, GAIN, LOSS),
        linewidth=0.6 + 1.2 * _weight(classes),
        alpha=0.75,
    )
    axes.grid(axis='y', color=FAINT, linewidth=0.6)


def _draw_bins(upper: Axes, lower: Axes, classes: _Classes, bins: Sequence[int]) -> None:
    """Borders, means and names of the bins."""
    left, right = _x_limits(classes, bins)
    means = [average_precision_by_bin(ap, classes.instances, bins) for ap in (classes.base, classes.dual)]
    for number, (start, end) in enumerate(zip(bins, [*bins[1:], np.inf], strict=True), start=1):
        start, end = max(start, left), min(end, right)
        if start >= end:
            continue
        base, dual = (mean[f'AP{number}'] for mean in means)
        if np.isnan(base):
            continue
        centre = np.sqrt(start * end)
        if start > left:
            for axes in (upper, lower):
                axes.axvline(start, color='#adb5bd', linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        upper.annotate(
            f'AP{number}', (centre, 1), (0, 16), xycoords=('data', 'axes fraction'), textcoords='offset points',
            ha='center', weight='bold', color=INK,
        )  # fmt: skip
        upper.annotate(
            f'{base:.1f} → {dual:.1f}', (centre, 1), (0, 4), xycoords=('data', 'axes fraction'),
            textcoords='offset points', ha='center', color=INK,
        )  # fmt: skip
        upper.hlines([base, dual], start, end, colors=[BASE, DUAL], linewidth=2.2, alpha=0.9, zorder=5)
        lower.hlines(dual - base, start, end, colors=INK, linewidth=1.4, zorder=5)
        lower.annotate(
            f'{dual - base:+.1f}'.replace('-', '−'), (centre, 1), (0, -2), xycoords=('data', 'axes fraction'),
            textcoords='offset points', ha='center', va='top', color=INK, weight='bold',
        )  # fmt: skip
    highest = max(1, 1.35 * (classes.dual - classes.base).max(initial=0))
    lower.set_ylim(min(-1, 1.15 * (classes.dual - classes.base).min(initial=0)), highest)


def _x_limits(classes: _Classes, bins: Sequence[int]) -> tuple[float, float]:
    fewest, most = classes.instances.min(initial=bins[-1]), classes.instances.max(initial=bins[0])
    return 0.8 * min(fewest, bins[0]), 1.3 * most


def _weight(classes: _Classes) -> float:
    """1 for few classes, towards 0 for many: how heavy the marks of one may be."""
    return float(np.clip(100 / max(len(classes.instances), 1), 0, 1))


def _spread(instances: np.ndarray) -> np.ndarray:
    """Classes with equally many instances next to each other, all of them before the following number."""
    spread = instances.astype(float)
    for value in np.unique(instances):
        same = np.flatnonzero(instances == value)
        spread[same] += np.linspace(0, 0.75, len(same), endpoint=False)
    return spread
