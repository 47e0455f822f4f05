"""Progress with the remaining time: bars on a terminal, a line now and then anywhere else."""
import sys
import time
from collections import deque
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

_REFRESH_SECONDS = 0.1


class Pace:
    """How long a step takes, as the mean over the last `window` steps; a pause between steps does not count."""

    def __init__(self, window: int = 50):
        self._seconds: deque[float] = deque(maxlen=window)
        self._last = time.monotonic()

    def step(self) -> None:
        """One more step is done."""
        now = time.monotonic()
        self._seconds.append(now - self._last)
        self._last = now

    def resume(self) -> None:
        """The next step starts now."""
        self._last = time.monotonic()

    def remaining(self, steps: int) -> str:
        """Time that so many steps will take, as h:mm:ss."""
        if not self._seconds:
            return '-:--:--'
        return str(timedelta(seconds=round(steps * sum(self._seconds) / len(self._seconds))))


class _Stage:
    def __init__(self, total: int, done: int, task: TaskID | None):
        self.total = total
        self.done = done
        self.task = task
        self.pace = Pace()
        self.next_line = time.monotonic()


class ProgressDisplay:
    """Shows how far one or several nested stages (a validation within a training) have come, on stderr.

    Args:
        interval: seconds between two lines where stderr is not a terminal.
    """

    def __init__(self, interval: float = 30.0):
        self._interval = interval
        self._stages: dict[str, _Stage] = {}
        self._bars: Progress | None = None
        self._next_refresh = 0.0

    def begin(self, name: str, total: int, done: int = 0) -> None:
        """Start showing a stage of `total` steps, `done` of which were done before."""
        if sys.stderr.isatty() and self._bars is None:
            self._bars = Progress(
                TextColumn('{task.description}'),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn('ETA {task.fields[eta]}  {task.fields[note]}'),
                console=Console(stderr=True),
                # A thread that refreshes would hold the console's lock when data loader workers are forked.
                auto_refresh=False,
            )
            self._bars.start()
        task = None
        if self._bars is not None:
            task = self._bars.add_task(name, total=total, completed=done, eta='-:--:--', note='')
        self._stages[name] = _Stage(total, done, task)

    def advance(self, name: str, note: str = '') -> None:
        """One more step of a stage is done; `note` is shown behind the remaining time."""
        stage = self._stages[name]
        stage.done += 1
        stage.pace.step()
        eta = stage.pace.remaining(stage.total - stage.done)
        if self._bars is not None:
            now = time.monotonic()
            due = now >= self._next_refresh or stage.done == stage.total
            self._bars.update(stage.task, completed=stage.done, eta=eta, note=note, refresh=due)
            if due:
                self._next_refresh = now + _REFRESH_SECONDS
        elif time.monotonic() >= stage.next_line or stage.done == stage.total:
            stage.next_line = time.monotonic() + self._interval
            print(f'{name} {stage.done}/{stage.total}  ETA {eta}  {note}'.rstrip(), file=sys.stderr, flush=True)

    def end(self, name: str) -> None:
        """Take a stage off the display; the others go on."""
        stage = self._stages.pop(name)
        if self._bars is not None and self._stages:
            self._bars.remove_task(stage.task)
        for other in self._stages.values():
            other.pace.resume()
        if not self._stages:
            self.close()

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        if self._bars is not None:
            self._bars.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Give the terminal back, also where a stage was broken off."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
        self._stages.clear()
