"""Starting the processes' group: gloo on CPUs, nccl on CUDA, before the runner is made."""
import os
import subprocess
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from mmengine.dist import is_distributed

from mmdet.errors import ConfigError

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
TIMEOUT = timedelta(minutes=30)

# What each launcher calls torch's RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE.
_NAMES = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID', 'SLURM_NTASKS_PER_NODE'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_LOCAL_SIZE'),
}


def start_processes(launcher: str, dist_cfg: Mapping[str, Any] | None = None) -> None:
    """Join the group of processes that a launcher has started, once; nothing for `'none'`.

    The backend is gloo where there is no CUDA, whatever the config says. There the machine's cores are divided among
    its processes, unless OMP_NUM_THREADS says how many threads each may use; that goes for MKL too, unless
    MKL_NUM_THREADS says otherwise.

    Args:
        launcher: one of `LAUNCHERS`.
        dist_cfg: mmengine's `env_cfg.dist_cfg`: `backend` and `timeout` in seconds.

    Raises:
        ConfigError: where the launcher's environment variables are not there, or make no sense.
    """
    if launcher == 'none' or is_distributed():
        return
    if launcher not in LAUNCHERS:
        raise ConfigError(f'--launcher {launcher}: not one of {", ".join(LAUNCHERS)}')
    take_environment(launcher)
    local_rank, local_size = int(os.environ['LOCAL_RANK']), int(os.environ['LOCAL_WORLD_SIZE'])
    dist_cfg = dict(dist_cfg or {})
    timeout = timedelta(seconds=dist_cfg['timeout']) if dist_cfg.get('timeout') else TIMEOUT
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
        torch.distributed.init_process_group(dist_cfg.get('backend', 'nccl'), timeout=timeout)
    else:
        _divide_cores(local_size)
        torch.distributed.init_process_group('gloo', timeout=timeout)
    # Where it is not set, mmengine would hold MKL to one thread, with a warning.
    if 'OMP_NUM_THREADS' in os.environ:
        os.environ.setdefault('MKL_NUM_THREADS', os.environ['OMP_NUM_THREADS'])


def end_processes() -> None:
    """Leave the group of processes, if there is one."""
    if is_distributed():
        torch.distributed.destroy_process_group()


def take_environment(launcher: str) -> None:
    """Set torch's environment variables from those of a launcher other than `'none'`.

    Raises:
        ConfigError: where they are not there, or make no sense.
    """
    ours = _NAMES['pytorch']
    for name, theirs in zip(ours, _NAMES[launcher], strict=True):
        if theirs in os.environ:
            os.environ[name] = os.environ[theirs].split('(')[0]
    missing = [name for name in ours[:3] if name not in os.environ]
    if missing:
        start = dict(pytorch='torchrun --nproc_per_node=2', slurm='srun', mpi='mpirun')[launcher]
        raise ConfigError(f'--launcher {launcher}: {missing[0]} is not set; start the tool with `{start} ...`')
    os.environ.setdefault('LOCAL_WORLD_SIZE', '1')
    os.environ.setdefault('MASTER_PORT', '29500')
    for name in (*ours, 'MASTER_PORT'):
        if not os.environ[name].isdecimal():
            raise ConfigError(f'--launcher {launcher}: {name}={os.environ[name]} is not a number')
    if 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _first_host() if launcher == 'slurm' else '127.0.0.1'


def _first_host() -> str:
    """Name of the first host of a slurm job.

    Raises:
        ConfigError: where slurm does not tell it.
    """
    mend = 'start the tool with `srun ...` within a job, or set MASTER_ADDR to the name of the first host'
    if 'SLURM_NODELIST' not in os.environ:
        raise ConfigError(f'--launcher slurm: SLURM_NODELIST is not set; {mend}')
    nodes = os.environ['SLURM_NODELIST']
    command = ['scontrol', 'show', 'hostnames', nodes]
    try:
        hosts = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(f'--launcher slurm: `{" ".join(command)}` cannot be run; {mend}') from error
    if not hosts:
        raise ConfigError(f'--launcher slurm: SLURM_NODELIST={nodes} names no host; {mend}')
    return hosts[0]


def _divide_cores(num_processes: int) -> None:
    # torchrun itself sets OMP_NUM_THREADS to 1 where it is not set.
    if os.environ.get('OMP_NUM_THREADS', '1') == '1':
        cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
        threads = max(1, cores // num_processes)
        os.environ['OMP_NUM_THREADS'] = os.environ['MKL_NUM_THREADS'] = str(threads)
        torch.set_num_threads(threads)
