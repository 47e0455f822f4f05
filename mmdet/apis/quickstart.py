"""The whole road on GlyphLT: generate, train, calibrate, test, report; what is finished is kept."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmengine import Config
from rich.console import Console

from mmdet.datasets.generation import generate_glyph_lt
from mmdet.engine import latest_checkpoint, load_config
from mmdet.engine.progress import ProgressDisplay
from mmdet.registry import CALIBRATORS

from .calibrate import RESULT, calibrate
from .quickstart_report import report
from .stages import Stage
from .test import test
from .train import train

_RESULTS = ('', '_per_class')


def quickstart(
    base_config: Path,
    calibration_config: Path,
    work_dir: Path,
    data_root: Path | None = None,
    seed: int = 0,
    console: Console | None = None,
) -> Path:
    """Walk the road; a finished stage is not done again, an interrupted one goes on where it was.

    Args:
        base_config: file of the base training; its `generation` holds the keywords of `generate_glyph_lt`.
        calibration_config: file of the calibration, which inherits the former.
        work_dir: everything but the data goes here.
        data_root: GlyphLT goes here; None is the config's.
        seed: of training and calibration; the data set is the same for all.
        console: what is said goes here; None is the terminal.

    Returns:
        `summary.json`, which holds every figure of the table, the APs of all classes, and the wall time of every stage.

    Raises:
        UserError: a disk, config or checkpoint that cannot be used; the message says which, and the mend.
    """
    console = console or Console()
    base = _config(base_config, work_dir / 'base', data_root, seed)
    calibration = _config(calibration_config, work_dir / 'calibrated', data_root, seed)
    data = Path(base.data_root)

    settings = CALIBRATORS.get(calibration.calibration.calibrator.type).compared_settings
    annotations = [Path(base.data_root, base[f'{split}_dataloader'].dataset.ann_file) for split in ('train', 'test')]
    calibrated = Path(calibration.work_dir) / RESULT
    tested = calibrated.with_name('test')
    generating = Stage(
        'generate', data, [str(base.generation)], emptied=False, has_product=lambda: _are_files(annotations)
    )
    training = Stage(
        'train',
        Path(base.work_dir),
        [base.pretty_text],
        [generating],
        has_product=lambda: latest_checkpoint(base.work_dir) is not None,
    )
    calibrating = Stage(
        'calibrate',
        Path(calibration.work_dir),
        [calibration.pretty_text],
        [training],
        has_product=lambda: _are_files([calibrated]),
    )
    testing = Stage(
        'test',
        tested,
        settings,
        [calibrating],
        has_product=lambda: _are_files(tested / f'{setting}{kind}.json' for setting in settings for kind in _RESULTS),
    )

    work = {
        generating: lambda: console.print(_generate(data, base.generation), highlight=False, soft_wrap=True),
        training: lambda: train(_resumed(base)),
        calibrating: lambda: calibrate(_resumed(calibration), latest_checkpoint(training.folder)),
        testing: lambda: test(calibration, calibrated, scores=settings),
    }
    try:
        for number, stage in enumerate(work, start=1):
            _announce(stage, f'{number}/{len(work)}', console)
            stage.run(work[stage])
    except KeyboardInterrupt:
        console.print('stopped; the same command goes on from here')
        raise
    return report(calibration, calibrated, list(work), settings, work_dir, console)


def _generate(data: Path, generation: Mapping[str, Any]) -> str:
    """Make the data set with a progress bar; returns its summary."""
    display = ProgressDisplay()
    display.begin('generate', generation['train_images'] + generation['val_images'])
    try:
        return generate_glyph_lt(data, **generation, on_image=lambda: display.advance('generate'))
    finally:
        display.close()


def _config(file: Path, work_dir: Path, data_root: Path | None, seed: int) -> Config:
    """One of the two configs, with the run's seed and folders in it."""
    config = load_config(file)
    config.work_dir = str(work_dir)
    config.randomness = dict(config.get('randomness', {}), seed=seed)
    if data_root is not None:
        _move_data(config, data_root)
    return config


def _move_data(config: Config, data_root: Path) -> None:
    """Let a config whose paths all lie below its `data_root` take its data from another folder."""
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if config[name] is not None:
            config[name].dataset.data_root = str(data_root)
    for name in ('val_evaluator', 'test_evaluator'):
        if config[name] is not None:
            config[name].ann_file = str(data_root / Path(config[name].ann_file).relative_to(config.data_root))
    config.data_root = str(data_root)


def _resumed(config: Config) -> Config:
    config.resume = latest_checkpoint(config.work_dir) is not None
    return config


def _are_files(paths: Iterable[Path]) -> bool:
    return all(path.is_file() for path in paths)


def _announce(stage: Stage, number: str, console: Console) -> None:
    state = ''
    if stage.is_finished:
        state = f', finished before in {stage.seconds:.0f} s'
    elif stage.starts_anew:
        state = ', its config or what it builds on has changed: starts anew'
    elif stage.is_known and stage.seconds:
        state = ', going on'
    console.print(f'[bold]{number} {stage.name}[/bold] in {stage.folder}{state}', highlight=False)
