"""Config files: reading them, and telling the user in one line what is wrong with one."""
import difflib
import importlib.metadata
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from mmengine import Config
from mmengine.registry import Registry, init_default_scope

from mmdet.errors import ConfigError, UserError
from mmdet.registry import SCOPE

RUNNER_KEYS = frozenset({
    'activation_checkpointing', 'auto_scale_lr', 'calibration', 'compile', 'custom_hooks', 'custom_imports',
    'data_preprocessor', 'default_hooks', 'default_scope', 'env_cfg', 'experiment_name', 'find_unused_parameters',
    'launcher', 'load_from', 'log_level', 'log_processor', 'model', 'model_wrapper_cfg', 'optim_wrapper',
    'param_scheduler', 'randomness', 'resume', 'sync_bn', 'test_cfg', 'test_dataloader', 'test_evaluator', 'train_cfg',
    'train_dataloader', 'tta_model', 'tta_pipeline', 'val_cfg', 'val_dataloader', 'val_evaluator', 'visualizer',
    'work_dir',
})  # fmt: skip
CUSTOMARY_VARIABLES = frozenset({'train_pipeline', 'val_pipeline', 'test_pipeline'})
DEFAULT_HOOK_KEYS = frozenset({
    'checkpoint', 'logger', 'param_scheduler', 'progress', 'runtime_info', 'sampler_seed', 'seed', 'timer',
    'visualization',
})  # fmt: skip
_PROPOSAL_KEYS = frozenset({
    'max_num', 'max_per_img', 'min_bbox_size', 'nms', 'nms_across_levels', 'nms_post', 'nms_pre', 'nms_thr',
})  # fmt: skip
# Places whose keys are read one by one, so that a misspelt one would do nothing; mmdetection's keys are all known.
STRICT_KEYS = {
    'randomness': frozenset({'deterministic', 'diff_rank_seed', 'seed'}),
    'env_cfg': frozenset({'cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit'}),
    'env_cfg.mp_cfg': frozenset({'mp_start_method', 'opencv_num_threads'}),
    'model.train_cfg.rpn': frozenset({'allowed_border', 'assigner', 'debug', 'pos_weight', 'sampler'}),
    'model.train_cfg.rpn_proposal': _PROPOSAL_KEYS,
    'model.train_cfg.rcnn': frozenset({'assigner', 'debug', 'mask_size', 'pos_weight', 'sampler'}),
    'model.test_cfg.rpn': _PROPOSAL_KEYS,
    'model.test_cfg.rcnn': frozenset(
        {'mask_thr_binary', 'max_per_img', 'min_bbox_size', 'nms', 'score_thr', 'shift_classes'}
    ),
}
TWO_STAGE_KEYS = {
    'model.train_cfg': frozenset({'rcnn', 'rpn', 'rpn_proposal'}),
    'model.test_cfg': frozenset({'rcnn', 'rpn'}),
}
# Components that a config may describe without a `type`, and how the key ends that they stand under.
_TYPELESS = dict(DataLoader='dataloader', EpochBasedTrainLoop='train_cfg', IterBasedTrainLoop='train_cfg',
                 ValLoop='val_cfg', TestLoop='test_cfg', LogProcessor='log_processor')  # fmt: skip
# Components of mmdetection that see more than one image at a time.
MIX_IMAGES = frozenset({'CachedMixUp', 'CachedMosaic', 'CopyPaste', 'MixUp', 'Mosaic', 'MultiImageMixDataset'})
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
    check_keys(set(config.keys()) - CUSTOMARY_VARIABLES, RUNNER_KEYS, f'{path}: top-level key')
    check_keys(config.get('default_hooks') or {}, DEFAULT_HOOK_KEYS, f'{path}: default_hooks.')
    _check_strict_keys(config, path)
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


def check_known_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuse every key that is not a known one, in a place where a config may not add any.

    Args:
        given, known, where: as of `check_keys`.

    Raises:
        ConfigError: naming the key, and the one that is likely meant.
    """
    known = set(known)
    for key in given:
        if key not in known:
            raise ConfigError(f'{where} `{key}` is not known{_did_you_mean(key, known)}')


def require_keys(config: Config, *keys: str) -> None:
    """Check that a config says what a task needs.

    Args:
        config: of a task.
        keys: dotted, e.g. `'calibration.optim_wrapper'`.

    Raises:
        ConfigError: naming the first missing key, and the config's key that might be it misspelt.
    """
    for key in keys:
        if _at(config, key) is None:
            near = difflib.get_close_matches(key, set(config.keys()) - RUNNER_KEYS, n=1, cutoff=0.7)
            hint = f'; is `{near[0]}` meant to be it?' if near else ''
            raise ConfigError(f'{config.filename}: the key `{key}` is missing{hint}')


@contextmanager
def config_errors(config: Config) -> Iterator[None]:
    """Within the block, a component's misspelt type or keyword, or impossible value, becomes a one-line ConfigError.

    Components are built deep inside mmengine, which answers a mistake with a KeyError, TypeError or ValueError; the
    traceback tells which component was being built from which keys, and the config where it stands. Other errors pass
    unchanged.
    """
    try:
        yield
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        message = _mistake(config, error)
        if message is None:
            raise
        raise ConfigError(f'{config.filename or "config"}: {message}') from error


def _at(config: Config, key: str) -> Any:
    """What stands under a dotted key, or None."""
    place: Any = config
    for part in key.split('.'):
        place = place.get(part) if isinstance(place, (Mapping, Config)) else None
    return place


def _check_strict_keys(config: Config, path: Path) -> None:
    places = STRICT_KEYS | (TWO_STAGE_KEYS if _at(config, 'model.roi_head') is not None else {})
    for place, known in places.items():
        given = _at(config, place)
        for stage, settings in enumerate(given if isinstance(given, (list, tuple)) else [given]):
            where = f'{place}.{stage}' if settings is not given else place
            if isinstance(settings, Mapping):
                check_known_keys(settings, known, f'{path}: {where}: the key')


def _override(config: Config, cfg_options: Mapping[str, Any]) -> None:
    for key, value in cfg_options.items():
        place: Any = config
        above: list[str] = []
        for part in key.split('.'):
            here = '.'.join(above)
            if isinstance(place, list) and not (part.isdigit() and int(part) < len(place)):
                raise ConfigError(f'--cfg-options {key}: `{here}` is a list of {len(place)}, which has no `{part}`')
            if not isinstance(place, (Mapping, Config, list)):
                raise ConfigError(f'--cfg-options {key}: `{here}` is {place!r} in the config and has no keys')
            place = place[int(part)] if isinstance(place, list) else place.get(part, {})
            above.append(part)
        config.merge_from_dict({key: value})


def _reading_error(path: Path, error: Exception) -> ConfigError:
    """What went wrong in which of the files that a config is made of."""
    file = path
    place = ''
    for frame, line in _frames(error.__traceback__):
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


def _mistake(config: Config, error: Exception) -> str | None:
    """The sentence about a mistake in the config, or None where the error is not one."""
    frames = [frame for frame, _ in _frames(error.__traceback__)]
    building = [frame for frame in frames if frame.f_code.co_name == 'build_from_cfg']
    if building and frames[-1].f_code.co_filename.endswith(('registry/build_functions.py', 'registry/registry.py')):
        unknown = _unknown_type(config, building[-1].f_locals)
        if unknown:
            return unknown
    if not isinstance(error, (TypeError, ValueError)):
        return None
    call = r'(\w+)(?:\.__init__)?\(\)'
    keyword = re.search(rf"{call} got an unexpected keyword argument '(\w+)'", str(error))
    missing = re.search(rf"{call} missing \d+ required [\w-]+ arguments?: '(\w+)'", str(error))
    found = keyword or missing
    if found is None:
        return _refused_value(config, building[-1].f_locals, error) if building else None
    component, given = _component(found.group(1), frames, building)
    key = found.group(2)
    name = getattr(component, '__name__', '')
    owners = {cls.__name__ for cls in getattr(component, '__mro__', ())} | {name}
    if found.group(1) not in owners or (keyword and key not in given):
        return None
    place = _place(config, name, lambda node: (key in node) == bool(keyword))
    if missing:
        return f'{place}{name} needs the key `{key}`'
    return f'{place}{name} has no key `{key}`{_did_you_mean(key, _parameters(component))}'


def _refused_value(config: Config, build: Mapping[str, Any], error: Exception) -> str:
    """About a component that refused what it was given; `build` are build_from_cfg's local variables."""
    given = build.get('args', {})
    name = getattr(build.get('obj_cls'), '__name__', 'a component')
    place = _place(config, name, lambda node: all(given.get(key) == node[key] for key in node if key != 'type'))
    return f'{place}{name} cannot be built: {_flat(error)}'


def _unknown_type(config: Config, build: Mapping[str, Any]) -> str | None:
    """About a config whose `type` is missing or not in the registry; `build` are build_from_cfg's local variables."""
    registry, name = build['registry'], build.get('obj_type')
    if name is None and 'type' not in build['cfg']:
        keys = ', '.join(map(str, build['cfg'])) or 'none'
        return f'a {registry.name} is configured without a `type` (its keys: {keys})'
    if not isinstance(name, str) or build.get('obj_cls') is not None:
        return None
    place = _place(config, name, lambda node: True)
    if name in MIX_IMAGES:
        return (
            f'{place}{name} mixes several images into one, which is not supported; name the data set inside '
            f'MultiImageMixDataset in its place, without Mosaic, MixUp and CopyPaste'
        )
    return f'{place}there is no {registry.name} of type `{name}`{_did_you_mean(name, _registered(registry))}'


def _component(name: str, frames: list[FrameType], building: list[FrameType]) -> tuple[Any, Mapping[str, Any]]:
    """The callable a TypeError speaks of and the keywords the config gave it."""
    caller = frames[-1]
    if caller.f_code.co_filename.endswith('mmengine/runner/runner.py') and name in caller.f_globals:
        configs = ('dataloader_cfg', 'loop_cfg', 'log_processor_cfg')
        given = next((caller.f_locals[key] for key in configs if key in caller.f_locals), {})
        return caller.f_globals[name], given
    if building:
        build = building[-1].f_locals
        return build.get('obj_cls'), build.get('args', {})
    return None, {}


def _place(config: Config, name: str, condition: Callable[[Mapping], bool]) -> str:
    """Dotted path, with a colon, of the first part of the config that is the named component's; '' where none is."""

    def search(node: Any, path: str) -> str:
        if isinstance(node, Mapping):
            kind = node.get('type', '')
            typeless = not kind and path.endswith(_TYPELESS.get(name, '?'))
            if (typeless or name in (kind, getattr(kind, '__name__', ''))) and condition(node):
                return f'{path}: '
            items = node.items()
        else:
            items = enumerate(node) if isinstance(node, (list, tuple)) else ()
        return next(filter(None, (search(child, f'{path}.{key}'.lstrip('.')) for key, child in items)), '')

    # A component's own place comes before the helper variables it was assembled from.
    runner_keys = {key: value for key, value in config.items() if key in RUNNER_KEYS}
    return search(runner_keys, '') or search(dict(config.items()), '')


def _parameters(component: Any) -> Iterator[str]:
    """Names of the keywords a class or function takes, those of base classes included where it passes on the rest."""
    classes = component.__mro__ if inspect.isclass(component) else (component,)
    for cls in classes:
        function = vars(cls).get('__init__') if inspect.isclass(cls) else cls
        if not inspect.isfunction(function):
            continue
        parameters = inspect.signature(function).parameters
        yield from (name for name, kind in parameters.items() if name != 'self' and kind.kind != kind.VAR_KEYWORD)
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
            return


def _registered(registry: Registry) -> set[str]:
    """Names of everything a registry and those above it can build."""
    names = set(registry.module_dict)
    return names | _registered(registry.parent) if registry.parent is not None else names


def _did_you_mean(name: str, candidates: Iterable[str]) -> str:
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f'; did you mean `{by_lower[near[0]]}`?' if near else ''


def _frames(traceback: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    """The frames of a traceback with their lines, outermost first."""
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _flat(error: Exception) -> str:
    """An error's message on one line."""
    message = ' '.join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    return f'{type(error).__name__}: {message}' if message else type(error).__name__
