"""A cascade goes the whole road: trained, calibrated with one head a stage, tested under every score setting."""
import pytest
import torch

from mmdet import apis
from mmdet.engine import latest_checkpoint, load_config, read_checkpoint
from mmdet.errors import CheckpointError

from . import tiny

PLACES = ['bbox_head.0', 'bbox_head.1', 'bbox_head.2', 'mask_head']


def config_for(glyphs, work_dir):
    options = tiny.tiny_options(glyphs)
    del options['model.roi_head.bbox_head.num_classes']
    options |= {f'model.roi_head.{place}.num_classes': tiny.NUM_CLASSES for place in PLACES}
    config = load_config(tiny.CONFIGS / 'glyph_lt/simcal_cascade-mask-rcnn_r18_fpn_glyph-lt.py', options)
    config.work_dir = str(work_dir)
    config.default_hooks.checkpoint.interval = 2
    return config


@pytest.fixture(scope='module')
def trained(glyphs, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('cascade')
    apis.train(config_for(glyphs, work_dir))
    return latest_checkpoint(work_dir)


@pytest.mark.slow
def test_trained_calibrated_and_tested(glyphs, trained, tmp_path):
    config = config_for(glyphs, tmp_path)
    calibrated = apis.calibrate(config, trained)
    before, after = read_checkpoint(trained)['state_dict'], read_checkpoint(calibrated)['state_dict']
    assert all(torch.equal(after[name], value) for name, value in before.items())
    for stage in range(3):
        own = f'roi_head.calibrator.heads.{stage}.path.fc_cls.weight'
        assert not torch.equal(after[own], before[f'roi_head.bbox_head.{stage}.fc_cls.weight'])
    figures = apis.test(config, calibrated, scores=['base', 'calibrated', 'dual'])
    assert list(figures) == ['base', 'calibrated', 'dual']
    assert all('lvis/segm_APr' in of_setting for of_setting in figures.values())


@pytest.mark.slow
def test_beside_its_upper_bound(glyphs, trained, tmp_path):
    figures = apis.props_gt(config_for(glyphs, tmp_path), trained)
    assert list(figures) == ['base', 'props_gt'] and 'lvis/segm_AP' in figures['props_gt']


def test_a_checkpoint_of_one_stage_is_refused_in_one_line(glyphs, checkpoints, tmp_path):
    with pytest.raises(CheckpointError, match='num_stages') as error:
        apis.calibrate(config_for(glyphs, tmp_path), checkpoints / 'base.pth')
    assert '\n' not in str(error.value)
