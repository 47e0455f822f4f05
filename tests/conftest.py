"""Fixtures shared by all tests: devices, and the reference data that lies beside some checkouts."""
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest_plugins = ['pytester']
torch.set_num_threads(1)
SHARED = Path(__file__).resolve().parents[2] / 'shared'
NO_SHARED = 'no reference data (../shared) beside this checkout'
DEVICES = ['cpu'] + (['cuda'] if torch.cuda.is_available() else [])


@pytest.fixture(params=DEVICES)
def device(request):
    """Every device of this machine in turn."""
    return torch.device(request.param)


def _folder_or_skip(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(NO_SHARED)
    return folder


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Real annotations and photographs (shared/data); the test skips where they are absent."""
    return _folder_or_skip('data')


@pytest.fixture(scope='session')
def oracle() -> Path:
    """Reference outputs of other implementations (shared/oracle); the test skips where they are absent."""
    return _folder_or_skip('oracle')


@pytest.fixture(params=['preprocessor', 'averaged', 'parallel', 'compiled', 'compiled parts', 'all'])
def soiled(request) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """A state dict as it is saved of a model that was wrapped, averaged or compiled, or all of it."""
    kinds = ['preprocessor', 'averaged', 'compiled parts', 'compiled', 'parallel']
    chosen = kinds if request.param == 'all' else [request.param]

    def soil(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        for kind in kinds:
            if kind not in chosen:
                continue
            if kind == 'preprocessor':
                more = {f'data_preprocessor.{name}': torch.full((3, 1, 1), 100.0) for name in ('mean', 'std')}
                weights = {**more, **weights}
            elif kind == 'averaged':
                weights = {**weights, **{f'ema_{name.replace(".", "_")}': 2 * weights[name] for name in weights}}
            elif kind == 'compiled parts':
                weights = {name.replace('.', '._orig_mod.', 1): tensor for name, tensor in weights.items()}
            else:
                prefix = '_orig_mod.' if kind == 'compiled' else 'module.'
                weights = {prefix + name: tensor for name, tensor in weights.items()}
        return weights

    return soil


@pytest.fixture
def free_port() -> int:
    """A port for a process group on this machine."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def pytest_terminal_summary(terminalreporter):
    """Say in one line how many tests were skipped because there is no reference data."""
    reasons = [report.longrepr[2] for report in terminalreporter.getreports('skipped')]
    skipped = sum(NO_SHARED in reason for reason in reasons)
    if skipped:
        terminalreporter.write_line(f'{skipped} {"test" if skipped == 1 else "tests"} skipped: {NO_SHARED}')
