"""Frozen detector in, calibration loss out."""
from collections.abc import Sequence

import torch
from mmengine.dist import get_world_size
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmdet.models.task_modules import SampledRoIs
from mmdet.structures import DetDataSample
from mmdet.structures.boxes import boxes_to_rois
from mmdet.utils.seeding import keyed_torch_rng

from .roi_selectors import DrawnClassSelector


class CalibrationModel(BaseModel):
    """What the runner trains in calibration: the calibrator inside a detector that stays as it is.

    The detector is frozen and in eval mode whatever `train()` is called with, so that neither its parameters
    nor its batch-norm statistics move. The state dict is the detector's, calibrator included: every checkpoint of a
    calibration is a calibrated detector.

    Args:
        detector: with `roi_head.calibrator` attached and bound.
        selector: chooses among the RoIs of a step.
    """

    def __init__(self, detector: nn.Module, selector: DrawnClassSelector):
        super().__init__(data_preprocessor=detector.data_preprocessor)
        detector.requires_grad_(False)
        detector.roi_head.calibrator.requires_grad_(True)
        self.detector = detector
        self.selector = selector

    @property
    def calibrator(self) -> nn.Module:
        """The part that learns."""
        return self.detector.roi_head.calibrator

    def init_weights(self) -> None:
        """Leave everything as it is: the runner calls this before training, and the detector is trained already."""

    def train(self, mode: bool = True) -> 'CalibrationModel':
        """Set the calibrator's mode; the detector around it stays in eval mode."""
        super().train(mode)
        self.detector.eval()
        self.calibrator.train(mode)
        return self

    def state_dict(self, *args, **kwargs) -> dict[str, Tensor]:
        """The detector's state dict, calibrator included."""
        return self.detector.state_dict(*args, **kwargs)

    def load_state_dict(self, *args, **kwargs):
        """The inverse of `state_dict`."""
        return self.detector.load_state_dict(*args, **kwargs)

    def forward(
        self, inputs: Tensor, data_samples: Sequence[DetDataSample], mode: str = 'loss'
    ) -> dict[str, Tensor] | list[DetDataSample]:
        """The step's calibration losses, or in mode `'predict'` the calibrated detector's detections."""
        if mode != 'loss':
            return self.detector(inputs, data_samples, mode)
        roi_head = self.detector.roi_head
        with torch.no_grad():
            feats = self.detector.extract_feat(inputs)
            proposals = self.detector.rpn_head.predict(feats, data_samples, self.detector.proposal_cfg)
            stages = list(self._stages_of_rois(feats, proposals, data_samples))
            feats = roi_head.context(feats)
        drawn_classes = [sample.drawn_class for sample in data_samples]
        losses = {}
        for stage, (sampled, priorities) in enumerate(stages):
            base_head = roi_head.bbox_heads[stage]
            selected = self.selector.select(sampled, drawn_classes, priorities, base_head.num_classes)
            with torch.no_grad():
                roi_feats = roi_head.box_feats(feats, boxes_to_rois(selected.boxes), stage)
                shared_feats = base_head.shared(roi_feats)
                base_logits = base_head.classify(shared_feats)
            logits = self.calibrator.logits(roi_feats, shared_feats, base_logits, stage)
            # DDP averages gradients over ranks, so a rank divides by its even share of the step's RoIs.
            num_rois = max(selected.num_rois_of_step, 1) / get_world_size()
            losses.update(self.calibrator.loss(logits, selected.labels, num_rois, stage))
        return losses

    def _stages_of_rois(
        self, feats: Sequence[Tensor], proposals: Sequence, data_samples: Sequence[DetDataSample]
    ) -> list[tuple[list[SampledRoIs], list[Tensor]]]:
        """Stage by stage the sampled RoIs and their background priorities, drawn from each image's own stream."""
        per_image = []
        for i, sample in enumerate(data_samples):
            with keyed_torch_rng(*sample.draw_key):
                levels = [level[i : i + 1] for level in feats]
                stages = self.detector.roi_head.stages_of_rois(levels, proposals[i : i + 1], [sample])
                per_image.append([(sampled[0], torch.rand(len(sampled[0].neg_boxes))) for sampled in stages])
        return [tuple(map(list, zip(*stage, strict=True))) for stage in zip(*per_image, strict=True)]
