"""Training a detector from a config."""
import gc
from pathlib import Path

from mmengine import Config

from mmdet.engine import Runner, config_errors, mixed_precision, require_keys, start_processes
from mmdet.errors import ConfigError, UserError
from mmdet.models import optimize_for_training

from .classes import CheckClassesHook, GiveClassFrequencyHook


def train(cfg: Config) -> Runner:
    """Train what a config describes, as mmdetection 3 does.

    Args:
        cfg: a complete config with `work_dir`, and `launcher`, `resume` (False, True, `'auto'` or a checkpoint's path)
            and `randomness` where they are not the defaults.

    Returns:
        The runner; checkpoints and logs lie in its `work_dir`.

    Raises:
        UserError: a config, annotation, image or checkpoint that cannot be used; the message says which, and the mend.
    """
    require_keys(cfg, 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'work_dir')
    prepare_run(cfg)
    with config_errors(cfg):
        if cfg.optim_wrapper.get('type') == 'AmpOptimWrapper':
            cfg.optim_wrapper = mixed_precision(cfg.optim_wrapper)
        runner = Runner.from_cfg(cfg)
        optimize_for_training(runner.model)
        runner.register_hook(CheckClassesHook())
        runner.register_hook(GiveClassFrequencyHook())
        runner.train()
    return runner


def prepare_run(cfg: Config) -> None:
    """Join the launcher's processes, make the working directory and let go of runs that are over.

    Raises:
        UserError: where either is impossible, or the seed.
    """
    seed = (cfg.get('randomness') or {}).get('seed')
    if seed is not None and not (isinstance(seed, int) and 0 <= seed < 2**32):
        raise ConfigError(f'{cfg.filename or "config"}: randomness.seed={seed}: choose one from 0 to 4294967295')
    start_processes(cfg.get('launcher', 'none'), cfg.get('env_cfg', {}).get('dist_cfg'))
    try:
        Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'{cfg.work_dir}: cannot be made ({error.strerror}); choose another --work-dir') from error
    # Of a run that failed, a reference cycle may still hold the data loaders' workers. Collected by chance within a
    # worker of the next run, they would complain of a parent that is not theirs.
    gc.collect()


def scale_learning_rate(cfg: Config) -> None:
    """Let the learning rate follow the batch size of all processes, from the one it is meant for.

    Raises:
        ConfigError: where the config does not say which that is.
    """
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise ConfigError(f'{cfg.filename}: --auto-scale-lr needs auto_scale_lr.base_batch_size in the config')
    cfg.auto_scale_lr.enable = True
