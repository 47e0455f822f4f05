"""What is detected under many score settings at once, as objects that the settings share."""
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.structures import InstanceData

from mmdet.models.detectors import BaseDetector
from mmdet.models.roi_heads.base_roi_head import to_original_size
from mmdet.structures import DetDataSample
from mmdet.structures.boxes import boxes_to_rois


class Scored(NamedTuple):
    """N detections of one setting: which objects they are, of which classes, with which scores.

    Attributes:
        objects: (N,) int64.
        labels: (N,) int64.
        scores: (N,) float64.
    """

    objects: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


class DetectedObjects(NamedTuple):
    """O distinct boxes and masks on one image.

    Attributes:
        image_id: of the data set.
        boxes: (O, 4) float64, x, y, width, height in pixels of the original image.
        masks: O COCO run-length encodings, None of a detector without masks.
        by_setting: what each setting detects.
    """

    image_id: Any
    boxes: np.ndarray
    masks: list[Mapping[str, Any]] | None
    by_setting: dict[str, Scored]


def detect_objects(
    detector: BaseDetector, seen: Any, data_samples: Sequence[DetDataSample]
) -> list[DetectedObjects]:
    """Detect on a batch under all score settings, with every distinct mask drawn once.

    Args:
        detector: with its score settings.
        seen: what `BaseDetector.look` gives.
        data_samples: of the images.
    """
    detections = detector.predict_boxes(seen, data_samples)
    distinct, places = zip(*[_distinct(image, detector.is_class_agnostic) for image in detections], strict=True)
    masks = _masks(detector, seen, distinct, data_samples) if detector.with_mask else [None] * len(distinct)
    return [
        DetectedObjects(
            sample.img_id,
            _x_y_width_height(objects, sample),
            of_image,
            {setting: _scored(found, of_setting[setting]) for setting, found in image.items()},
        )
        for sample, objects, of_image, image, of_setting in zip(
            data_samples, distinct, masks, detections, places, strict=True
        )
    ]


def _distinct(
    image: Mapping[str, InstanceData], is_class_agnostic: bool
) -> tuple[InstanceData, dict[str, np.ndarray]]:
    """The distinct objects of an image, and which of them each setting's detections are."""
    together = InstanceData.cat([InstanceData(**_box_of(found)) for found in image.values()])
    labels = torch.zeros_like(together.labels) if is_class_agnostic else together.labels
    _, place = torch.unique(torch.stack([together.roi_index, labels], dim=1), dim=0, return_inverse=True)
    num_objects = int(place.max()) + 1 if len(place) else 0
    representative = place.new_zeros(num_objects).scatter_(0, place, torch.arange(len(place), device=place.device))
    parts = place.cpu().split([len(found) for found in image.values()])
    return together[representative], {setting: part.numpy() for setting, part in zip(image, parts, strict=True)}


def _box_of(found: InstanceData) -> dict[str, torch.Tensor]:
    return dict(bboxes=found.bboxes, labels=found.labels, roi_index=found.roi_index)


def _masks(
    detector: BaseDetector, seen: Any, objects: Sequence[InstanceData], data_samples: Sequence[DetDataSample]
) -> list[list[Mapping[str, Any]]]:
    rois, labels = boxes_to_rois([image.bboxes for image in objects]), torch.cat([image.labels for image in objects])
    probabilities = detector.mask_probabilities(seen, rois, labels).split([len(image) for image in objects])
    return [
        detector.paste(of_image, to_original_size(image.bboxes, sample), sample)
        for of_image, image, sample in zip(probabilities, objects, data_samples, strict=True)
    ]


def _x_y_width_height(objects: InstanceData, sample: DetDataSample) -> np.ndarray:
    boxes = to_original_size(objects.bboxes, sample).double().cpu().numpy()
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


def _scored(found: InstanceData, objects: np.ndarray) -> Scored:
    return Scored(objects, found.labels.cpu().numpy(), found.scores.double().cpu().numpy())
