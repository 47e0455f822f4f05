"""Detections of several views of an image, larger or smaller, mirrored or not, made into one.

Boxes are merged as mmdetection merges them: brought back to the original image, joined, and suppressed within each
class. mmdetection leaves masks out. Here every view's mask head draws the merged detections and no others, each at
the merged box, and a detection's mask is pasted from the mean of the views' probabilities.
"""
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet.errors import ConfigError
from mmdet.models.detectors.two_stage import set_predictions
from mmdet.models.post_processing import RLE
from mmdet.models.post_processing.suppression import suppression_rule
from mmdet.models.roi_heads.base_roi_head import share_masks, to_original_size
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.boxes import boxes_to_rois, flip_boxes, scale_boxes

_FLIPPED_AXES = dict(horizontal=(-1,), vertical=(-2,), diagonal=(-2, -1))


@MODELS.register_module()
class DetTTAModel(BaseModel):
    """A detector (a `BaseDetector`) that looks at several views of each image, as `TestTimeAug` makes them.

    Every score setting's detections are merged by themselves. What was seen of all views of a batch is held
    until its masks are drawn.

    Args:
        module: the detector or its config.
        tta_cfg: `nms`, the rule that suppresses the joined detections, and `max_per_img`, how many are kept.
    """

    def __init__(self, module: nn.Module | dict, tta_cfg: dict):
        super().__init__()
        self.module = module if isinstance(module, nn.Module) else MODELS.build(module)
        tta_cfg = ConfigDict(tta_cfg)
        self.suppress = suppression_rule(tta_cfg.nms)
        self.max_per_img = tta_cfg.max_per_img

    def test_step(self, data: dict[str, Any]) -> list[DetDataSample]:
        """Detect on a batch whose `inputs` and `data_samples` are lists of the views' batches.

        Raises:
            ConfigError: samples that do not say whether they are flipped.
        """
        views = [
            self.module.data_preprocessor(dict(inputs=inputs, data_samples=samples))
            for inputs, samples in zip(data['inputs'], data['data_samples'], strict=True)
        ]
        return self([view['inputs'] for view in views], [view['data_samples'] for view in views], mode='predict')

    def forward(
        self, inputs: Sequence[Tensor], data_samples: Sequence[Sequence[DetDataSample]], mode: str = 'predict'
    ) -> list[DetDataSample]:
        """The first view's data samples with the merged detections, as `TwoStageDetector.predict` gives them.

        Args:
            inputs: V batches (B, 3, H_v, W_v) of normalised images.
            data_samples: V x B samples, with `flip` and `flip_direction`.
            mode: only `'predict'`.
        """
        if mode != 'predict':
            raise ValueError(f'DetTTAModel only predicts; it has no mode {mode!r}')
        if not all('flip' in sample and 'flip_direction' in sample for view in data_samples for sample in view):
            raise ConfigError("tta_pipeline: PackDetInputs must keep 'flip' and 'flip_direction' in its meta_keys")
        detector = self.module
        views_seen, found = [], []
        for images, samples in zip(inputs, data_samples, strict=True):
            seen = detector.look(images, samples)
            found.append(detector.predict_boxes(seen, samples))
            views_seen.append(seen if detector.with_mask else None)
        detections = [
            self._merged(of_views, samples)
            for of_views, samples in zip(zip(*found, strict=True), zip(*data_samples, strict=True), strict=True)
        ]
        if detector.with_mask:
            share_masks(detections, lambda unique: self._masks(views_seen, unique, data_samples))
        for sample, image in zip(data_samples[0], detections, strict=True):
            for instances in image.values():
                del instances.roi_index, instances.view_bboxes
            set_predictions(sample, image)
        return list(data_samples[0])

    def _merged(
        self, views: Sequence[dict[str, InstanceData]], samples: Sequence[DetDataSample]
    ) -> dict[str, InstanceData]:
        """One image's detections of V views as one, under every setting.

        Returns:
            {setting: instances with `bboxes` in pixels of the original image, `scores`, `labels`, `roi_index`, which
            now tells the views' RoIs apart (v modulo V for view v), and `view_bboxes`, the boxes in pixels of their own
            view's network input}.
        """
        merged = {}
        for setting in views[0]:
            joined = InstanceData.cat(
                [
                    InstanceData(
                        bboxes=self._to_original(instances[setting].bboxes, sample),
                        scores=instances[setting].scores,
                        labels=instances[setting].labels,
                        roi_index=instances[setting].roi_index * len(views) + view,
                        view_bboxes=instances[setting].bboxes,
                    )
                    for view, (instances, sample) in enumerate(zip(views, samples, strict=True))
                ]
            )
            falling = joined[joined.scores.argsort(descending=True, stable=True)]
            columns = (falling[key].cpu().numpy() for key in ('bboxes', 'scores', 'labels'))
            kept, scores = self.suppress(*columns, self.max_per_img)
            merged[setting] = falling[torch.from_numpy(kept[: self.max_per_img]).to(falling.scores.device)]
            merged[setting].scores = falling.scores.new_tensor(scores[: self.max_per_img])
        return merged

    def _masks(
        self,
        views_seen: Sequence[Any],
        instances: Sequence[InstanceData],
        data_samples: Sequence[Sequence[DetDataSample]],
    ) -> list[list[RLE]]:
        """The masks of every image's merged detections, of the mean of all views' probabilities."""
        detector = self.module
        labels = torch.cat([image.labels for image in instances])
        total: Tensor | float = 0.0
        for view, (seen, samples) in enumerate(zip(views_seen, data_samples, strict=True)):
            # A box on its way to the original image and back is rounded: its own view has it as it was.
            boxes = [
                torch.where(
                    (image.roi_index % len(views_seen) == view)[:, None],
                    image.view_bboxes,
                    self._to_view(image.bboxes, sample),
                )
                for image, sample in zip(instances, samples, strict=True)
            ]
            probabilities = detector.mask_probabilities(seen, boxes_to_rois(boxes), labels)
            of_images = probabilities.split([len(image) for image in instances])
            total = total + torch.cat(
                [
                    of_image.flip(_FLIPPED_AXES[sample.flip_direction]) if sample.flip else of_image
                    for of_image, sample in zip(of_images, samples, strict=True)
                ]
            )
        means = (total / len(views_seen)).split([len(image) for image in instances])
        return [
            detector.paste(mean, image.bboxes, sample)
            for mean, image, sample in zip(means, instances, data_samples[0], strict=True)
        ]

    def _to_original(self, boxes: Tensor, sample: DetDataSample) -> Tensor:
        """Boxes in pixels of a view's network input -> in pixels of the original image."""
        return self._mirrored(to_original_size(boxes, sample), sample)

    def _to_view(self, boxes: Tensor, sample: DetDataSample) -> Tensor:
        """The inverse of `_to_original`."""
        return scale_boxes(self._mirrored(boxes, sample), sample.scale_factor)

    def _mirrored(self, boxes: Tensor, sample: DetDataSample) -> Tensor:
        if not sample.flip:
            return boxes
        size = [length - self.module.last_pixel for length in sample.ori_shape]
        return flip_boxes(boxes, size, sample.flip_direction)
