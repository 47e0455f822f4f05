"""The runner: mmengine's, with checkpoints of our own, exact resumption and a quiet terminal."""
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine import Config, runner
from mmengine.device import get_device
from mmengine.dist import barrier
from mmengine.logging import HistoryBuffer, MMLogger
from mmengine.model import MMDistributedDataParallel, is_model_wrapper
from torch import nn
from torch.utils.data import DataLoader

import mmdet
from mmdet.errors import CheckpointError, ConfigError
from mmdet.structures import ClassFrequency

from . import checkpoint as files
from .figures import check_monitored, give_ground_truth, monitored, with_other_names
from .hooks import ProgressBarHook
from .schedules import replay_schedules, scheduled_values
from .terminal import quieten

# A gradient's strides may be others than its weight's where a size is 1: nothing is lost by it.
warnings.filterwarnings('ignore', message='Grad strides do not match bucket view strides')


class Runner(runner.Runner):
    """Trains, validates and tests what a config describes.

    A resumed run is the run that was interrupted, to the bit: weights, optimizer, schedules and the position in the
    order of the data come from the checkpoint, and every step's random numbers are keyed to (seed, rank, iteration).
    With an `EpochBasedTrainLoop` that holds for checkpoints of an epoch's end, with an `IterBasedTrainLoop` for all. An
    epoch-based run that is resumed with other processes or another batch size trains the epochs that remain, with
    iterations and schedules as if it had always had so many iterations an epoch.

    A checkpoint's `meta` says what a test needs beside the weights: `dataset_meta` (`classes`, `category_ids`),
    `class_frequency` (of the training annotations), `cfg`, `epoch`, `iter`, `seed`, `version` and `checkpoint_meta`.

    Differences from mmengine's `resume`: `True` continues `load_from`, or the last checkpoint in the working directory;
    `'auto'` continues the last checkpoint, or starts as with `False` where there is none; a path continues that
    checkpoint.
    """

    _runs_started: Counter[str] = Counter()

    def __init__(self, *args, cfg: Config | dict | None = None, **settings):
        super().__init__(*args, cfg=_WrittenOnce.of(cfg), **settings)

    def setup_env(self, env_cfg: dict) -> None:
        """Prepare the processes; runs that start within one second still get names (and logs) of their own."""
        super().setup_env(env_cfg)
        self._runs_started[self._timestamp] += 1
        if self._runs_started[self._timestamp] > 1:
            self._timestamp += f'_{self._runs_started[self._timestamp]}'

    def build_logger(self, log_level: int | str = 'INFO', log_file: str | None = None, **kwargs) -> MMLogger:
        """Everything goes to the log file, to the terminal only warnings (everything where `log_level='DEBUG'`)."""
        return quieten(super().build_logger(log_level, log_file, **kwargs))

    def register_default_hooks(self, hooks: dict | None = None) -> None:
        """mmengine's default hooks, each iteration's seeding and the progress bar."""
        own = dict(seed=dict(type='SeedEachIterationHook'), progress=dict(type='ProgressBarHook'))
        for name, hook in (hooks or {}).items():
            if name in own and hook is None:
                del own[name]
            else:
                own[name] = hook
        super().register_default_hooks(own)

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """As mmengine's; with `num_workers=0` the settings that only workers have are left out."""
        if isinstance(dataloader, Mapping):
            dataloader = dict(dataloader)
            for name, least in dict(batch_size=1, num_workers=0).items():
                if not isinstance(dataloader.get(name, least), int) or dataloader.get(name, least) < least:
                    raise ConfigError(f'a dataloader has {name}={dataloader[name]}: must be an integer from {least}')
            if not dataloader.get('num_workers'):
                dataloader.pop('persistent_workers', None)
                dataloader.pop('prefetch_factor', None)
            # mmengine copies what it is given; a data set that is built already would be in memory twice.
            for part in ('dataset', 'sampler'):
                if not isinstance(dataloader[part], Mapping):
                    dataloader[part] = dict(type=_builder_of(dataloader[part]))
        return runner.Runner.build_dataloader(dataloader, seed, diff_rank_seed)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Move a model to its device and make it data-parallel where there are several processes, also on CPUs.

        A model that learns nothing is only moved: there are no gradients to average.
        """
        if not any(parameter.requires_grad for parameter in model.parameters()):
            return model.to(get_device())
        if not self.distributed or get_device() != 'cpu' or is_model_wrapper(model):
            return super().wrap_model(model_wrapper_cfg, model)
        settings = dict(broadcast_buffers=False, find_unused_parameters=self.cfg.get('find_unused_parameters', False))
        settings.update({key: value for key, value in (model_wrapper_cfg or {}).items() if key != 'type'})
        with warnings.catch_warnings():
            # torch 2.14 announces another name for `broadcast_buffers`, which torch 2.6 does not know.
            warnings.simplefilter('ignore', FutureWarning)
            return MMDistributedDataParallel(model, device_ids=None, **settings)

    def build_val_loop(self, loop: runner.BaseLoop | dict) -> runner.BaseLoop:
        """mmengine's, whose metrics have the validation data's annotations where they were given none."""
        loop = super().build_val_loop(loop)
        give_ground_truth(loop.evaluator.metrics, loop.dataloader.dataset, 'val_dataloader')
        return loop

    def build_test_loop(self, loop: runner.BaseLoop | dict) -> runner.BaseLoop:
        """mmengine's, whose metrics have the test data's annotations where they were given none."""
        loop = super().build_test_loop(loop)
        give_ground_truth(loop.evaluator.metrics, loop.dataloader.dataset, 'test_dataloader')
        return loop

    def call_hook(self, fn_name: str, **arguments: Any) -> None:
        """mmengine's; before a training figures that are waited for are checked, after a validation all names found.

        Raises:
            ConfigError: `save_best` or a `monitor` names a figure that no validation gives.
        """
        if fn_name == 'before_train' and isinstance(self._val_loop, runner.BaseLoop):
            check_monitored(self._val_loop.evaluator.metrics, monitored(self.hooks, self.param_schedulers or ()))
        elif fn_name == 'after_val_epoch' and arguments.get('metrics') is not None:
            arguments['metrics'] = with_other_names(arguments['metrics'], self._val_loop.evaluator.metrics)
        super().call_hook(fn_name, **arguments)

    def train(self) -> nn.Module:
        """Train from the start or from where a checkpoint stopped; returns the model."""
        self._resumed_from = files.checkpoint_to_resume(self._resume, self.work_dir, self._load_from)
        if self._resume and self._resumed_from is None:
            self.logger.warning(f'nothing to resume in {self.work_dir}: the training starts from the beginning')
        if self._resumed_from is not None:
            self._resumed = files.read_checkpoint(self._resumed_from)
            self._take_over_seed(self._resumed['meta'].get('seed'))
        try:
            model = super().train()
        finally:
            self._close_display()
            self._end_workers()
        barrier()  # the first process may still be writing the last checkpoint
        return model

    def val(self) -> dict:
        """Validate; returns the metrics."""
        try:
            return super().val()
        finally:
            self._close_display()
            self._end_workers()

    def test(self) -> dict:
        """Test; returns the metrics."""
        try:
            return super().test()
        finally:
            self._close_display()
            self._end_workers()

    def _end_workers(self) -> None:
        """End the data loaders' workers.

        Left to the garbage collector, which takes their queues away first, each would be waited for in vain.
        """
        for loop in (self._train_loop, self._val_loop, self._test_loop):
            for holder in (getattr(loop, 'dataloader_iterator', None), getattr(loop, 'dataloader', None)):
                iterator = getattr(holder, '_iterator', None)
                if iterator is not None:
                    holder._iterator = None
                    # The traceback of an error may hold the iterator for longer.
                    getattr(iterator, '_shutdown_workers', lambda: None)()

    def load_or_resume(self) -> None:
        """Load the weights a run starts from, once."""
        if self._has_loaded:
            return
        if getattr(self, '_resumed_from', None) is not None:
            self._restore(self._resumed, self._resumed_from)
            del self._resumed
        elif self._load_from is not None:
            self.load_checkpoint(self._load_from)
        self._has_loaded = True

    def load_checkpoint(self, filename: str, map_location: str = 'cpu', strict: bool = False) -> dict:
        """Load weights from a checkpoint.

        Args:
            filename: path or address.
            map_location: device of the checkpoint's tensors.
            strict: whether every parameter must be in both; otherwise what fits is loaded, with a warning of the rest.

        Raises:
            CheckpointError: an unreadable checkpoint, or one that does not fit.
        """
        checkpoint = files.read_checkpoint(filename, map_location)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        if strict:
            files.load_weights(self._bare_model, checkpoint, filename)
        else:
            kept = files.load_matching_weights(self._bare_model, checkpoint, filename)
            if kept:
                self.logger.warning(
                    f'{filename}: {len(kept)} parameters of the model are not in the checkpoint, or of another shape, '
                    f'and keep their initial values: {", ".join(kept[:3])}{", ..." if len(kept) > 3 else ""}'
                )
        self._has_loaded = True
        self.logger.info(f'Loaded {filename}')
        return checkpoint

    def resume(self, filename: str) -> None:
        """Continue the run that wrote a checkpoint: weights, optimizer, schedules, logs, epoch and iteration.

        Raises:
            CheckpointError: an unreadable checkpoint, one of another model, or one without an optimizer's state.
        """
        self._restore(files.read_checkpoint(filename), filename)
        self._has_loaded = True

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        **backend: Any,
    ) -> None:
        """Write the state of the run, whole or not at all; only the first process writes.

        Args:
            out_dir, filename: where.
            save_optimizer, save_param_scheduler: whether the run can be resumed from it.
            meta: `epoch` and `iter` where they are not the running ones.
            by_epoch: whether an epoch has just ended, or else an iteration.
            backend: mmengine's storage settings, which are not used: checkpoints are local files.

        Raises:
            CheckpointError: where it cannot be written.
        """
        if self.rank != 0:
            return
        reached = dict(epoch=self.epoch + by_epoch, iter=self.iter + (not by_epoch))
        if isinstance(self.train_loop, runner.EpochBasedTrainLoop):
            reached['epoch_length'] = len(self.train_dataloader)
        checkpoint = dict(
            meta={**reached, **(meta or {}), **self._run_meta, **self.checkpoint_meta, 'seed': self.seed},
            state_dict=self._bare_model.state_dict(),
            message_hub=self.message_hub.state_dict(),
        )
        if save_optimizer:
            checkpoint['optimizer'] = self.optim_wrapper.state_dict()
        if save_param_scheduler and self.param_schedulers is not None:
            checkpoint['param_schedulers'] = [scheduler.state_dict() for scheduler in self.param_schedulers]
        self.call_hook('before_save_checkpoint', checkpoint=checkpoint)
        files.save_checkpoint(checkpoint, Path(out_dir) / filename)

    @cached_property
    def checkpoint_meta(self) -> dict[str, Any]:
        """More to be kept in the `meta` of every checkpoint; the caller fills it before training."""
        return {}

    @property
    def _bare_model(self) -> nn.Module:
        return self.model.module if is_model_wrapper(self.model) else self.model

    @cached_property
    def _run_meta(self) -> dict[str, Any]:
        """What is the same in all checkpoints of a run."""
        return run_meta(self.cfg, self.train_dataloader.dataset)

    def _take_over_seed(self, seed: int | None) -> None:
        """Before anything random is built, continue with the seed of the interrupted run."""
        wanted = self._randomness_cfg.get('seed')
        if wanted is not None and seed is not None and wanted != seed:
            raise ConfigError(
                f'{self._resumed_from} was trained with seed {seed}, this run has seed {wanted}: '
                f'resume with --seed {seed}, or start anew in another --work-dir'
            )
        if wanted is None and seed is not None:
            self._randomness_cfg.update(seed=seed)
            self.set_randomness(**self._randomness_cfg)

    def _restore(self, checkpoint: dict, path: str) -> None:
        missing = [key for key in ('optimizer', 'message_hub') if key not in checkpoint]
        if missing or not {'epoch', 'iter'} <= checkpoint['meta'].keys():
            raise CheckpointError(
                f'{path}: holds weights but not the state of a training, so it cannot be resumed; '
                f'start from it with --cfg-options load_from={path}'
            )
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        files.load_weights(self._bare_model, checkpoint, path)
        self.train_loop._epoch = checkpoint['meta']['epoch']
        self.train_loop._iter = checkpoint['meta']['iter']
        self.message_hub.load_state_dict(_with_log_buffers(checkpoint['message_hub']))
        schedulers = list(self.param_schedulers or ())
        as_built = scheduled_values(self.optim_wrapper, schedulers)
        try:
            self.optim_wrapper.load_state_dict(checkpoint['optimizer'])
            pairs = list(zip(schedulers, checkpoint.get('param_schedulers', ()), strict=True))
            if self._has_epochs_of_another_length(checkpoint['meta']):
                self._rescale(as_built, path)
            else:
                for scheduler, state in pairs:
                    scheduler.load_state_dict(state)
        except (ValueError, KeyError) as error:
            raise CheckpointError(
                f'{path}: was trained with another optim_wrapper or param_scheduler than the config has now; '
                f'resume with the config it was trained with'
            ) from error
        self._warn_within_epoch(path)
        self.logger.info(f'Resumed {path} at epoch {self.epoch}, iteration {self.iter}')

    def _has_epochs_of_another_length(self, meta: Mapping[str, Any]) -> bool:
        """Whether the run that wrote a checkpoint had more iterations an epoch than this one, or fewer."""
        if not isinstance(self.train_loop, runner.EpochBasedTrainLoop):
            return False
        length = len(self.train_dataloader)
        if 'epoch_length' in meta:
            return meta['epoch_length'] != length
        # Older checkpoints do not say it; most of them were written at the end of an epoch.
        epoch, iteration = meta['epoch'], meta['iter']
        at_an_end = epoch > 0 and iteration % epoch == 0
        return iteration != epoch * length and (at_an_end or iteration // length != epoch)

    def _rescale(self, as_built: list[dict[str, Any]], path: str) -> None:
        """Go on as if all epochs had had as many iterations as they have here.

        Args:
            as_built: the scheduled values before the checkpoint was loaded.
            path: of the checkpoint, for messages.

        Raises:
            CheckpointError: a schedule that depends on figures, whose past is not known.
        """
        length = len(self.train_dataloader)
        reason = f'{path} is of a run with other processes or another batch size, not of {length} iterations an epoch'
        schedulers = list(self.param_schedulers or ())
        for scheduler in schedulers:
            if getattr(scheduler, 'need_val_args', False):
                raise CheckpointError(
                    f'{reason}: {type(scheduler).__name__} cannot be rescaled; resume with the batch size it had'
                )
        self.train_loop._iter = self.epoch * length
        replay_schedules(self.optim_wrapper, schedulers, as_built, self.epoch, length)
        self.logger.warning(
            f'{reason}: the remaining {self.max_epochs - self.epoch} epochs are trained with schedules of that length'
        )

    def _warn_within_epoch(self, path: str) -> None:
        """An epoch-based loop begins its epochs at their beginning."""
        by_epoch = isinstance(self.train_loop, runner.EpochBasedTrainLoop)
        if by_epoch and self.iter != self.epoch * len(self.train_dataloader):
            self.logger.warning(
                f'{path} was written within epoch {self.epoch + 1}, which starts over: save at the ends of epochs, '
                f'or use an IterBasedTrainLoop, to resume exactly'
            )

    def _close_display(self) -> None:
        for hook in self.hooks:
            if isinstance(hook, ProgressBarHook):
                hook.close()


class _WrittenOnce(Config):
    """A config whose text, asked for by mmengine again and again, is formatted once: that takes half a second."""

    @classmethod
    def of(cls, config: Config | dict | None) -> '_WrittenOnce':
        written_once = cls.__new__(cls)
        written_once.__setstate__((config if isinstance(config, Config) else Config(config)).__getstate__())
        return written_once

    @cached_property
    def pretty_text(self) -> str:
        return super().pretty_text


def _builder_of(built: Any) -> Callable[..., Any]:
    """A `type` for a config whose component is built already; functions are not copied in deep copies."""
    return lambda **_: built


def run_meta(cfg: Config, dataset: Any) -> dict[str, Any]:
    """What a checkpoint's `meta` says of the config and of the training data."""
    meta = dict(cfg=cfg.pretty_text, version=mmdet.__version__)
    metainfo = getattr(dataset, 'metainfo', None) or {}
    meta['dataset_meta'] = {key: list(metainfo[key]) for key in ('classes', 'category_ids') if key in metainfo}
    frequency = class_frequency(dataset)
    if frequency is not None:
        meta['class_frequency'] = frequency.to_dict()
    return meta


def class_frequency(dataset: Any) -> ClassFrequency | None:
    """Training instances of every class, of a data set or of the one inside a wrapper; None where it has no counts."""
    counting = counting_dataset(dataset)
    return None if counting is None else counting.class_frequency()


def counting_dataset(dataset: Any) -> Any | None:
    """The data set, or the one inside a wrapper, that has `class_frequency`; None where neither has."""
    while not hasattr(dataset, 'class_frequency') and hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    return dataset if hasattr(dataset, 'class_frequency') else None


def _with_log_buffers(state: dict) -> dict:
    """A message hub's state as mmengine has it, from plain data."""
    scalars = {
        name: HistoryBuffer(buffer['log_history'].numpy(), buffer['count_history'].numpy())
        if isinstance(buffer, dict)
        else buffer
        for name, buffer in state['log_scalars'].items()
    }
    return dict(state, log_scalars=scalars)
