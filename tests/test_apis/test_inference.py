"""A detector at hand, and what it finds in an image."""
import json

import mmcv
import numpy as np
import pytest

from mmdet.apis import inference_detector, init_detector
from mmdet.errors import ConfigError, ImageError

from . import tiny


@pytest.fixture
def image(glyphs):
    annotated = json.loads((glyphs / 'annotations/glyph_lt_val.json').read_text())
    return next(glyphs.rglob(annotated['images'][0]['file_name'].rpartition('/')[2]))


def test_paths_and_arrays_alike(glyphs, checkpoints, image, tmp_path):
    detector = init_detector(tiny.tiny_config(glyphs, tmp_path), checkpoints / 'base.pth', device='cpu')
    from_file, from_array = inference_detector(detector, [image, mmcv.imread(str(image))])
    found = inference_detector(detector, str(image)).pred_instances
    assert len(found) == 20 and len(found.masks) == 20
    assert found.masks[0]['size'] == list(mmcv.imread(str(image)).shape[:2])
    for other in (from_file, from_array):
        np.testing.assert_array_equal(other.pred_instances.bboxes, found.bboxes)
        np.testing.assert_array_equal(other.pred_instances.scores, found.scores)
    assert len(detector.dataset_meta['classes']) == tiny.NUM_CLASSES
    found.bboxes *= 2  # what is found is the caller's to change


def test_calibrated_detector(glyphs, checkpoints, image, tmp_path):
    config = tiny.tiny_config(glyphs, tmp_path)
    detector = init_detector(config, checkpoints / 'calibrated.pth', scores=['dual', 'base'])
    found = inference_detector(detector, image)
    assert not np.array_equal(found.pred_instances_dual.scores, found.pred_instances_base.scores)
    assert init_detector(config, checkpoints / 'calibrated.pth').roi_head.score_settings == ['dual']


def test_config_file_and_no_checkpoint(tmp_path):
    detector = init_detector(tiny.CONFIGS / 'quickstart/base.py', cfg_options={'model.backbone.depth': 34})
    assert not detector.training and len(detector.backbone.layer3) == 6


def test_mistakes(glyphs, checkpoints, tmp_path):
    config = tiny.tiny_config(glyphs, tmp_path)
    with pytest.raises(ConfigError, match='--scores dual'):
        init_detector(config, checkpoints / 'base.pth', scores=['dual'])
    with pytest.raises(ImageError, match='none.png'):
        inference_detector(init_detector(config, checkpoints / 'base.pth'), tmp_path / 'none.png')
