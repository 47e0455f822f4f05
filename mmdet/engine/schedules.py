"""Learning rates and momenta of a run that is resumed with epochs of another length."""
import warnings
from collections.abc import Sequence
from typing import Any

from mmengine.optim import OptimWrapper, _ParamScheduler


def scheduled_values(optim_wrapper: OptimWrapper, schedulers: Sequence[_ParamScheduler]) -> list[dict[str, Any]]:
    """For each group of parameters the learning rate, and what else schedulers set, with their initial values."""
    scheduled = {'lr', *(scheduler.param_name for scheduler in schedulers)}
    names = scheduled | {f'initial_{name}' for name in scheduled}
    return [{name: group[name] for name in names & group.keys()} for group in optim_wrapper.param_groups]


def replay_schedules(
    optim_wrapper: OptimWrapper,
    schedulers: Sequence[_ParamScheduler],
    as_built: Sequence[dict[str, Any]],
    num_epochs: int,
    epoch_length: int,
) -> None:
    """Set learning rates, momenta and schedulers to where a run is after so many epochs.

    Args:
        optim_wrapper: whose groups of parameters may have any values.
        schedulers: newly built for epochs of this length, none of which depends on figures.
        as_built: `scheduled_values` of that time.
        num_epochs: that are over.
        epoch_length: in iterations.
    """
    for group, values in zip(optim_wrapper.param_groups, as_built, strict=True):
        group.update(values)
    of_epochs = [scheduler for scheduler in schedulers if scheduler.by_epoch]
    of_iterations = [scheduler for scheduler in schedulers if not scheduler.by_epoch]
    with warnings.catch_warnings():
        # The optimizer has taken its steps in the run that wrote the checkpoint.
        warnings.filterwarnings('ignore', message='Detected call of `scheduler.step')
        for _ in range(num_epochs):
            for _ in range(epoch_length):
                for scheduler in of_iterations:
                    scheduler.step()
            for scheduler in of_epochs:
                scheduler.step()
