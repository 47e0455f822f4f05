"""Metrics as the runner's hooks and schedules see them: where their ground truth is, and by which names."""
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from mmengine import hooks
from mmengine.evaluator import BaseMetric

from mmdet.errors import ConfigError
from mmdet.evaluation.figure_names import NamedFigures, other_names
from mmdet.evaluation.streaming_metric import StreamingMetric


def give_ground_truth(metrics: Iterable[BaseMetric], dataset: Any, loader: str) -> None:
    """Let metrics without an `ann_file` evaluate on that of the data set which is tested.

    Args:
        metrics: of an evaluator.
        dataset: one data set, or a wrapper around one.
        loader: the config's key of its loader, for the message.

    Raises:
        ConfigError: the data set has no annotation file, or several.
    """
    for metric in metrics:
        if isinstance(metric, StreamingMetric) and metric.ground_truth is None:
            file = _annotation_file(dataset)
            if file is None:
                raise ConfigError(
                    f'{type(metric).__name__} needs the key `ann_file`: {loader}.dataset is not of one annotation file'
                )
            metric.evaluate_on(file)


def with_other_names(figures: Mapping[str, float], metrics: Iterable[BaseMetric]) -> NamedFigures:
    """Figures of a validation that are found by mmdetection's names too."""
    names: dict[str, str] = {}
    for metric in metrics:
        if isinstance(metric, StreamingMetric):
            own = [name.removeprefix(f'{metric.prefix}/') for name in figures if name.startswith(f'{metric.prefix}/')]
            names = other_names(metric.prefix, own, metric.aliases) | names
    return NamedFigures(figures, names)


def check_monitored(metrics: Iterable[BaseMetric], monitors: Iterable[tuple[str, str]]) -> None:
    """See that what hooks and schedules wait for is among the figures of a validation.

    Args:
        metrics: of the validation. Where one does not say its figures beforehand, nothing is checked.
        monitors: the config's keys, for the message, and the names that they give.

    Raises:
        ConfigError: naming the key, and the figure that is likely meant.
    """
    known: dict[str, str] = {}
    for metric in metrics:
        if not isinstance(metric, StreamingMetric):
            return
        names = metric.figure_names()
        known |= other_names(metric.prefix, names, metric.aliases) | {f'{metric.prefix}/{name}': name for name in names}
    for key, name in monitors:
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.0)
            hint = f'; did you mean `{near[0]}`?' if near else ''
            raise ConfigError(f'{key}: the validation has no figure `{name}`{hint}')


def monitored(all_hooks: Iterable[hooks.Hook], schedulers: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """The figures that hooks and schedulers wait for, each after its key in the config."""
    for hook in all_hooks:
        if isinstance(hook, hooks.CheckpointHook) and hook.save_best:
            yield from (('default_hooks.checkpoint.save_best', name) for name in hook.key_indicators if name != 'auto')
        elif isinstance(hook, hooks.EarlyStoppingHook):
            yield 'EarlyStoppingHook.monitor', hook.monitor
    for scheduler in schedulers:
        if getattr(scheduler, 'need_val_args', False):
            yield 'param_scheduler.monitor', scheduler.monitor


def _annotation_file(dataset: Any) -> str | None:
    """Of the one data set inside a wrapper; None where there are several."""
    inner = getattr(dataset, 'datasets', ())
    if len(inner) == 1:
        return _annotation_file(inner[0])
    return None if inner else getattr(dataset, 'ann_file', None)
