"""Fixtures shared by all tests: devices, and the reference material that lies beside some checkouts."""
import socket
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
SHARED = Path(__file__).resolve().parents[2] / 'shared'
DEVICES = ['cpu'] + (['cuda'] if torch.cuda.is_available() else [])


@pytest.fixture(params=DEVICES)
def device(request):
    """Every device of this machine in turn."""
    return torch.device(request.param)


def _folder_or_skip(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f'no shared/{name} beside this checkout')
    return folder


@pytest.fixture
def shared_data() -> Path:
    """Real annotations and photographs (shared/data); the test skips where they are absent."""
    return _folder_or_skip('data')


@pytest.fixture
def oracle() -> Path:
    """Reference outputs of other implementations (shared/oracle); the test skips where they are absent."""
    return _folder_or_skip('oracle')


@pytest.fixture
def free_port() -> int:
    """A port for a process group on this machine."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]
