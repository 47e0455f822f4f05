"""Figures of several score settings side by side, as the papers print them."""
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from rich.table import Table

KINDS = {'segm': 'mask', 'bbox': 'box'}
BY_FREQUENCY = ('APr', 'APc', 'APf')
POOLED = {'AP-pooled-all': 'AP', 'AP-pooled-r': 'APr', 'AP-pooled-c': 'APc', 'AP-pooled-f': 'APf'}


class Row(NamedTuple):
    """One line: what is measured ('mask', 'box'), under which setting, and its figures as text."""

    kind: str
    setting: str
    figures: tuple[str, ...]


class ComparisonTable(NamedTuple):
    """Lines of figures in per cent, one decimal; '-' where there is none."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def to_rich(self) -> Table:
        """For the terminal."""
        table = Table(header_style='bold', pad_edge=False)
        table.add_column('')
        table.add_column('scores')
        for column in self.columns:
            table.add_column(column, justify='right')
        for row, following in zip(self.rows, (*self.rows[1:], None), strict=True):
            is_last_of_kind = following is None or following.kind != row.kind
            style = 'bold' if _is_difference(row) else None
            table.add_row(row.kind, row.setting, *row.figures, style=style, end_section=is_last_of_kind)
        return table

    def to_markdown(self) -> str:
        """For a README."""
        header = ['', 'scores', *self.columns]
        lines = [header, ['---', '---', *['---:'] * len(self.columns)]]
        for row in self.rows:
            cells = [row.setting, *row.figures]
            lines.append([row.kind, *(f'**{cell}**' for cell in cells)] if _is_difference(row) else [row.kind, *cells])
        return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines) + '\n'


def comparison_table(
    results: Mapping[str, Mapping[str, float]], baseline: str = 'base', improved: str | None = None
) -> ComparisonTable:
    """A line per mask and box and setting, and for each the gain of `improved` over `baseline`.

    Where several metrics gave figures, the lines of all but the first have their metric's prefix. AP-pool's figures
    stand under AP, APr, APc and APf.

    Args:
        results: setting -> the figures that metrics' `evaluate` returned, in 0..1, with any prefix.
        baseline: the setting that differences are taken from.
        improved: the setting whose difference is shown; None is the last one. There is none where either is missing.

    Returns:
        Columns AP1, AP2, ... (as many as there are bins), bAP, APr, APc, APf, AP, of those that occur.
    """
    improved = improved or next(reversed(results))
    by_kind = _by_kind(results)
    names = {name for lines in by_kind.values() for figures in lines.values() for name in figures}
    bins = sorted(name for name in names if re.fullmatch(r'AP\d', name))
    columns = tuple(name for name in (*bins, 'bAP', *BY_FREQUENCY, 'AP') if name in names)
    rows = []
    for kind, figures_of in by_kind.items():
        lines = {
            setting: [figures.get(column, math.nan) for column in columns]
            for setting, figures in figures_of.items()
            if 'AP' in figures
        }
        rows += [Row(kind, setting, tuple(map(_per_cent, line))) for setting, line in lines.items()]
        if baseline in lines and improved in lines and improved != baseline:
            pairs = zip(lines[improved], lines[baseline], strict=True)
            gains = tuple(_gain(new, old) for new, old in pairs)
            rows.append(Row(kind, f'{improved} − {baseline}', gains))
    return ComparisonTable(columns, tuple(rows))


def _by_kind(results: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, dict[str, float]]]:
    """'mask', 'box', 'mask lvis_fixed', ... -> setting -> figures by their bare names, the first metric's first."""
    by_kind: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for setting, figures in results.items():
        for full_name, figure in figures.items():
            prefix, _, name = full_name.rpartition('/')
            iou_type, _, name = name.partition('_')
            if iou_type in KINDS:
                of_setting = by_kind.setdefault((prefix, iou_type), {}).setdefault(setting, {})
                of_setting[POOLED.get(name, name)] = figure
    prefixes = list(dict.fromkeys(prefix for prefix, _ in by_kind))
    return {
        kind if prefix == prefixes[0] else f'{kind} {prefix}': by_kind[prefix, iou_type]
        for prefix in prefixes
        for iou_type, kind in KINDS.items()
        if (prefix, iou_type) in by_kind
    }


def _is_known(figure: float) -> bool:
    """Neither NaN (a bin without classes) nor -1 (the official evaluators' word for it)."""
    return figure >= 0


def _per_cent(figure: float) -> str:
    return f'{100 * figure:.1f}' if _is_known(figure) else '-'


def _gain(new: float, old: float) -> str:
    return f'{100 * (new - old):+.1f}'.replace('-', '−') if _is_known(new) and _is_known(old) else '-'


def _is_difference(row: Row) -> bool:
    return '−' in row.setting
