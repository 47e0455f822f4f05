"""What the benchmarks share: paired timing, memory of a fresh process, the machine, tables."""
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch


def paired(
    *contenders: Callable[[], Any], budget: float = 8.0, least: int = 3, most: int = 51
) -> tuple[list[float], list[Any]]:
    """Median seconds and last results of contenders run in turns, so that a busy moment meets all of them.

    Rounds are run until `budget` seconds are spent, at least `least` and at most `most` of them. A first one, to warm
    up, is not counted, unless it takes so long that there is nothing to warm up.
    """
    rounds: list[list[float]] = []
    spent = 0.0
    while len(rounds) < least or (len(rounds) < most and spent < budget):
        timed = [_timed(contender) for contender in contenders]
        results = [result for _, result in timed]
        rounds.append([seconds for seconds, _ in timed])
        if spent == 0 and sum(rounds[0]) < 1:
            rounds.clear()
        spent += sum(seconds for seconds, _ in timed)
    return [statistics.median(seconds) for seconds in zip(*rounds, strict=True)], results


def added_megabytes(make_inputs: Callable[[], Sequence[Any]], run: Callable[..., Any]) -> float:
    """By how much one `run(*make_inputs())` raises the peak memory (`ru_maxrss`) of a fresh process.

    Both are functions of a module, or `functools.partial` of such. The peak is set back (Linux) once inputs are made.
    A process inherits the peak of the one that starts it: call this before anything large has run there.
    """
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as process:
        return process.submit(_added_here, make_inputs, run).result()


def machine() -> str:
    """One line: processor, cores, and the versions that matter."""
    names = [line.split(':')[1].strip() for line in _cpuinfo() if line.startswith('model name')]
    processor = names[0] if names else platform.machine()
    cores = f'{os.cpu_count()} cores, {torch.get_num_threads()} threads'
    return f'{processor}, {cores}; Python {platform.python_version()}, torch {torch.__version__}'


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """As Markdown, the columns aligned."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    cells.insert(1, ['-' * width for width in widths])
    for row in cells:
        print('| ' + ' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + ' |')


def milliseconds(seconds: float) -> str:
    """With the digits a measurement deserves."""
    return f'{seconds * 1e3:.3g} ms' if seconds < 1 else f'{seconds:.3g} s'


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def _added_here(make_inputs: Callable[[], Sequence[Any]], run: Callable[..., Any]) -> float:
    inputs = make_inputs()
    Path('/proc/self/clear_refs').write_text('5')
    before = _peak_megabytes()
    run(*inputs)
    return _peak_megabytes() - before


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _cpuinfo() -> list[str]:
    path = Path('/proc/cpuinfo')
    return path.read_text().splitlines() if path.exists() else []
