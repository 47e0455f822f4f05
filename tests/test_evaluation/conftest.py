"""Annotation files for the metrics: real ones where they are, and small drawn ones."""
import gzip
import json
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope='session')
def lvis_val_100(shared_data, tmp_path_factory) -> Path:
    """100 images of LVIS v0.5 val, unpacked, as the official evaluator needs it."""
    packed = shared_data / 'lvis_v0.5_val_100.json.gz'
    path = tmp_path_factory.mktemp('lvis') / 'val.json'
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    return path


@pytest.fixture(scope='session')
def coco128(shared_data) -> Path:
    """The annotations of 128 images of COCO train2017."""
    return shared_data / 'coco128/instances.json'


@pytest.fixture(params=range(3))
def drawn_lvis(request, tmp_path) -> Path:
    """A few LVIS-format images with ignored, crowd and zero-area annotations and every kind of mask."""
    rng = np.random.default_rng(request.param)
    images = [
        {
            'id': int(image_id),
            'height': 90,
            'width': 120,
            'neg_category_ids': rng.choice(np.arange(2, 14, 2), 2).tolist(),
            'not_exhaustive_category_ids': rng.choice(np.arange(2, 14, 2), 1).tolist(),
        }
        for image_id in rng.choice(1000, 8, replace=False)
    ]
    annotations = []
    for image in images[1:]:
        for _ in range(rng.integers(1, 6)):
            x, y, w, h = np.round([rng.uniform(0, 60), rng.uniform(0, 50), rng.uniform(4, 60), rng.uniform(4, 40)], 2)
            annotation = {
                'id': len(annotations) + 1,
                'image_id': image['id'],
                'category_id': int(rng.choice(np.arange(2, 14, 2))),
                'bbox': [x, y, w, h],
                'area': float(w * h) if rng.random() < 0.9 else 0.0,
                'segmentation': [[x, y, x + w, y, x + w, y + h, x, y + h]],
            }
            annotation['iscrowd'] = int(rng.random() < 0.25)
            if rng.random() < 0.25:
                annotation['ignore'] = 1
            if rng.random() < 0.2:
                annotation['segmentation'] = {'size': [90, 120], 'counts': [2000, 300, 90 * 120 - 2300]}
            annotations.append(annotation)
    categories = [{'id': id, 'name': f'class {id}', 'frequency': 'rcf'[id % 3]} for id in (12, 2, 6, 4, 8, 10)]
    path = tmp_path / 'drawn.json'
    path.write_text(json.dumps({'annotations': annotations, 'images': images, 'categories': categories}))
    return path
