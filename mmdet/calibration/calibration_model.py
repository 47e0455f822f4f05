"""Frozen detector in, calibration loss out."""
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import Tensor

from mmdet.models.detectors import BaseDetector
from mmdet.models.roi_heads.roi_outputs import RoIOutputs
from mmdet.models.task_modules import SampledRoIs
from mmdet.structures import DetDataSample
from mmdet.structures.boxes import boxes_to_rois
from mmdet.utils.seeding import keyed_torch_rng

from .calibrator import Calibrator
from .roi_selectors import RoISelector, SelectedRoIs
from .step_rois import StepRoIs


class CalibrationModel(BaseModel):
    """What the runner trains in calibration: the calibrator inside a detector that stays as it is.

    The detector is frozen and in eval mode whatever `train()` is called with, so that neither its parameters
    nor its batch-norm statistics move. The state dict is the detector's, calibrator included: every checkpoint of a
    calibration is a calibrated detector.

    Args:
        detector: with a calibrator that is bound to it.
        selector: chooses among the RoIs of a step.
    """

    def __init__(self, detector: BaseDetector, selector: RoISelector):
        super().__init__(data_preprocessor=detector.data_preprocessor)
        learnt = [parameter for parameter in detector.calibrator.parameters() if parameter.requires_grad]
        detector.eval().requires_grad_(False)
        for parameter in learnt:
            parameter.requires_grad_(True)
        self.detector = detector
        self.selector = selector

    @property
    def calibrator(self) -> Calibrator:
        """The part that learns."""
        return self.detector.calibrator

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

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """One step; a calibrator without parameters only observes."""
        if self.calibrator.is_trained:
            return super().train_step(data, optim_wrapper)
        with torch.no_grad(), optim_wrapper.optim_context(self):
            self._run_forward(self.data_preprocessor(data, True), mode='loss')
        return {}

    def forward(
        self, inputs: Tensor, data_samples: Sequence[DetDataSample], mode: str = 'loss'
    ) -> dict[str, Tensor] | list[DetDataSample]:
        """The step's calibration losses, or in mode `'predict'` the calibrated detector's detections."""
        if mode != 'loss':
            return self.detector(inputs, data_samples, mode)
        with torch.no_grad():
            feats = self.detector.extract_feat(inputs)
            proposals = self.detector.train_proposals(feats, data_samples)
            feats = self.detector.context(feats)
            stages = self.draw_rois(feats, proposals, data_samples)
        drawn_classes = [sample.get('drawn_class') for sample in data_samples]
        keys = [sample.draw_key for sample in data_samples]
        losses = {}
        for stage, (sampled, priorities) in enumerate(stages):
            pos_labels = [rois.pos_gt_labels for rois in sampled]
            selected = self.selector.select(pos_labels, drawn_classes, priorities, self.num_classes)
            boxes = selected.of([rois.pos_boxes for rois in sampled], [rois.neg_boxes for rois in sampled])
            with torch.no_grad():
                roi_feats = self.detector.box_feats(feats, boxes_to_rois(boxes), stage)
            losses.update(self.learn(dict(roi_feats=roi_feats), selected, keys, stage))
        return losses

    @property
    def num_classes(self) -> int:
        """C, the label of background."""
        return self.detector.box_heads[0].num_classes

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
                of_image = self.detector.context_of_image(feats, i)
                stages = self.detector.stages_of_rois(of_image, proposals[i : i + 1], [sample])
                per_image.append([(sampled[0], torch.rand(len(sampled[0].neg_boxes))) for sampled in stages])
        return [tuple(map(list, zip(*stage, strict=True))) for stage in zip(*per_image, strict=True)]

    def learn(
        self, feats: dict[str, Tensor], selected: SelectedRoIs, keys: Sequence[tuple[int, ...]], stage: int
    ) -> dict[str, Tensor]:
        """Show the selected RoIs of a stage to the calibrator.

        Args:
            feats: what is known of the R RoIs: `roi_feats` or `class_feats`, see `RoIOutputs`.
            selected: which they are.
            keys: for each image what its random numbers are keyed to.
            stage: of a cascade.

        Returns:
            The calibrator's losses; nothing of one that only observes.
        """
        outputs = RoIOutputs(self.detector.box_heads[stage], **feats)
        device = next(iter(feats.values())).device
        step = StepRoIs(
            labels=selected.labels.to(device),
            # DDP averages gradients over ranks, so a rank divides by its even share of the step's RoIs.
            num_rois=max(selected.num_rois_of_step, 1) / get_world_size(),
            sizes=selected.sizes(),
            keys=[(*key, stage) for key in keys],
        )
        if self.calibrator.observes:
            with torch.no_grad():
                self.calibrator.observe(outputs, step, stage)
        if not self.calibrator.is_trained:
            return {}
        return self.calibrator.loss(self.calibrator.logits(outputs, stage), step, stage)
