"""Progress on a terminal and elsewhere."""
import os
import pty
import re
import sys
from contextlib import suppress

import pytest

from mmdet.engine import ProgressDisplay, progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told to."""
    now = [100.0]
    monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
    return now


def test_lines_with_the_remaining_time(clock, capsys):
    display = ProgressDisplay(interval=30)
    display.begin('train', total=200, done=100)
    for _ in range(100):
        clock[0] += 2
        display.advance('train', 'loss 0.5')
    display.end('train')
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == 'train 101/200  ETA 0:03:18  loss 0.5'
    assert lines[1] == 'train 116/200  ETA 0:02:48  loss 0.5'
    assert lines[-1] == 'train 200/200  ETA 0:00:00  loss 0.5'
    assert len(lines) == 8


def test_a_validation_between_two_steps_does_not_count(clock, capsys):
    display = ProgressDisplay(interval=0)
    display.begin('train', total=3)
    clock[0] += 1
    display.advance('train')
    display.begin('validate', total=1)
    clock[0] += 1000
    display.advance('validate')
    display.end('validate')
    clock[0] += 1
    display.advance('train')
    assert capsys.readouterr().err.splitlines()[-1] == 'train 2/3  ETA 0:00:01'


def test_bars_on_a_terminal(monkeypatch):
    reader, writer = pty.openpty()
    with os.fdopen(writer, 'w') as terminal:
        monkeypatch.setattr(sys, 'stderr', terminal)
        display = ProgressDisplay()
        display.begin('train', total=2)
        display.advance('train', 'loss 0.5')
        display.say('a line [with] brackets')
        display.advance('train')
        display.close()
    shown = b''
    with suppress(OSError):  # what a terminal says at its end
        while True:
            shown += os.read(reader, 100_000)
    os.close(reader)
    shown = shown.decode()
    assert '2/2' in shown and 'ETA' in shown and 'a line [with] brackets' in shown
    assert re.search(r'\x1b\[\?25l.*\x1b\[\?25h', shown, re.DOTALL), 'the cursor is hidden and comes back'
