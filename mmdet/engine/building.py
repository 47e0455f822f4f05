"""Components that cannot be built: which one, from which part of the config, and what was likely meant."""
import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mmengine import Config
from mmengine.registry import Registry

from mmdet.errors import ConfigError, UserError

from .config import RUNNER_KEYS, frames_of

# Components that a config may describe without a `type`, and how the key ends that they stand under.
_TYPELESS = dict(DataLoader='dataloader', EpochBasedTrainLoop='train_cfg', IterBasedTrainLoop='train_cfg',
                 ValLoop='val_cfg', TestLoop='test_cfg', LogProcessor='log_processor')  # fmt: skip


@contextmanager
def config_errors(config: Config) -> Iterator[None]:
    """Within the block, a component's misspelt type or keyword becomes a one-line ConfigError.

    Components are built deep inside mmengine, which answers a mistake with a KeyError or TypeError; the traceback tells
    which component was being built from which keys, and the config where it stands. Other errors pass unchanged.
    """
    try:
        yield
    except UserError:
        raise
    except (KeyError, TypeError, RuntimeError) as error:
        message = _mistake(config, error)
        if message is None:
            raise
        raise ConfigError(f'{config.filename or "config"}: {message}') from error


def _mistake(config: Config, error: Exception) -> str | None:
    """The sentence about a mistake in the config, or None where the error is not one."""
    frames = [frame for frame, _ in frames_of(error.__traceback__)]
    building = [frame for frame in frames if frame.f_code.co_name == 'build_from_cfg']
    if building and frames[-1].f_code.co_filename.endswith(('registry/build_functions.py', 'registry/registry.py')):
        unknown = _unknown_type(config, building[-1].f_locals)
        if unknown:
            return unknown
    if not isinstance(error, TypeError):
        return None
    call = r'(\w+)(?:\.__init__)?\(\)'
    keyword = re.search(rf"{call} got an unexpected keyword argument '(\w+)'", str(error))
    missing = re.search(rf"{call} missing \d+ required [\w-]+ arguments?: '(\w+)'", str(error))
    found = keyword or missing
    if found is None:
        return None
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


def _unknown_type(config: Config, build: Mapping[str, Any]) -> str | None:
    """About a config whose `type` is missing or not in the registry; `build` are build_from_cfg's local variables."""
    registry, name = build['registry'], build.get('obj_type')
    if name is None and 'type' not in build['cfg']:
        keys = ', '.join(map(str, build['cfg'])) or 'none'
        return f'a {registry.name} is configured without a `type` (its keys: {keys})'
    if not isinstance(name, str) or build.get('obj_cls') is not None:
        return None
    place = _place(config, name, lambda node: True)
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
