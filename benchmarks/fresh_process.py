"""Parts of a benchmark in processes of their own, so that memory is that of the part alone."""
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def in_fresh_process(script: str, part: str, arguments: Sequence[str], python: str = sys.executable) -> dict[str, Any]:
    """Runs `python script --part=part` with more arguments; what it prints last, a JSON object.

    A child inherits the peak memory of the process that starts it (`ru_maxrss`): keep this one small. Another Python
    than this one is started without PYTHONPATH, so that it imports its own packages.
    """
    command = [python, script, f'--part={part}', *arguments]
    environment = {key: value for key, value in os.environ.items() if python == sys.executable or key != 'PYTHONPATH'}
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(process.stdout.splitlines()[-1])


def measured(compute: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What `compute()` returns, and what it cost.

    That is `seconds` by the clock, `cpu_seconds` of all threads, which other work on the machine disturbs less, the
    process's `peak_mb`, and `imports_mb`, the peak before.
    """
    imports_mb = peak_mb()
    start, cpu_start = time.perf_counter(), time.process_time()
    result = compute()
    spent = {'seconds': time.perf_counter() - start, 'cpu_seconds': time.process_time() - cpu_start}
    return result, spent | {'peak_mb': peak_mb(), 'imports_mb': imports_mb}


def peak_mb() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def machine() -> str:
    """One line: processor, cores, and how many processes share them just now."""
    path = Path('/proc/cpuinfo')
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(':')[1].strip() for line in lines if line.startswith('model name')]
    load = f'load average {os.getloadavg()[0]:.1f} before the run'
    return f'{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {load}'
