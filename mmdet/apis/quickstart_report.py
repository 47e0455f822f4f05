"""What a quickstart has come to: a table, a plot, a sheet of pictures, and every figure in one file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
from mmengine import Config
from PIL import Image
from rich.console import Console

import mmdet
from mmdet.registry import DATASETS
from mmdet.utils.files import written_whole
from mmdet.visualization import comparison_table, contact_sheet, draw_detections, plot_ap_against_instances

from .inference import inference_detector, init_detector
from .stages import Stage

SUMMARY, TABLE, PLOT, SHEET = 'summary.json', 'table.md', 'plot.png', 'sheet.jpg'
KINDS = {'mask': 'segm', 'box': 'bbox'}
SHEET_IMAGES = 8
SHEET_SCORE = 0.5


def report(
    config: Config,
    checkpoint: Path,
    stages: Sequence[Stage],
    settings: Sequence[str],
    work_dir: Path,
    console: Console,
) -> Path:
    """Write the table, the plot, the sheet and the summary of a finished quickstart, and say what came out.

    Args:
        config: the calibration's.
        checkpoint: the calibrated detector.
        stages: all of the run's; the last is the test, in whose folder the figures are.
        settings: the score settings tested, from the detector's own to the calibrator's default.
        work_dir: what is written goes here.
        console: for the table and the places.

    Returns:
        The summary's path.
    """
    tested = stages[-1].folder
    figures = {setting: _read(tested / f'{setting}.json') for setting in settings}
    classes = {setting: _read(tested / f'{setting}_per_class.json') for setting in settings}
    table = comparison_table({setting: _with_nan(of_setting) for setting, of_setting in figures.items()})
    summary = dict(
        unit='per cent',
        seed=config.randomness.seed,
        table=_table(figures, table.columns),
        figures={setting: _in_per_cent(of_setting) for setting, of_setting in figures.items()},
        classes=_by_class(classes),
        seconds={stage.name: round(stage.seconds, 1) for stage in stages},
        versions=dict(simcal=mmdet.__version__, torch=torch.__version__, torchvision=torchvision.__version__),
        threads=torch.get_num_threads(),
    )
    files = {name: work_dir / name for name in (TABLE, PLOT, SHEET, SUMMARY)}
    with written_whole(files[TABLE]) as file:
        file.write(table.to_markdown().encode())
    shown = settings[0], settings[-1]
    plot_ap_against_instances(*(classes[setting] for setting in shown), files[PLOT], names=shown)
    sheet = Image.fromarray(_sheet(config, checkpoint, classes[settings[0]], shown))
    with written_whole(files[SHEET]) as file:
        sheet.save(file, 'jpeg', quality=80)
    with written_whole(files[SUMMARY]) as file:
        file.write(json.dumps(summary, indent=1).encode())
    _tell(table.to_rich(), stages, files, checkpoint, console)
    return files[SUMMARY]


def _table(figures: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """The table, not rounded, with the gain of the last setting: {kind: {setting: {column: per cent}}}."""
    base, *_, last = figures
    rows = {kind: {} for kind in KINDS}
    for setting, of_setting in figures.items():
        in_per_cent = _in_per_cent(of_setting)
        for kind, iou_type in KINDS.items():
            rows[kind][setting] = {column: in_per_cent[f'{iou_type}_{column}'] for column in columns}
    for of_kind in rows.values():
        pairs = {column: (of_kind[last][column], of_kind[base][column]) for column in columns}
        gains = {column: None if None in pair else pair[0] - pair[1] for column, pair in pairs.items()}
        of_kind[f'{last} - {base}'] = gains
    return rows


def _by_class(classes: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """One record for each class: who it is, how often it occurs, and its AP under every setting, per cent."""
    records = []
    for of_class in zip(*classes.values(), strict=True):
        known = {key: value for key, value in of_class[0].items() if not key.endswith('_AP')}
        for kind, iou_type in KINDS.items():
            by_setting = {setting: each[f'{iou_type}_AP'] for setting, each in zip(classes, of_class, strict=True)}
            known[kind] = _in_per_cent(by_setting)
        records.append(known)
    return records


def _sheet(
    config: Config, checkpoint: Path, classes: Sequence[Mapping[str, Any]], settings: Sequence[str]
) -> np.ndarray:
    """The first test images with an object of a rare class, as detected under each setting."""
    dataset = DATASETS.build(config.test_dataloader.dataset)
    rare = {label for label, known in enumerate(classes) if known['frequency'] == 'r'}
    chosen = [i for i in range(len(dataset)) if rare & set(dataset.get_cat_ids(i))][:SHEET_IMAGES]
    paths = [dataset.get_data_info(i)['img_path'] for i in chosen]
    detector = init_detector(config, checkpoint, scores=settings)
    rows = []
    for path, sample in zip(paths, inference_detector(detector, paths), strict=True):
        image = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
        detections = [sample.get(f'pred_instances_{setting}') for setting in settings]
        names = dataset.metainfo['classes']
        rows.append([draw_detections(image, instances, names, SHEET_SCORE) for instances in detections])
    return contact_sheet(rows, settings)


def _tell(table: Any, stages: Sequence[Stage], files: Mapping[str, Path], checkpoint: Path, console: Console) -> None:
    console.print(table)
    times = ', '.join(f'{stage.name} {stage.seconds:.0f} s' for stage in stages)
    console.print(f'{times}; together {sum(stage.seconds for stage in stages) / 60:.1f} min', highlight=False)
    places = {'data': stages[0].folder, 'calibrated detector': checkpoint, 'table': files[TABLE], 'plot': files[PLOT]}
    places |= {'pictures': files[SHEET], 'every figure': files[SUMMARY]}
    for what, path in places.items():
        console.print(f'{what:20}{path}', highlight=False, soft_wrap=True)


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _with_nan(figures: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float('nan') if figure is None else figure for name, figure in figures.items()}


def _in_per_cent(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    """From 0..1, without the evaluator's prefix; None where there is none (-1 in the official evaluators' words)."""
    return {
        name.rpartition('/')[2]: None if figure is None or figure < 0 else 100 * figure
        for name, figure in figures.items()
    }
