"""mmengine's visualizer for detections, under the name mmdetection's configs know."""
from typing import Any

import numpy as np
from mmengine.dist import master_only
from mmengine.visualization import Visualizer

from mmdet.registry import VISUALIZERS

from .draw import draw_detections
from .picture_file import write_picture


@VISUALIZERS.register_module()
class DetLocalVisualizer(Visualizer):
    """Draws ground truth and predictions of a data sample and hands them to the configured backends."""

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: Any = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        pred_score_thr: float = 0.3,
        step: int = 0,
    ) -> None:
        """Draws one image, ground truth on the left and predictions on the right.

        Args:
            name: the picture's name for the backends.
            image: (H, W, 3) uint8 RGB that the boxes and masks of `data_sample` refer to.
            data_sample: DetDataSample with `gt_instances`, `pred_instances` or both; None draws the image alone.
            draw_gt: whether to draw the ground truth there is.
            draw_pred: whether to draw the predictions there are.
            show: show it in a window, for `wait_time` seconds (0: until a key is pressed).
            wait_time: see `show`.
            out_file: write it there, and not to the backends.
            pred_score_thr: predictions with lower scores are not drawn.
            step: global step, for the backends.
        """
        pictures = [
            draw_detections(image, data_sample.get(field), self.dataset_meta['classes'], pred_score_thr)
            for field, wanted in (('gt_instances', draw_gt), ('pred_instances', draw_pred))
            if wanted and data_sample is not None and field in data_sample
        ]
        drawn = np.concatenate(pictures, axis=1) if pictures else image
        self.set_image(drawn)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            write_picture(drawn, out_file)
        else:
            self.add_image(name, drawn, step)
