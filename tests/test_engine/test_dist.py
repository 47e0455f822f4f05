"""What launchers leave in the environment, and what they may have left out."""
import os

import pytest

from mmdet.engine import start_processes
from mmdet.engine.dist import end_processes
from mmdet.errors import ConfigError


@pytest.fixture
def slurm(monkeypatch, tmp_path):
    """The environment of a slurm task whose node list and tools are not there."""
    # `_take_environment` writes torch's names; monkeypatch takes them away again.
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', 'MASTER_PORT'):
        monkeypatch.setenv(name, '0')
    for name in ('MASTER_ADDR', 'SLURM_NODELIST', 'SLURM_NTASKS_PER_NODE'):
        monkeypatch.delenv(name, raising=False)
    for name in ('SLURM_PROCID', 'SLURM_LOCALID'):
        monkeypatch.setenv(name, '0')
    monkeypatch.setenv('SLURM_NTASKS', '1')
    monkeypatch.setenv('PATH', str(tmp_path))
    return monkeypatch


def test_slurm_without_a_node_list(slurm):
    with pytest.raises(ConfigError, match='SLURM_NODELIST is not set; .*MASTER_ADDR'):
        start_processes('slurm')


def test_slurm_without_scontrol(slurm):
    slurm.setenv('SLURM_NODELIST', 'node[1-2]')
    with pytest.raises(ConfigError, match=r'`scontrol show hostnames node\[1-2\]` cannot be run; .*MASTER_ADDR'):
        start_processes('slurm')


@pytest.mark.parametrize(('answer', 'message'), [('exit 1', 'cannot be run'), ('true', 'names no host')])
def test_scontrol_that_does_not_answer(slurm, tmp_path, answer, message):
    slurm.setenv('SLURM_NODELIST', 'node1')
    (tmp_path / 'scontrol').write_text(f'#!/bin/sh\n{answer}\n')
    (tmp_path / 'scontrol').chmod(0o755)
    with pytest.raises(ConfigError, match=message):
        start_processes('slurm')


def test_number_that_is_none(slurm):
    slurm.setenv('SLURM_LOCALID', 'first')
    slurm.setenv('MASTER_ADDR', '127.0.0.1')
    with pytest.raises(ConfigError, match='--launcher slurm: LOCAL_RANK=first is not a number'):
        start_processes('slurm')


@pytest.mark.parametrize(('mkl', 'expected'), [(None, '3'), ('2', '2')])
def test_mkl_has_the_threads_of_openmp_unless_told_otherwise(monkeypatch, free_port, mkl, expected):
    process = dict(RANK=0, WORLD_SIZE=1, LOCAL_RANK=0, LOCAL_WORLD_SIZE=1, MASTER_ADDR='127.0.0.1')
    # mmdet writes MKL_NUM_THREADS; monkeypatch puts back what was there before.
    for name, value in (process | dict(MASTER_PORT=free_port, OMP_NUM_THREADS=3, MKL_NUM_THREADS=mkl)).items():
        monkeypatch.setenv(name, str(value))
    if mkl is None:
        monkeypatch.delenv('MKL_NUM_THREADS')
    start_processes('pytorch')
    end_processes()
    assert os.environ['MKL_NUM_THREADS'] == expected
