"""What happens around a training step beside the step: seeding, checkpoints, progress."""
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine import hooks
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend

from mmdet.errors import CheckpointError
from mmdet.registry import HOOKS
from mmdet.utils.files import written_whole

from .checkpoint import LAST_CHECKPOINT
from .progress import ProgressDisplay


@HOOKS.register_module()
class SeedEachIterationHook(hooks.Hook):
    """Makes a training step's random numbers a function of (seed, rank, iteration), the same in a resumed run."""

    priority = 'HIGHEST'

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed torch (every device), numpy and `random`."""
        torch_seed, other_seed = np.random.SeedSequence([runner.seed, runner.rank, runner.iter]).generate_state(2)
        torch.manual_seed(int(torch_seed))
        np.random.seed(other_seed)
        random.seed(int(other_seed))


@HOOKS.register_module()
class CheckpointHook(hooks.CheckpointHook):
    """mmengine's, made safe against a crash or a full disk: an old checkpoint goes only when the new one is there."""

    _default_greater_keys = [*hooks.CheckpointHook._default_greater_keys, 'AP', 'AR']

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        for unknown in self.args:
            raise TypeError(f"CheckpointHook.__init__() got an unexpected keyword argument '{unknown}'")

    def before_train(self, runner) -> None:
        """Find out where checkpoints go and, in a resumed run, which there are."""
        work_dir = Path(runner.work_dir)
        self.out_dir = str(work_dir if self.out_dir is None else Path(self.out_dir) / work_dir.name)
        self.file_backend = LocalBackend()
        self.file_client_args = None
        known = runner.message_hub.get_info
        self.keep_ckpt_ids = list(known('keep_ckpt_ids', []))
        if self.save_best and len(self.key_indicators) == 1:
            self.best_ckpt_path = known('best_ckpt')
        elif self.save_best:
            self.best_ckpt_path_dict = {name: known(f'best_ckpt_{name}') for name in self.key_indicators}

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        outdated = []
        if self.max_keep_ckpts > 0:
            steps = [old for old in self.keep_ckpt_ids if old != step] + [step]
            outdated, self.keep_ckpt_ids = steps[: -self.max_keep_ckpts], steps[-self.max_keep_ckpts :]
            runner.message_hub.update_info('keep_ckpt_ids', self.keep_ckpt_ids)
        path = Path(self.out_dir) / self.filename_tmpl.format(step)
        self.last_ckpt = str(path)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            path.name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
        )
        if is_main_process():
            with written_whole(Path(runner.work_dir) / LAST_CHECKPOINT, CheckpointError) as file:
                file.write(self.last_ckpt.encode())
            for old in outdated:
                (Path(self.out_dir) / self.filename_tmpl.format(old)).unlink(missing_ok=True)


@HOOKS.register_module()
class EarlyStoppingHook(hooks.EarlyStoppingHook):
    """mmengine's, which knows of APs and ARs too that the greater is the better."""

    _default_greater_keys = [*hooks.EarlyStoppingHook._default_greater_keys, 'AP', 'AR']


@HOOKS.register_module()
class ProgressBarHook(hooks.Hook):
    """Shows on stderr how far training, validation and testing are, with the remaining time.

    Args:
        interval: seconds between two lines where stderr is not a terminal.
    """

    priority = 'VERY_LOW'

    def __init__(self, interval: float = 30.0):
        self._display = ProgressDisplay(interval) if is_main_process() else None

    def before_train(self, runner) -> None:
        """Begin where the run begins or is resumed."""
        if self._display and runner.iter < runner.max_iters:
            self._display.begin('train', runner.max_iters, runner.iter)

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Mapping | None = None) -> None:
        """Show the loss."""
        if self._display:
            loss = (outputs or {}).get('loss')
            self._display.advance('train', '' if loss is None else f'loss {loss.item():.3f}')

    def after_train(self, runner) -> None:
        """Take the bar away."""
        self.close()

    def before_val(self, runner) -> None:
        """Begin a validation."""
        self._begin('validate', runner.val_dataloader)

    def after_val_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None) -> None:
        """One batch more."""
        self._advance('validate')

    def after_val_epoch(self, runner, metrics: Mapping[str, float] | None = None) -> None:
        """Say the overall APs; all figures are in the log file."""
        if self._display:
            self._display.end('validate')
            figures = [f'{name} {value:.4f}' for name, value in (metrics or {}).items() if name.endswith('AP')]
            self._display.say(f'validation: {", ".join(figures) or metrics}')

    def before_test(self, runner) -> None:
        """Begin a test."""
        self._begin('test', runner.test_dataloader)

    def after_test_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None) -> None:
        """One batch more."""
        self._advance('test')

    def after_test(self, runner) -> None:
        """Take the bar away."""
        self.close()

    def close(self) -> None:
        """Give the terminal back, however the run ended."""
        if self._display:
            self._display.close()

    def _begin(self, name: str, dataloader: Sequence) -> None:
        if self._display:
            self._display.begin(name, len(dataloader))

    def _advance(self, name: str) -> None:
        if self._display:
            self._display.advance(name)
