"""`--tta`: which views a config asks for, tested through the API, the tool and the detector at hand."""
import json
import runpy
import sys

import numpy as np
import pytest

from mmdet import apis
from mmdet.apis.test_time_augmentation import with_test_time_augmentation
from mmdet.errors import ConfigError

from . import tiny
from .test_test import TOOLS

RESIZE = dict(type='Resize', scale=(192, 192), keep_ratio=True)
PACK = dict(
    type='PackDetInputs',
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction'),
)


def tta_pipeline(*lists):
    return [dict(type='LoadImageFromFile', backend_args=None), dict(type='TestTimeAug', transforms=[*lists, [PACK]])]


@pytest.mark.slow
def test_a_single_view_gives_the_figures_of_ordinary_testing(glyphs, checkpoints, tmp_path):
    config = tiny.tiny_config(glyphs, tmp_path)
    resize = next(each for each in config.test_dataloader.dataset.pipeline if each['type'] == 'Resize')
    config.tta_pipeline = tta_pipeline([resize], [dict(type='RandomFlip', prob=0.0)])
    settings = ['base', 'dual']
    single = apis.test(config, checkpoints / 'calibrated.pth', scores=settings, tta=True)
    ordinary = apis.test(tiny.tiny_config(glyphs, tmp_path), checkpoints / 'calibrated.pth', scores=settings)
    np.testing.assert_equal(single, ordinary)


@pytest.mark.slow
def test_scales_and_flips_are_merged_into_boxes_and_masks(glyphs, checkpoints, tmp_path):
    config = tiny.tiny_config(glyphs, tmp_path)
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    config.tta_pipeline = tta_pipeline([RESIZE, RESIZE | dict(scale=(128, 128))], flips)
    config.tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
    figures = apis.test(config, checkpoints / 'base.pth', tta=True, out=tmp_path / 'out.json')
    assert {'lvis/bbox_AP', 'lvis/segm_APr'} <= figures['base'].keys()
    boxes, masks = (json.loads((tmp_path / f'out.{kind}.json').read_text()) for kind in ('bbox', 'segm'))
    images = len(json.loads((glyphs / 'annotations/glyph_lt_val.json').read_text())['images'])
    assert 20 * images < len(boxes) == len(masks) <= 80 * images


def test_the_default_is_the_test_pipeline_and_its_mirror_image(glyphs, tmp_path):
    config = tiny.tiny_config(glyphs, tmp_path)
    before = config.pretty_text
    augmented = with_test_time_augmentation(config)
    assert config.pretty_text == before
    *loading, views = augmented.test_dataloader.dataset.pipeline
    assert [each['type'] for each in loading] == ['LoadImageFromFile', 'Resize']
    assert [each['prob'] for each in views['transforms'][0]] == [1.0, 0.0]
    rcnn = config.model.test_cfg.rcnn
    assert augmented.tta_model == dict(type='DetTTAModel', tta_cfg=dict(nms=rcnn.nms, max_per_img=rcnn.max_per_img))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(tta_pipeline=[RESIZE, PACK]), 'tta_pipeline has no TestTimeAug, which makes the views'),
        (dict(tta_model=dict(type='DetTTAModel')), 'tta_model: DetTTAModel needs the key `tta_cfg`'),
        (
            dict(tta_pipeline=tta_pipeline([RESIZE])[:1] + [dict(type='TestTimeAug', transforms=[[RESIZE], [
                dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape', 'img_shape', 'scale_factor'))]])]),
            "tta_pipeline: PackDetInputs must keep 'flip' and 'flip_direction' in its meta_keys",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(glyphs, checkpoints, tmp_path, changes, message):
    config = tiny.tiny_config(glyphs, tmp_path)
    config.merge_from_dict(changes)
    with pytest.raises(ConfigError, match=message) as error:
        apis.test(config, checkpoints / 'base.pth', tta=True)
    assert '\n' not in str(error.value)


def test_a_detector_at_hand_sees_several_views(glyphs, checkpoints, tmp_path):
    config = tiny.tiny_config(glyphs, tmp_path)
    image = next((glyphs / 'images/val').iterdir())
    model = apis.init_detector(config, checkpoints / 'calibrated.pth', scores=['dual', 'base'], tta=True)
    plain = apis.init_detector(config, checkpoints / 'calibrated.pth', scores=['dual', 'base'])
    found, single = (apis.inference_detector(each, image) for each in (model, plain))
    assert len(found.pred_instances_dual.masks) == len(found.pred_instances.scores) == 20
    assert not np.array_equal(found.pred_instances.scores, single.pred_instances.scores)


@pytest.mark.slow
def test_tool(glyphs, checkpoints, tmp_path, monkeypatch, capsys):
    options = [f'{key}={value}' for key, value in tiny.tiny_options(glyphs).items()]
    config, checkpoint = str(tiny.CONFIGS / 'quickstart/base.py'), str(checkpoints / 'calibrated.pth')
    arguments = ['--tta', '--scores', 'base,dual', '--work-dir', str(tmp_path), '--cfg-options', *options]
    monkeypatch.setattr(sys, 'argv', ['test.py', config, checkpoint, *arguments])
    runpy.run_path(str(TOOLS / 'test.py'), run_name='__main__')
    assert capsys.readouterr().out.splitlines()[-1] == f'results: {tmp_path / "test"}'
    figures = json.loads((tmp_path / 'test/dual.json').read_text())
    ordinary = apis.test(tiny.tiny_config(glyphs, tmp_path / 'ordinary'), checkpoint, scores=['dual'])['dual']
    assert figures.keys() == ordinary.keys() and figures != ordinary
