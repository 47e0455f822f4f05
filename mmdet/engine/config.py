"""Config files: reading them, and telling the user in one line what is wrong with one."""
import difflib
import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from mmengine import Config
from mmengine.registry import init_default_scope

from mmdet.errors import ConfigError
from mmdet.registry import SCOPE

RUNNER_KEYS = frozenset({
    'activation_checkpointing', 'auto_scale_lr', 'calibration', 'compile', 'custom_hooks', 'custom_imports',
    'data_preprocessor', 'default_hooks', 'default_scope', 'env_cfg', 'experiment_name', 'find_unused_parameters',
    'launcher', 'load_from', 'log_level', 'log_processor', 'model', 'model_wrapper_cfg', 'optim_wrapper',
    'param_scheduler', 'randomness', 'resume', 'sync_bn', 'test_cfg', 'test_dataloader', 'test_evaluator', 'train_cfg',
    'train_dataloader', 'tta_model', 'tta_pipeline', 'val_cfg', 'val_dataloader', 'val_evaluator', 'visualizer',
    'work_dir',
})  # fmt: skip
DEFAULT_HOOK_KEYS = frozenset({
    'checkpoint', 'logger', 'param_scheduler', 'progress', 'runtime_info', 'sampler_seed', 'seed', 'timer',
    'visualization',
})  # fmt: skip
OPENMMLAB = ('mmdet', 'mmcv', 'mmcv-full', 'mmcv-lite', 'mmengine', 'mmengine-lite')


def check_installation() -> None:
    """Refuse to run beside OpenMMLab's own packages, whose import names are ours.

    Raises:
        ConfigError: where one of them is installed.
    """
    installed = []
    for name in OPENMMLAB:
        try:
            installed.append(f'{name} {importlib.metadata.version(name)}')
        except importlib.metadata.PackageNotFoundError:
            continue
    if installed:
        names = ' '.join(item.split()[0] for item in installed)
        raise ConfigError(
            f'OpenMMLab packages are installed whose import names clash with this project ({", ".join(installed)}): '
            f'use an environment of its own, or `pip uninstall {names}` and install this project again'
        )


def load_config(path: str | Path, cfg_options: Mapping[str, Any] | None = None) -> Config:
    """Read a config file with its bases and make `mmdet` the default scope.

    Args:
        path: a `.py`, `.yaml` or `.json` config as mmdetection 3 writes them.
        cfg_options: dotted keys to their new values, as `--cfg-options` gives them.

    Raises:
        ConfigError: a missing file or base, a syntax error, a key that looks like a misspelt one.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f'{path}: no such config file')
    try:
        config = Config.fromfile(path)
    except Exception as error:
        raise _reading_error(path, error) from error
    if cfg_options:
        _override(config, cfg_options)
    check_keys(config, RUNNER_KEYS, f'{path}: top-level key')
    check_keys(config.get('default_hooks') or {}, DEFAULT_HOOK_KEYS, f'{path}: default_hooks.')
    config.setdefault('default_scope', SCOPE)
    init_default_scope(config.default_scope)
    return config


def check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Find misspelt keys among those that a config may add to freely.

    A key is taken for a mistake where it nearly is a known one; short names, names built around a known key
    (`train_dataloader_small`) and names unlike all of them (`image_size`) are the user's own variables.

    Args:
        given: the config's keys.
        known: the keys that mean something.
        where: what the message calls the place, e.g. `'my_config.py: top-level key'`.

    Raises:
        ConfigError: naming the key and the one that is likely meant.
    """
    known = set(known)
    for key in given:
        own = len(key) < 6 or any(key.startswith(f'{name}_') or key.endswith(f'_{name}') for name in known)
        if own or key in known:
            continue
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.85)
        if near:
            raise ConfigError(f'{where} `{key}` is not known; did you mean `{near[0]}`?')


def require_keys(config: Config, *keys: str) -> None:
    """Check that a config says what a task needs.

    Raises:
        ConfigError: naming the first missing key, and the config's key that might be it misspelt.
    """
    for key in keys:
        if config.get(key) is None:
            near = difflib.get_close_matches(key, set(config.keys()) - RUNNER_KEYS, n=1, cutoff=0.7)
            hint = f'; is `{near[0]}` meant to be it?' if near else ''
            raise ConfigError(f'{config.filename}: the key `{key}` is missing{hint}')


def _override(config: Config, cfg_options: Mapping[str, Any]) -> None:
    for key, value in cfg_options.items():
        try:
            config.merge_from_dict({key: value})
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ConfigError(f'--cfg-options {key}={value}: {_flat(error)}') from error


def _reading_error(path: Path, error: Exception) -> ConfigError:
    """What went wrong in which of the files that a config is made of."""
    file = path
    place = ''
    for frame, line in frames_of(error.__traceback__):
        if frame.f_code.co_filename.endswith('mmengine/config/config.py'):
            read = str(frame.f_locals.get('filename', ''))
            if read and not Path(read).name.startswith('tmp'):
                file, place = Path(read), ''
        elif Path(frame.f_code.co_filename) == file.absolute():
            place = f' line {line}:'
    if isinstance(error, FileNotFoundError) and not file.is_file():
        return ConfigError(f'{path}: its base config {file} does not exist')
    if isinstance(error, SyntaxError):
        return ConfigError(f'{file}: line {error.lineno}: syntax error: {error.msg}')
    return ConfigError(f'{file}:{place} {_flat(error)}')


def frames_of(traceback: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    """The frames of a traceback with their lines, outermost first."""
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _flat(error: Exception) -> str:
    """An error's message on one line."""
    message = ' '.join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    return f'{type(error).__name__}: {message}' if message else type(error).__name__
