"""A detector at hand, and what it finds in an image."""
import json

import mmcv
import numpy as np
import pytest
import torch
from mmengine import Config

from mmdet.apis import inference_detector, init_detector
from mmdet.apis.test_time_augmentation import with_test_time_augmentation
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


@pytest.fixture
def detector(glyphs, checkpoints, tmp_path):
    return init_detector(tiny.tiny_config(glyphs, tmp_path), checkpoints / 'base.pth', device='cpu')


def assert_same(found, expected):
    assert len(found.pred_instances) == len(expected.pred_instances) > 0
    np.testing.assert_array_equal(found.pred_instances.bboxes, expected.pred_instances.bboxes)
    np.testing.assert_array_equal(found.pred_instances.scores, expected.pred_instances.scores)
    assert found.pred_instances.masks == expected.pred_instances.masks


def test_arrays_in_every_form_are_the_proper_image(detector, image):
    bgr = mmcv.imread(str(image))
    proper = inference_detector(detector, bgr)
    alpha = np.full_like(bgr[..., :1], 77)
    for form in (
        np.concatenate([bgr, alpha], axis=2),
        *(bgr.astype(dtype) for dtype in (np.float16, np.float32, np.float64, np.int16, np.uint16, np.int64)),
        bgr.astype(np.float32) + 0.3 * (bgr < 255),
        np.asfortranarray(bgr),
        bgr[..., ::-1].copy()[..., ::-1],
    ):
        assert_same(inference_detector(detector, form), proper)
    batch = np.stack([bgr, bgr[::-1]])
    turned = inference_detector(detector, bgr[::-1].copy())
    for forms in (batch, batch.astype(np.float32), list(batch), iter(batch), (image, bgr[::-1])):
        found = inference_detector(detector, forms)
        assert len(found) == 2
        assert_same(found[0], proper)
        assert_same(found[1], turned)
    assert inference_detector(detector, batch[:0]) == [] == inference_detector(detector, [])


def test_grey_images(detector, image, tmp_path):
    grey = mmcv.imread(str(image), 'grayscale')
    mmcv.imwrite(grey, str(tmp_path / 'grey.png'))
    proper = inference_detector(detector, tmp_path / 'grey.png')
    for form in (grey, grey[..., None], grey.astype(np.float32), np.repeat(grey[..., None], 3, axis=2)):
        assert_same(inference_detector(detector, form), proper)
    assert_same(inference_detector(detector, grey[None, ..., None])[0], proper)


def test_floats_are_loaded_as_from_a_file(glyphs, checkpoints, image, tmp_path):
    config = tiny.tiny_config(glyphs, tmp_path)
    config.test_dataloader.dataset.pipeline[0].to_float32 = True
    detector = init_detector(config, checkpoints / 'base.pth', device='cpu')
    assert_same(inference_detector(detector, mmcv.imread(str(image))), inference_detector(detector, image))


BGR = np.full((4, 5, 3), 9, np.uint8)


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (BGR / 255, 'image 0: has values from 0.0352941 to 0.0352941; multiply by 255'),
        (BGR - 10.0, 'image 0: has values from -1.0 to -1.0; bring them'),
        (BGR * np.nan, 'image 0: has values from nan to nan; bring them'),
        (BGR.astype(np.uint16) * 256, 'image 0: has values from 2304 to 2304; bring them'),
        (BGR > 3, 'image 0: an array of bool is no image'),
        (BGR.astype('U1'), 'image 0: an array of <U1 is no image'),
        (BGR.transpose(2, 0, 1), r'image 0: an array of shape \(3, 4, 5\) is no image; give \(height, width, 3\)'),
        (BGR[None, None], r'image 0: an array of shape \(1, 1, 4, 5, 3\) is no image'),
        (BGR[:0], r'image 0: an array of shape \(0, 5, 3\) is no image'),
        (BGR[None, ..., :2], r'image 0: an array of shape \(4, 5, 2\) is no image'),
        ([BGR, BGR[0]], None),
        ([BGR, None], 'image 1: a NoneType is no image; give a path'),
        (torch.zeros(2, 4, 5, 3), 'image 0: a Tensor is no image'),
        (3, 'a int is no image; give a path'),
        (b'x.png', 'a bytes is no image'),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(detector, wrong, message):
    if message is None:  # (5, 3) is 5 x 3 pixels of grey
        assert len(inference_detector(detector, wrong)) == 2
        return
    with pytest.raises(ImageError, match=message) as error:
        inference_detector(detector, wrong)
    assert '\n' not in str(error.value)


def test_the_pipeline_is_found_wherever_the_config_says_it(glyphs, checkpoints, image, tmp_path):
    plain = tiny.tiny_config(glyphs, tmp_path)
    expected = inference_detector(init_detector(plain, checkpoints / 'base.pth', device='cpu'), image)
    loader = plain.test_dataloader.to_dict()
    repeated = dict(type='RepeatDataset', times=2, dataset=loader['dataset'])
    for changes in (
        dict(test_dataloader=dict(loader, dataset=repeated)),
        dict(test_dataloader=dict(loader, dataset=dict(type='ConcatDataset', datasets=[repeated, loader['dataset']]))),
        dict(test_dataloader=None, val_dataloader=loader),
        dict(test_dataloader=None, test_pipeline=loader['dataset']['pipeline']),
    ):
        config = Config(plain.to_dict() | changes)
        detector = init_detector(config, checkpoints / 'base.pth', device='cpu')
        assert_same(inference_detector(detector, image), expected)
    config = Config({key: value for key, value in plain.items() if key not in ('test_dataloader', 'test_pipeline')})
    detector = init_detector(config, checkpoints / 'base.pth', device='cpu')
    with pytest.raises(ConfigError, match='^config: does not say how images are prepared: .*test_pipeline alone$'):
        inference_detector(detector, image)


def test_views_of_wrapped_data(glyphs, checkpoints, image, tmp_path):
    plain = tiny.tiny_config(glyphs, tmp_path)
    loader = plain.test_dataloader.to_dict()
    joined = dict(type='ConcatDataset', datasets=[loader['dataset'], dict(loader['dataset'])])
    wrapped = Config(plain.to_dict() | dict(test_dataloader=dict(loader, dataset=joined)))
    found, expected = (
        inference_detector(init_detector(config, checkpoints / 'base.pth', device='cpu', tta=True), image)
        for config in (wrapped, plain)
    )
    assert_same(found, expected)
    pipelines = [dataset.pipeline for dataset in with_test_time_augmentation(wrapped).test_dataloader.dataset.datasets]
    assert [pipeline[-1]['type'] for pipeline in pipelines] == ['TestTimeAug'] * 2


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
