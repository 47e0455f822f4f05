"""Props-GT, the paper's upper bound: what a detector would reach if every proposal were told its class.

A proposal takes the class of the ground truth it overlaps most, at IoU 0.5 or more, with its objectness for a score;
others are dropped. Boxes, masks and suppression are the detector's own, so that what is missing to a perfect result
is the fault of these, and what lies between the detector and its upper bound that of its classifier.
"""
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads.roi_outputs import RoIOutputs
from mmdet.structures import DetDataSample
from mmdet.structures.boxes import box_iou

SETTING = 'props_gt'
IOU_THRESHOLD = 0.5
NO_CLASS = -1


def true_classes(boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor) -> Tensor:
    """The class of the ground truth that each box overlaps most; of equal ones the first.

    Args:
        boxes: (N, 4).
        gt_boxes: (M, 4).
        gt_labels: (M,) int64.

    Returns:
        (N,) int64, `NO_CLASS` where no IoU reaches 0.5.
    """
    if not len(gt_boxes):
        return gt_labels.new_full((len(boxes),), NO_CLASS)
    iou, best = box_iou(boxes, gt_boxes).max(dim=1)
    return torch.where(iou >= IOU_THRESHOLD, gt_labels[best], NO_CLASS)


def true_scores(proposals: InstanceData, gt_instances: InstanceData, num_classes: int) -> Tensor:
    """(N, C + 1) scores of proposals: their objectness in their true class, nothing elsewhere.

    Args:
        proposals: with `bboxes` (N, 4) and `scores` (N,).
        gt_instances: with `bboxes` (M, 4), in the same pixels, and `labels` (M,).
        num_classes: C.
    """
    labels = true_classes(proposals.bboxes, gt_instances.bboxes, gt_instances.labels)
    known = (labels != NO_CLASS).nonzero().flatten()
    scores = proposals.scores.new_zeros(len(labels), num_classes + 1)
    scores[known, labels[known]] = proposals.scores[known]
    return scores


class TruthBesideCalibrator(nn.Module):
    """Stands in a detector in its calibrator's place and knows one setting more, `props_gt`.

    Args:
        calibrator: the detector's own, if it has one.
    """

    def __init__(self, calibrator: nn.Module | None):
        super().__init__()
        self.calibrator = calibrator
        self.truth: Tensor | None = None
        self.source = object()

    def logits(self, outputs: RoIOutputs, stage: int = 0) -> tuple[Any, ...]:
        """The truth and, where there is a calibrator, its logits."""
        if self.calibrator is None:
            return (self.truth,)
        return self.truth, self.calibrator.logits(outputs, stage)

    def scores(self, base_scores: Tensor, logits: tuple[Any, ...], setting: str) -> Tensor:
        """The truth, or what the calibrator says."""
        return logits[0] if setting == SETTING else self.calibrator.scores(base_scores, logits[1], setting)


class PropsGTDetector(BaseModel):
    """A detector that detects under the base's scores where it has them, its calibrator's and the setting `props_gt`.

    It takes data samples with their ground truth.

    Args:
        detector: calibrated or not.
    """

    def __init__(self, detector: TwoStageDetector):
        super().__init__(detector.data_preprocessor)
        self.detector = detector
        has_base = detector.calibrator is None or detector.calibrator.has_base
        own_settings = ['base', *detector.score_settings] if has_base else detector.score_settings
        self.score_settings = list(dict.fromkeys([*own_settings, SETTING]))
        detector.set_calibrator(TruthBesideCalibrator(detector.calibrator))
        detector.score_settings = self.score_settings

    def num_classes_of_heads(self) -> Mapping[str, int]:
        """The detector's."""
        return self.detector.num_classes_of_heads()

    def forward(
        self, inputs: Tensor, data_samples: Sequence[DetDataSample], mode: str = 'predict'
    ) -> list[DetDataSample]:
        """(B, 3, H, W) images, and samples with `gt_instances` in pixels of these -> the samples with detections."""
        feats = self.detector.extract_feat(inputs)
        proposals = self.detector.rpn_head.predict(feats, data_samples)
        num_classes = self.detector.box_heads[0].num_classes
        self.detector.calibrator.truth = torch.cat(
            [
                true_scores(of_image, sample.gt_instances, num_classes)
                for of_image, sample in zip(proposals, data_samples, strict=True)
            ]
        )
        return self.detector.detect(feats, proposals, data_samples)
