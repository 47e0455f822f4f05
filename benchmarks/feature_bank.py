"""Calibration of a trained base without a feature bank, with a new one, and with one that exists: time, memory, AP.

    python benchmarks/feature_bank.py BASE.pth [--config configs/quickstart/calibrate.py] [--seeds 0 1 2] [--test]
        [--steps 400] [--work-dir work_dirs/feature_bank] [--cfg-options calibration.feature_bank.draws=4]

Each calibration runs in a process of its own, with the same number of steps; its time is that of `apis.calibrate`, from
building the data set to the calibrated checkpoint. Processor time is that of the process and its loader workers; on a
machine that does other work too, it is the one to compare.
"""
import argparse
import resource
import shutil
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from common import machine, print_table
from mmengine.config import DictAction

from mmdet import apis
from mmdet.engine import fingerprint, load_config, read_checkpoint

RUNS = ('none', 'new', 'existing')
FIGURES = ('lvis/segm_AP', 'lvis/segm_APr', 'lvis/bbox_AP', 'lvis/bbox_APr')


class Cost(NamedTuple):
    """Of one calibration: seconds on the clock and of the processor, peak megabytes, the bank's megabytes."""

    seconds: float
    processor: float
    memory: float
    bank: float


def main() -> None:
    args = parse_arguments()
    print(machine(), flush=True)
    costs = {run: [] for run in RUNS}
    figures = {'none': [], 'new': []}
    for seed in args.seeds:
        shutil.rmtree(args.work_dir / f'seed_{seed}', ignore_errors=True)
        for run in RUNS:
            costs[run].append(in_a_process(calibrate, args, seed, run))
            if args.test and run != 'existing':
                figures[run].append(in_a_process(test, args, seed, run))
        print(f'\nseed {seed}')
        print_table(*table_of_costs({run: costs[run][-1] for run in RUNS}))
        new, existing = (calibrated(args, seed, run) for run in ('new', 'existing'))
        print('the existing bank and the new one give', 'the same' if new == existing else 'DIFFERENT', 'weights')
    print('\nmedians of all seeds')
    print_table(*table_of_costs({run: Cost(*map(statistics.median, zip(*costs[run], strict=True))) for run in RUNS}))
    if args.test:
        print('\ndual AP and APr, per cent')
        print_table(*table_of_figures(args.seeds, figures))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('base', type=Path, help='checkpoint of the trained base')
    parser.add_argument('--config', type=Path, default=Path('configs/quickstart/calibrate.py'))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--steps', type=int, help="instead of the config's")
    parser.add_argument('--test', action='store_true', help='also test every calibrated detector')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/feature_bank'))
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    return parser.parse_args()


def in_a_process(function, *arguments):
    """What `function(*arguments)` returns in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context('fork')) as process:
        return process.submit(function, *arguments).result()


def config_of(args: argparse.Namespace, seed: int, run: str):
    options = dict(args.cfg_options)
    if args.steps:
        options['calibration.max_steps'] = args.steps
    if run == 'none':
        options = {key: value for key, value in options.items() if 'feature_bank' not in key}
    else:
        options['calibration.feature_bank.dir'] = str(args.work_dir / f'seed_{seed}/bank')
    config = load_config(args.config, options)
    config.work_dir = str(args.work_dir / f'seed_{seed}/{run}')
    config.randomness = dict(seed=seed)
    return config


def calibrate(args: argparse.Namespace, seed: int, run: str) -> Cost:
    config = config_of(args, seed, run)
    start, before = time.perf_counter(), processor_seconds()
    apis.calibrate(config, args.base)
    seconds, processor = time.perf_counter() - start, processor_seconds() - before
    segments = (args.work_dir / f'seed_{seed}/bank').glob('*.segment') if run != 'none' else ()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Cost(seconds, processor, memory, sum(file.stat().st_size for file in segments) / 1e6)


def calibrated(args: argparse.Namespace, seed: int, run: str) -> str:
    """Fingerprint of what a calibration has made."""
    path = args.work_dir / f'seed_{seed}/{run}/calibrated.pth'
    return fingerprint(read_checkpoint(path)['state_dict'])


def processor_seconds() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def test(args: argparse.Namespace, seed: int, run: str) -> dict[str, float]:
    config = config_of(args, seed, run)
    return apis.test(config, Path(config.work_dir) / 'calibrated.pth', scores=['dual'])['dual']


def table_of_costs(costs: dict[str, Cost]) -> tuple[list[str], list[list[str]]]:
    header = ['bank', 'seconds', 'ratio', 'processor seconds', 'ratio', 'peak MB', 'bank MB']
    rows = [
        [
            run,
            f'{cost.seconds:.1f}',
            f'{costs["none"].seconds / cost.seconds:.1f}',
            f'{cost.processor:.1f}',
            f'{costs["none"].processor / cost.processor:.1f}',
            f'{cost.memory:.0f}',
            f'{cost.bank:.0f}',
        ]
        for run, cost in costs.items()
    ]
    return header, rows


def table_of_figures(seeds: list[int], figures: dict[str, list[dict]]) -> tuple[list[str], list[list[str]]]:
    """The figures of each seed and run, and the difference that the bank makes to their means."""
    rows, means = [], {}
    for run in figures:
        for seed, of_seed in zip(seeds, figures[run], strict=True):
            rows.append([run, str(seed), *(f'{100 * of_seed[name]:.1f}' for name in FIGURES)])
        means[run] = {name: statistics.mean(of_seed[name] for of_seed in figures[run]) for name in FIGURES}
        rows.append([run, 'mean', *(f'{100 * means[run][name]:.1f}' for name in FIGURES)])
    differences = (100 * (means['new'][name] - means['none'][name]) for name in FIGURES)
    rows.append(['new - none', 'mean', *(f'{difference:+.1f}' for difference in differences)])
    return ['bank', 'seed', *(name.removeprefix('lvis/') for name in FIGURES)], rows


if __name__ == '__main__':
    main()
