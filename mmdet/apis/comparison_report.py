"""What a comparison of calibrators has come to: one line of figures for each, as a table, files and a picture."""
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from mmengine.config import Config

import mmdet
from mmdet.engine import load_config
from mmdet.evaluation.class_groups import ClassGroups
from mmdet.evaluation.match_table import MatchTable
from mmdet.evaluation.reliability import calibration_error
from mmdet.evaluation.resampling import resampled_images
from mmdet.utils.files import written_whole
from mmdet.visualization.pareto_plot import Point, plot_pareto_front

KINDS = {'segm': 'mask', 'bbox': 'box'}
TABLE, CELLS, FIGURES, SUMMARY = 'table.md', 'table.csv', 'figures.csv', 'comparison.json'
PLOT, WINNER = 'pareto.png', 'winner.py'
BY_BIN_AND_FREQUENCY = ('AP1', 'AP2', 'AP3', 'AP4', 'bAP', 'APr', 'APc', 'APf', 'AP')
OTHER_COLUMNS = {'APfixed': 'AP-fixed', 'APpool': 'AP-pool', 'ECE': 'ECE'}
IN_INTERVALS = ('AP', 'APr', 'APc', 'APf')
FIXED = 'fixed'
REPLICATES = 200


class Contender(NamedTuple):
    """One line of the table.

    Attributes:
        entry: the calibrator's name.
        setting: its score setting.
        how: whether what there is to choose is as published, or chosen.
        by_seed: for each seed the numbers of the two candidates that score each half of the images.
        parameters: how many numbers were trained; None where that is not one calibrator's.
        seconds: of the training.
    """

    entry: str
    setting: str
    how: str
    by_seed: Mapping[int | None, tuple[int, int]]
    parameters: int | None
    seconds: float | None


class Judged(NamedTuple):
    """A way to score, and its matched detections.

    Attributes:
        entry: the calibrator's name.
        setting: its score setting.
        values: what is chosen.
        tables: one for each overlap (`'segm'`, `'bbox'`), and `FIXED` with AP-fixed's limits.
    """

    entry: str
    setting: str
    values: Mapping[str, Any]
    tables: Mapping[str, MatchTable]


class Winner(NamedTuple):
    """What came out best: a calibrator's name and score setting, and a config's `calibration` that makes it."""

    entry: str
    setting: str
    calibration: Mapping[str, Any]


class Compared(NamedTuple):
    """A comparison.

    Attributes:
        config: of the detector.
        checkpoint: of the detector.
        base_sha256: fingerprint of its weights.
        contenders: the lines; the first is the detector itself.
        judged: by its number every way to score that the lines need.
        folds: (I,) which half of the images each one is in; None where choices were made on other data.
        groups: of the classes.
        seeds: of the trainings.
        chosen_on: what choices were made on, in words.
        detections: of an image that AP-fixed and AP-pool look at.
        num_candidates: how many ways to score there were to choose from.
        winner: None where nothing is better than the detector itself.
    """

    config: Config
    checkpoint: str
    base_sha256: str
    contenders: Sequence[Contender]
    judged: Mapping[int, Judged]
    folds: np.ndarray | None
    groups: ClassGroups
    seeds: Sequence[int]
    chosen_on: str
    detections: int
    num_candidates: int
    winner: Winner | None


class Line(NamedTuple):
    """A contender's figures, in per cent.

    Attributes:
        entry, setting, how: see `Contender`.
        chosen: what was chosen, in words.
        seeds: of the trainings.
        figures: name -> for each seed.
        intervals: name -> (low, high) of the gain over the detector, of the first seed.
        parameters, seconds: see `Contender`.
    """

    entry: str
    setting: str
    how: str
    chosen: str
    seeds: Sequence[int | None]
    figures: Mapping[str, Sequence[float]]
    intervals: Mapping[str, tuple[float, float]]
    parameters: int | None
    seconds: float | None

    @property
    def name(self) -> str:
        """The entry, with its setting where that is not its only one."""
        return self.entry if self.setting in ('', 'base', 'calibrated') else f'{self.entry}, {self.setting}'


def report(comparison: Compared, folder: Path) -> None:
    """Write the table, every figure, the picture and the winner's config.

    Args:
        comparison: what is reported.
        folder: what is written goes here.
    """
    lines = _lines(comparison)
    rows = _rows(lines, comparison)
    files = {
        TABLE: _markdown(rows, comparison).encode(),
        CELLS: _csv_of(rows).encode(),
        FIGURES: _csv(lines).encode(),
        SUMMARY: json.dumps(_summary(lines, comparison), indent=1).encode(),
    }
    if comparison.winner is not None:
        files[WINNER] = _winner_config(comparison).encode()
    for name, contents in files.items():
        with written_whole(folder / name) as file:
            file.write(contents)
    kind = _main_overlap(comparison)
    points = [
        Point(line.name, line.how, *(float(np.mean(line.figures[f'{kind}_{name}'])) for name in ('APr', 'APf')))
        for line in lines
    ]
    plot_pareto_front(points, f'{KINDS[kind]} AP', folder / PLOT)


def _lines(comparison: Compared) -> list[Line]:
    figures_of = _Figures(comparison)
    return [_line(contender, comparison, figures_of) for contender in comparison.contenders]


def _line(contender: Contender, comparison: Compared, figures_of: '_Figures') -> Line:
    pairs = list(contender.by_seed.values())
    by_seed = [figures_of.pair(*pair) for pair in pairs]
    return Line(
        contender.entry,
        contender.setting,
        contender.how,
        _chosen_in_words(contender, comparison) if contender.how == 'chosen' else '',
        tuple(contender.by_seed),
        {name: [figures[name] for figures in by_seed] for name in by_seed[0]},
        figures_of.intervals(*pairs[0]),
        contender.parameters,
        contender.seconds,
    )


class _Figures:
    """Figures, in per cent, of pairs of ways to score: one for each half of the images."""

    def __init__(self, comparison: Compared):
        self._judged = comparison.judged
        self._groups = comparison.groups
        self._folds = comparison.folds
        self._kind = _main_overlap(comparison)
        self._known: dict[tuple[int, int | None], dict[str, float]] = {}
        num_images = len(self._judged[0].tables[self._kind].counts.image_ids)
        self._replicates = resampled_images(num_images, REPLICATES, seed=0)
        self._resampled: dict[tuple[int, int | None], dict[str, np.ndarray]] = {}

    def pair(self, first: int, second: int) -> dict[str, float]:
        """Of the halves scored by two ways; a way's own on all images where they are the same."""
        whole = self._of(first, None)
        if first == second:
            return whole
        base, gains = self._of(0, None), []
        for half, number in enumerate((first, second)):
            gains.append({name: figure - self._of(0, half)[name] for name, figure in self._of(number, half).items()})
        return {name: base[name] + (gains[0][name] + gains[1][name]) / 2 for name in whole}

    def intervals(self, first: int, second: int) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals over images of the gain over the detector, paired: the same images of both."""
        if first == second:
            values = self._gains(first, None)
        else:
            halves = [self._gains(number, half) for half, number in enumerate((first, second))]
            values = {name: (halves[0][name] + halves[1][name]) / 2 for name in halves[0]}
        return {
            name: tuple(np.nanquantile(values[name], (0.025, 0.975)).tolist()) if first or second else (0.0, 0.0)
            for name in IN_INTERVALS
            if not np.isnan(values[name]).all()
        }

    def _of(self, number: int, half: int | None) -> dict[str, float]:
        """Of one way on a half of the images, or on all."""
        if (number, half) not in self._known:
            weights = None if half is None else (self._folds == half).astype(np.int64)
            self._known[number, half] = _figures(self._judged[number].tables, self._groups, weights)
        return self._known[number, half]

    def _gains(self, number: int, half: int | None) -> dict[str, np.ndarray]:
        return {
            name: values - self._in_replicates(0, half)[name]
            for name, values in self._in_replicates(number, half).items()
        }

    def _in_replicates(self, number: int, half: int | None) -> dict[str, np.ndarray]:
        """Of one way in every replicate, (W,) each."""
        if (number, half) not in self._resampled:
            weights = self._replicates if half is None else self._replicates * (self._folds == half)
            means = self._groups.means(self._judged[number].tables[self._kind].average_precision(weights))
            self._resampled[number, half] = {name: 100 * means[name] for name in IN_INTERVALS}
        return self._resampled[number, half]


def _figures(
    tables: Mapping[str, MatchTable], groups: ClassGroups, weights: np.ndarray | None
) -> dict[str, float]:
    """All figures of one way to score, in per cent; ECE on all images, whatever their weights."""
    figures = {}
    for overlap, table in tables.items():
        if overlap != FIXED:
            means = groups.means(table.average_precision(weights))
            figures |= {f'{overlap}_{name}': 100 * float(mean) for name, mean in means.items()}
    fixed = groups.means(tables[FIXED].average_precision(weights))
    figures |= {f'{name.replace("AP", "APfixed")}': 100 * float(mean) for name, mean in fixed.items()}
    pooled = tables[FIXED].pooled_average_precision(weights)
    figures |= {f'APpool{"" if pool == "all" else pool}': 100 * figure for pool, figure in pooled.items()}
    usual = tables['segm' if 'segm' in tables else 'bbox']
    figures |= {name: 100 * error.error for name, error in calibration_error(usual, groups).items()}
    return figures


def _chosen_in_words(contender: Contender, comparison: Compared) -> str:
    """What was chosen, seed by seed, for each half."""
    seeds = []
    for pair in contender.by_seed.values():
        halves = []
        for number in dict.fromkeys(pair):
            entry, setting, values, _ = comparison.judged[number]
            words = ', '.join(f'{name} {value:g}' for name, value in values.items())
            if entry != contender.entry:
                words = f'{entry}{"" if setting in ("calibrated", "base") else f" ({setting})"} {words}'
            halves.append(words.strip())
        seeds.append(' / '.join(halves))
    return '; '.join(dict.fromkeys(seeds)) if len(set(seeds)) == 1 else '; '.join(seeds)


def _rows(lines: Sequence[Line], comparison: Compared) -> list[list[str]]:
    """The table's cells; the first row names the columns."""
    kind = _main_overlap(comparison)
    columns = [name for name in BY_BIN_AND_FREQUENCY if f'{kind}_{name}' in lines[0].figures]
    rows = [['calibrator', '', *columns, 'gain, 95 %', *OTHER_COLUMNS.values(), 'trained', 'seconds', 'chosen']]
    for line in lines:
        low, high = line.intervals['AP']
        rows.append(
            [
                line.name,
                line.how,
                *(_mean(line.figures[f'{kind}_{name}']) for name in columns),
                f'{low:+.1f} to {high:+.1f}' if line is not lines[0] else '',
                *(_mean(line.figures[name]) for name in OTHER_COLUMNS),
                '' if line.parameters is None else f'{line.parameters:,}',
                '' if line.seconds is None else f'{line.seconds:.0f}',
                line.chosen,
            ]
        )
    return rows


def _markdown(rows: Sequence[Sequence[str]], comparison: Compared) -> str:
    first, *others = rows
    rule = ['---' if name in ('calibrator', '', 'chosen') else '---:' for name in first]
    table = '\n'.join('| ' + ' | '.join(row) + ' |' for row in (first, rule, *others))
    kind = KINDS[_main_overlap(comparison)].capitalize()
    seeds = ', '.join(map(str, comparison.seeds))
    return (
        f"{table}\n\n{kind} AP under LVIS's protocol, any score, 300 an image; mean and deviation over seeds {seeds} "
        f'of what is trained. Chosen on {comparison.chosen_on}.\n'
    )


def _mean(figures: Sequence[float]) -> str:
    """With its deviation over the seeds, where there are several."""
    mean = float(np.mean(figures))
    if np.isnan(mean):
        return '-'
    return f'{mean:.1f}' if len(figures) == 1 else f'{mean:.1f} ± {float(np.std(figures, ddof=1)):.1f}'


def _csv(lines: Sequence[Line]) -> str:
    names = list(lines[0].figures)
    known = [f'{name} gain{end}' for name in IN_INTERVALS for end in _ENDS]
    rows = [['calibrator', 'scores', 'how', 'seed', 'chosen', 'parameters', 'seconds', *names, *known]]
    for line in lines:
        for place, seed in enumerate(line.seeds):
            intervals = {
                f'{name} gain{end}': value
                for name, ends in line.intervals.items()
                for end, value in zip(_ENDS, ends, strict=True)
            }
            rows.append(
                [
                    line.entry,
                    line.setting,
                    line.how,
                    '' if seed is None else seed,
                    line.chosen,
                    line.parameters,
                    None if line.seconds is None else round(line.seconds, 1),
                    *(f'{line.figures[name][place]:.4f}' for name in names),
                    *(f'{intervals[name]:.4f}' if place == 0 and name in intervals else '' for name in known),
                ]
            )
    return _csv_of(rows)


def _csv_of(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue()


_ENDS = (' from', ' to')


def _summary(lines: Sequence[Line], comparison: Compared) -> dict[str, Any]:
    return dict(
        unit='per cent',
        config=comparison.config.filename,
        checkpoint=comparison.checkpoint,
        base_sha256=comparison.base_sha256,
        protocol='LVIS: any score, 300 detections an image',
        detections_for_fixed_and_pool=comparison.detections,
        chosen_on=comparison.chosen_on,
        num_candidates=comparison.num_candidates,
        seeds=list(comparison.seeds),
        lines=[
            line._asdict() | dict(figures={name: _known(values) for name, values in line.figures.items()})
            for line in lines
        ],
        winner=None if comparison.winner is None else dict(comparison.winner._asdict()),
        versions=dict(simcal=mmdet.__version__, torch=torch.__version__, torchvision=torchvision.__version__),
        threads=torch.get_num_threads(),
    )


def _known(values: Sequence[float]) -> list[float | None]:
    """JSON knows no NaN."""
    return [None if np.isnan(value) else value for value in values]


def _winner_config(comparison: Compared) -> str:
    winner, base = comparison.winner, Path(comparison.config.filename).resolve()
    # What the config has itself is replaced, not added to.
    replaced = dict(_delete_=True) if 'calibration' in load_config(base) else {}
    calibration = Config(dict(calibration=replaced | dict(winner.calibration))).pretty_text
    return (
        f'# {winner.entry}, scores `{winner.setting}`: the best of {comparison.num_candidates} ways to score.\n'
        f'_base_ = {str(base)!r}\n\n{calibration}'
    )


def _main_overlap(comparison: Compared) -> str:
    return 'segm' if 'segm' in comparison.judged[0].tables else 'bbox'
