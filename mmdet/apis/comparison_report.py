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
from mmdet.evaluation.bootstrap import bootstrap
from mmdet.evaluation.calibration_error import calibration_error
from mmdet.evaluation.class_groups import ClassGroups
from mmdet.evaluation.match_table import MatchTable
from mmdet.utils.files import written_whole
from mmdet.visualization.pareto_plot import Point, plot_pareto_front

KINDS = {'segm': 'mask', 'bbox': 'box'}
TABLE, FIGURES, SUMMARY, PLOT, WINNER = 'table.md', 'figures.csv', 'comparison.json', 'pareto.png', 'winner.py'
BY_BIN_AND_FREQUENCY = ('AP1', 'AP2', 'AP3', 'AP4', 'bAP', 'APr', 'APc', 'APf', 'AP')
IN_INTERVALS = ('AP', 'APr', 'APc', 'APf')


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
    """A line and its matched detections.

    Attributes:
        contender: the line.
        tables: for each seed a table for each overlap (`'segm'`, `'bbox'`), and `'fixed'` with AP-fixed's limits.
        chosen: for each seed what scores the halves: (entry, setting, values), once where it is the same.
    """

    contender: Contender
    tables: Mapping[int | None, Mapping[str, MatchTable]]
    chosen: Mapping[int | None, Sequence[tuple[str, str, Mapping[str, Any]]]]


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
        judged: the lines; the first is the detector itself.
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
    judged: Sequence[Judged]
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
        intervals: name -> (low, high), of the first seed; `AP - base` and so on are of differences from the detector.
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
    files = {
        TABLE: _markdown(lines, comparison).encode(),
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


def console_table(folder: Path) -> str:
    """The table of a comparison that was reported, as Markdown."""
    return (folder / TABLE).read_text()


def _lines(comparison: Compared) -> list[Line]:
    return [_line(judged, comparison) for judged in comparison.judged]


def _line(judged: Judged, comparison: Compared) -> Line:
    kind, base = _main_overlap(comparison), comparison.judged[0].tables[None]
    figures: dict[str, list[float]] = {}
    for tables in judged.tables.values():
        for name, figure in _figures(tables, comparison.groups).items():
            figures.setdefault(name, []).append(figure)
    first = next(iter(judged.tables.values()))
    intervals = _intervals(bootstrap(first[kind], comparison.groups), '')
    if first[kind] is not base[kind]:
        intervals |= _intervals(bootstrap(first[kind], comparison.groups, baseline=base[kind]), ' - base')
    contender = judged.contender
    return Line(
        contender.entry,
        contender.setting,
        contender.how,
        _chosen_in_words(judged) if contender.how == 'chosen' else '',
        tuple(judged.tables),
        figures,
        intervals,
        contender.parameters,
        contender.seconds,
    )


def _figures(tables: Mapping[str, MatchTable], groups: ClassGroups) -> dict[str, float]:
    """All figures of one seed, in per cent."""
    figures = {}
    for overlap, table in tables.items():
        if overlap != 'fixed':
            means = groups.means(table.average_precision())
            figures |= {f'{overlap}_{name}': 100 * float(mean) for name, mean in means.items()}
    fixed = groups.means(tables['fixed'].average_precision())
    figures |= {f'{name.replace("AP", "APfixed")}': 100 * float(mean) for name, mean in fixed.items()}
    pooled = tables['fixed'].pooled_average_precision()
    figures |= {f'APpool{"" if pool == "all" else pool}': 100 * figure for pool, figure in pooled.items()}
    usual = tables['segm' if 'segm' in tables else 'bbox']
    figures |= {name: 100 * error.error for name, error in calibration_error(usual, groups).items()}
    return figures


def _intervals(intervals: Mapping[str, tuple[float, float]], suffix: str) -> dict[str, tuple[float, float]]:
    return {
        f'{name}{suffix}': (100 * intervals[name][0], 100 * intervals[name][1])
        for name in IN_INTERVALS
        if name in intervals
    }


def _chosen_in_words(judged: Judged) -> str:
    """What was chosen, seed by seed, on each half."""
    with_entry = judged.contender.entry not in {entry for ways in judged.chosen.values() for entry, *_ in ways}
    seeds = []
    for ways in judged.chosen.values():
        halves = []
        for entry, setting, values in ways:
            words = [f'{name} {value:g}' for name, value in values.items()]
            name = [f'{entry}{"" if setting in ("calibrated", "base") else f" ({setting})"}'] if with_entry else []
            halves.append(' '.join([*name, ', '.join(words)]).strip())
        seeds.append(' | '.join(halves))
    return '; '.join(seeds)


def _markdown(lines: Sequence[Line], comparison: Compared) -> str:
    kind = _main_overlap(comparison)
    columns = [name for name in BY_BIN_AND_FREQUENCY if f'{kind}_{name}' in lines[0].figures]
    others = ('APfixed', 'APpool', 'ECE')
    header = ['calibrator', '', *columns, 'gain, 95 %', 'AP-fixed', 'AP-pool', 'ECE', 'trained', 'seconds', 'chosen']
    rows = [header, ['---', '---', *['---:'] * len(columns), ':---:', *['---:'] * 5, '---']]
    for line in lines:
        low, high = line.intervals.get('AP - base', (0.0, 0.0))
        rows.append(
            [
                line.name,
                line.how,
                *(_mean(line.figures[f'{kind}_{name}']) for name in columns),
                f'{low:+.1f} to {high:+.1f}' if line is not lines[0] else '',
                *(_mean(line.figures[name]) for name in others),
                '' if line.parameters is None else f'{line.parameters:,}',
                '' if line.seconds is None else f'{line.seconds:.0f}',
                line.chosen,
            ]
        )
    table = '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)
    seeds = ', '.join(map(str, comparison.seeds))
    return (
        f"{table}\n\n{KINDS[kind].capitalize()} AP under LVIS's protocol, any score, 300 an image; mean and deviation "
        f'over seeds {seeds} of what is trained. Chosen on {comparison.chosen_on}.\n'
    )


def _mean(figures: Sequence[float]) -> str:
    """With its deviation over the seeds, where there are several."""
    mean = float(np.mean(figures))
    if np.isnan(mean):
        return '-'
    return f'{mean:.1f}' if len(figures) == 1 else f'{mean:.1f} ± {float(np.std(figures, ddof=1)):.1f}'


def _csv(lines: Sequence[Line]) -> str:
    names = list(lines[0].figures)
    known = [f'{name}{end}' for name in (*IN_INTERVALS, *(f'{name} - base' for name in IN_INTERVALS)) for end in _ENDS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['calibrator', 'scores', 'how', 'seed', 'chosen', 'parameters', 'seconds', *names, *known])
    for line in lines:
        for place, seed in enumerate(line.seeds):
            intervals = {
                f'{name}{end}': value
                for name, ends in line.intervals.items()
                for end, value in zip(_ENDS, ends, strict=True)
            }
            writer.writerow(
                [
                    line.entry,
                    line.setting,
                    line.how,
                    '' if seed is None else seed,
                    line.chosen.split('; ')[place] if line.chosen else '',
                    line.parameters,
                    None if line.seconds is None else round(line.seconds, 1),
                    *(f'{line.figures[name][place]:.4f}' for name in names),
                    *(f'{intervals[name]:.4f}' if place == 0 and name in intervals else '' for name in known),
                ]
            )
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
    replaced = dict(_delete_=True) if 'calibration' in comparison.config else {}
    calibration = Config(dict(calibration=replaced | dict(winner.calibration))).pretty_text
    return (
        f'# {winner.entry}, scores `{winner.setting}`: the best of {comparison.num_candidates} ways to score.\n'
        f'_base_ = {str(base)!r}\n\n{calibration}'
    )


def _main_overlap(comparison: Compared) -> str:
    return 'segm' if 'segm' in next(iter(comparison.judged[0].tables.values())) else 'bbox'
