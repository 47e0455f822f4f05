"""Pictures of what a detector finds, while it is validated or tested."""
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet.errors import ConfigError
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmdet.visualization import draw_detections, write_picture


@HOOKS.register_module()
class DetVisualizationHook(Hook):
    """Draws detections: in testing on every image, in validation on one every `interval` batches, for the visualizer.

    Args:
        draw: whether to do so.
        interval: batches of validation.
        score_thr: detections with lower scores are not drawn.
        show: in testing, show each picture in a window for `wait_time` seconds (0: until a key is pressed).
        wait_time: see `show`.
        test_out_dir: in testing, write each picture there under its image's path below the folder that all images are
            in, in a folder for each score setting where there are several.

    Raises:
        ConfigError: `show` without a display.
    """

    def __init__(
        self,
        draw: bool = False,
        interval: int = 50,
        score_thr: float = 0.3,
        show: bool = False,
        wait_time: float = 0.0,
        test_out_dir: str | None = None,
    ):
        if show and sys.platform == 'linux' and not (os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
            raise ConfigError('--show: there is no display to show pictures on; write them with --show-dir')
        self.draw = draw
        self.interval = interval
        self.score_thr = score_thr
        self.show = show
        self.wait_time = wait_time
        self.test_out_dir = test_out_dir
        self._image_folder = ''

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[DetDataSample] = ()
    ) -> None:
        """Hand the first image's picture of every `interval`-th batch to the visualizer."""
        if self.draw and self.every_n_inner_iters(batch_idx, self.interval):
            classes = runner.val_dataloader.dataset.metainfo['classes']
            step = runner.message_hub.get_info('iter', 0) + batch_idx
            runner.visualizer.add_image('val_img', self._picture(outputs[0], 'pred_instances', classes), step)

    def before_test(self, runner: Runner) -> None:
        """Find out which folders tell images of the same name apart."""
        if self.draw:
            self._image_folder = _folder_of_all(runner.test_dataloader.dataset)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[DetDataSample] = ()
    ) -> None:
        """Show and write the pictures of a batch."""
        if not self.draw:
            return
        classes = runner.test_dataloader.dataset.metainfo['classes']
        for sample in outputs:
            image_name = os.path.relpath(sample.img_path, self._image_folder)
            of_settings = [name for name in sample.keys() if name.startswith('pred_instances_')]
            for predictions in of_settings or ['pred_instances']:
                picture = self._picture(sample, predictions, classes)
                name = Path(predictions.removeprefix('pred_instances').lstrip('_')) / image_name
                if self.show:
                    runner.visualizer.show(picture, win_name=str(name), wait_time=self.wait_time)
                if self.test_out_dir is not None:
                    write_picture(picture, Path(self.test_out_dir) / name)

    def _picture(self, sample: DetDataSample, predictions: str, classes: Sequence[str]) -> np.ndarray:
        image = mmcv.imread(sample.img_path, channel_order='rgb')
        return draw_detections(image, sample.get(predictions), classes, self.score_thr)


def _folder_of_all(dataset: Any) -> str:
    """The innermost folder that holds all images of a data set."""
    paths = (dataset.get_data_info(index)['img_path'] for index in range(len(dataset)))
    return os.path.commonpath({os.path.dirname(os.path.abspath(path)) for path in paths})
