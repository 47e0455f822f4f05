"""Detections made by disturbing the ground truth: what tests and benchmarks of the metrics evaluate."""
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from hotcoco import mask as rle


def disturbed_detections(
    content: Mapping[str, Any], most: int, least: int | None = None, seed: int = 0
) -> list[dict[str, Any]]:
    """One data sample per image of a COCO or LVIS file's content, as a detector's `to_dict` gives it.

    An image has from `least` (by default a third of `most`) to `most` detections. Boxes are annotated ones, exact or
    moved and stretched, a few of zero width, and random ones. Masks are annotated ones shifted and cut, or boxes, or
    empty. A third of the classes is wrong, some of them not annotated on the image. Scores have two digits, so many
    are equal.
    """
    rng = np.random.default_rng(seed)
    annotations = defaultdict(list)
    for annotation in content['annotations']:
        annotations[annotation['image_id']].append(annotation)
    category_ids = np.array(sorted(category['id'] for category in content['categories']))
    samples = []
    for image in content['images']:
        number = rng.integers(most // 3 if least is None else least, most + 1)
        instances = _detections(image, annotations[image['id']], category_ids, number, rng)
        samples.append({'img_id': image['id'], 'pred_instances': instances})
    return samples


def _detections(image, annotations, category_ids, number, rng) -> dict[str, Any]:
    size = image['height'], image['width']
    copied = (rng.random(number) < 0.9) & (len(annotations) > 0)
    source = rng.integers(max(len(annotations), 1), size=number)

    boxes = rng.random((number, 4)) * [size[1], size[0], 200, 200]
    ids = rng.choice(category_ids, number)
    if annotations:
        boxes[copied] = np.array([annotation['bbox'] for annotation in annotations])[source[copied]]
        annotated = [annotation['category_id'] for annotation in annotations]
        likely = annotated + image.get('neg_category_ids', []) + image.get('not_exhaustive_category_ids', [])
        ids = np.where(rng.random(number) < 0.6, rng.choice(likely, number), ids)
        ids = np.where(copied & (rng.random(number) < 0.65), np.array(annotated)[source], ids)
    boxes = _jittered(boxes, rng.choice([0, 0.02, 0.05, 0.1, 0.3], (number, 1)), size, rng)

    @lru_cache
    def shifted_mask(index, shift):
        return rle.encode(np.roll(rle.decode(encoded_mask(annotations[index]['segmentation'], *size)), shift, axis=1))

    masks = rle.frPyObjects(np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]), *size)
    for i in np.flatnonzero(copied & (rng.random(number) < 0.7)):
        masks[i] = rle.merge([masks[i], shifted_mask(source[i], rng.integers(-3, 4))], True)
    for i in np.flatnonzero(rng.random(number) < 0.05):
        masks[i] = rle.encode(np.zeros(size, np.uint8))
    return {
        'bboxes': torch.tensor(boxes, dtype=torch.float32),
        'scores': torch.tensor(rng.random(number).round(2), dtype=torch.float32),
        'labels': torch.tensor(np.searchsorted(category_ids, ids)),
        'masks': masks,
    }


def _jittered(boxes, amount, size, rng) -> np.ndarray:
    """(N, 4) xywh boxes moved and stretched, as xyxy inside the image."""
    xy = boxes[:, :2] + amount * boxes[:, 2:] * rng.normal(size=(len(boxes), 2))
    wh = boxes[:, 2:] * np.exp(amount * rng.normal(size=(len(boxes), 2)))
    wh[rng.random(len(boxes)) < 0.01, 0] = 0
    return np.clip(np.hstack([xy, xy + wh]), 0, [size[1], size[0]] * 2)


def encoded_mask(segmentation, height, width) -> dict[str, Any]:
    """The run-length encoding of polygons or of any other COCO segmentation."""
    encoded = rle.frPyObjects(segmentation, height, width)
    return rle.merge(encoded) if isinstance(encoded, list) else encoded


def official_results(
    samples: Sequence[Mapping[str, Any]], category_ids: Sequence[int], iou_type: str, last_pixel: int = 0
) -> list[dict[str, Any]]:
    """The same detections in the form the official evaluators want; `last_pixel`: 1 where it is part of a box."""
    results = []
    for sample in samples:
        fields = (sample['pred_instances'][key] for key in ('bboxes', 'scores', 'labels', 'masks'))
        for (x1, y1, x2, y2), score, label, mask in zip(*map(_plain, fields), strict=True):
            if iou_type == 'bbox':
                shape = {'bbox': [x1, y1, x2 - x1 + last_pixel, y2 - y1 + last_pixel]}
            else:
                shape = {'segmentation': {'size': mask['size'], 'counts': mask['counts'].decode()}}
            results.append({'image_id': sample['img_id'], 'category_id': category_ids[label], 'score': score} | shape)
    return results


def _plain(field):
    return field.tolist() if isinstance(field, torch.Tensor) else field
