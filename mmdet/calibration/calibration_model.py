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

from .roi_selectors import DrawnClassSelector, SelectedRoIs


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
        detector.eval().requires_grad_(False)
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
        # The runner calls this before every step; to walk through the whole detector would cost more than the head.
        self.training = mode
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
        with torch.no_grad():
            feats = self.detector.extract_feat(inputs)
            proposals = self.detector.rpn_head.predict(feats, data_samples, self.detector.proposal_cfg)
            feats = self.detector.roi_head.context(feats)
            stages = self.draw_rois(feats, proposals, data_samples)
        drawn_classes = [sample.drawn_class for sample in data_samples]
        losses = {}
        for stage, (sampled, priorities) in enumerate(stages):
            pos_labels = [rois.pos_gt_labels for rois in sampled]
            selected = self.selector.select(pos_labels, drawn_classes, priorities, self.num_classes)
            boxes = selected.of([rois.pos_boxes for rois in sampled], [rois.neg_boxes for rois in sampled])
            with torch.no_grad():
                roi_feats = self.detector.roi_head.box_feats(feats, boxes_to_rois(boxes), stage)
            losses.update(self.loss_of_stage(roi_feats, selected, stage))
        return losses

    @property
    def num_classes(self) -> int:
        """C, the label of background."""
        return self.detector.roi_head.bbox_heads[0].num_classes

    def draw_rois(
        self, feats: Sequence[Tensor], proposals: Sequence, data_samples: Sequence[DetDataSample], draw: int = 0
    ) -> list[tuple[list[SampledRoIs], list[Tensor]]]:
        """Stage by stage the sampled RoIs and their background priorities, drawn from each image's own stream.

        Args:
            feats: what the RoI head's `context` makes of the pyramid.
            proposals: of each image, with `bboxes` in pixels of the network input.
            data_samples: with ground truth and `draw_key`.
            draw: 0 is the draw that training sees; each other number gives one more, independent of it.
        """
        per_image = []
        for i, sample in enumerate(data_samples):
            with keyed_torch_rng(*sample.draw_key, *([draw] if draw else [])):
                of_image = self.detector.roi_head.context_of_image(feats, i)
                stages = self.detector.roi_head.stages_of_rois(of_image, proposals[i : i + 1], [sample])
                per_image.append([(sampled[0], torch.rand(len(sampled[0].neg_boxes))) for sampled in stages])
        return [tuple(map(list, zip(*stage, strict=True))) for stage in zip(*per_image, strict=True)]

    def loss_of_stage(self, roi_feats: Tensor, selected: SelectedRoIs, stage: int) -> dict[str, Tensor]:
        """The calibrator's losses on (R, D, S, S) features of the selected RoIs."""
        shared_feats = base_logits = None
        if self.calibrator.uses_base_outputs:
            base_head = self.detector.roi_head.bbox_heads[stage]
            with torch.no_grad():
                shared_feats = base_head.shared(roi_feats)
                base_logits = base_head.classify(shared_feats)
        logits = self.calibrator.logits(roi_feats, shared_feats, base_logits, stage)
        # DDP averages gradients over ranks, so a rank divides by its even share of the step's RoIs.
        num_rois = max(selected.num_rois_of_step, 1) / get_world_size()
        return self.calibrator.loss(logits, selected.labels.to(logits.device), num_rois, stage)
