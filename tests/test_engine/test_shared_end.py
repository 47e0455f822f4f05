"""What ends one process of a run ends the others within a minute, and is said once."""
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mmengine.dist import barrier

from mmdet.engine import ToolParser, add_common_options, run_tool, start_processes
from mmdet.errors import ConfigError

WAYS = {
    # What process 0 does, what process 1 does, what is said, and the exit statuses they may have.
    'one fails before they meet': ('meet', 'fail', 'error: fail of 1', ({1}, {2})),
    'the first fails before they meet': ('fail', 'meet', 'error: fail of 0', ({2}, {1})),
    'one fails before a barrier': ('meet barrier', 'meet fail', 'error: fail of 1', ({1}, {2})),
    'the first fails before a barrier': ('meet fail', 'meet barrier', 'error: fail of 0', ({2}, {1})),
    'one fails beside a deaf one': ('meet deaf', 'meet fail', 'error: fail of 1', ({1}, {2})),
    'the first fails beside a deaf one': ('meet fail', 'meet deaf', 'error: fail of 0', ({2}, {1})),
    'a mistake of ours': ('meet barrier', 'meet mistake', 'ZeroDivisionError: mistake of 1', ({1}, {1})),
    'one is interrupted': ('meet barrier', 'meet interrupt', 'interrupted', ({1}, {130})),
    'none fails and one is late': ('meet barrier', 'meet barrier late', None, ({0}, {0})),
    'none fails and the first is late': ('meet barrier late', 'meet barrier', None, ({0}, {0})),
}


def do(what: str) -> None:
    rank = os.environ['RANK']
    if what == 'meet':
        start_processes(sys.argv[2])
    elif what == 'barrier':
        barrier()
    elif what == 'deaf':
        # As in a collective of NCCL, which knows nothing of its fellows; beside a worker.
        multiprocessing.get_context('fork').Process(target=time.sleep, args=(1000,), daemon=True).start()
        threading.Event().wait()
    elif what == 'late':
        time.sleep(3)
    elif what == 'fail':
        time.sleep(1)
        raise ConfigError(f'fail of {rank}')
    elif what == 'mistake':
        raise ZeroDivisionError(f'mistake of {rank}')
    elif what == 'interrupt':
        raise KeyboardInterrupt
    elif what == 'killed':
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)


def tool() -> None:
    parser = ToolParser()
    add_common_options(parser)
    parser.add_argument('ways', nargs='*')
    for what in parser.parse_args().ways[int(os.environ['RANK'])].split():
        do(what)


def process(rank: int, environment: dict[str, str], arguments: list[str], said: Path) -> None:
    """A process of a run, with what it says in a file."""
    os.setsid()
    os.environ.update(environment)
    sys.argv = ['tool', *arguments]
    with said.open('a') as file:
        os.dup2(file.fileno(), 2)
        sys.stderr = file
        run_tool(tool)


def run_processes(environments: list[dict[str, str]], arguments: list[str], said: Path) -> list[int]:
    """The exit statuses of processes that end within a minute, with all that they have started."""
    context = multiprocessing.get_context('fork')
    processes = [
        context.Process(target=process, args=(rank, environment, arguments, said))
        for rank, environment in enumerate(environments)
    ]
    for each in processes:
        each.start()
    deadline = time.monotonic() + 60
    for each in processes:
        each.join(max(deadline - time.monotonic(), 0))
    statuses = [each.exitcode for each in processes]
    while any(lives(each.pid) for each in processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [each.pid for each in processes if lives(each.pid)]
    for group in left:
        os.killpg(group, signal.SIGKILL)
    assert None not in statuses and not left
    return statuses


def lives(group: int) -> bool:
    """Whether there still is a process of a group."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def of_slurm(port: int) -> list[dict[str, str]]:
    common = dict(SLURM_NTASKS='2', SLURM_NTASKS_PER_NODE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    return [common | dict(SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)) for rank in range(2)]


@pytest.mark.parametrize('way', WAYS)
def test_what_ends_one_ends_the_other(way, tmp_path, free_port):
    first, second, said, statuses = WAYS[way]
    (tmp_path / 'said').touch()
    found = run_processes(of_slurm(free_port), ['--launcher', 'slurm', first, second], tmp_path / 'said')
    assert all(status in possible for status, possible in zip(found, statuses, strict=True)), found
    lines = (tmp_path / 'said').read_text().splitlines()
    if said is None or 'mistake' not in way:
        assert lines == ([] if said is None else [said])
    else:
        assert lines[0].startswith('Traceback') and lines[-1] == said
        assert sum('Traceback' in line for line in lines) == 1


def test_the_first_is_killed_beside_a_deaf_one(tmp_path, free_port):
    arguments = ['--launcher', 'slurm', 'meet killed', 'meet deaf']
    assert run_processes(of_slurm(free_port), arguments, tmp_path / 'said') == [-signal.SIGKILL, 1]


def test_wrong_arguments_are_said_once(tmp_path, free_port):
    assert run_processes(of_slurm(free_port), ['--launcher', 'slurm', '--no-such-option'], tmp_path / 'said') == [2, 2]
    assert (tmp_path / 'said').read_text().count('unrecognized arguments: --no-such-option') == 1


@pytest.mark.parametrize('way', ['one fails before they meet', 'the first fails beside a deaf one'])
def test_torchrun(way):
    first, second, said, _ = WAYS[way]
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    arguments = ['--launcher', 'pytorch', first, second]
    done = subprocess.run([*command, __file__, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert [line for line in done.stderr.splitlines() if line.startswith('error: ')] == [said]


if __name__ == '__main__':
    run_tool(tool)
