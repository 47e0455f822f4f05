"""A tiny GlyphLT and detectors for it, made once for all tests of this folder."""
import pytest
import torch

from mmdet.calibration import build_calibrator
from mmdet.datasets.generation import generate_glyph_lt
from mmdet.engine import save_checkpoint
from mmdet.registry import DATASETS, MODELS

from . import tiny


@pytest.fixture(scope='session')
def glyphs(tmp_path_factory):
    """The data set's folder."""
    folder = tmp_path_factory.mktemp('glyph_lt')
    generate_glyph_lt(folder, classes=tiny.NUM_CLASSES, train_images=8, val_images=4)
    return folder


@pytest.fixture(scope='session')
def checkpoints(glyphs, tmp_path_factory):
    """Checkpoints of an untrained detector, `base` and `calibrated`, in which class 0 is rare for the calibrator."""
    folder = tmp_path_factory.mktemp('checkpoints')
    config = tiny.tiny_config(glyphs, folder, 'quickstart/calibrate.py')
    dataset = DATASETS.build(config.train_dataloader.dataset)
    frequency = dataset.class_frequency()
    torch.manual_seed(0)
    detector = MODELS.build(config.model)
    detector.init_weights()
    classes, category_ids = dataset.metainfo['classes'], dataset.metainfo['category_ids']
    meta = dict(dataset_meta=dict(classes=classes, category_ids=category_ids), class_frequency=frequency.to_dict())
    save_checkpoint(dict(state_dict=detector.state_dict(), meta=meta), folder / 'base.pth')
    build_calibrator(dict(type='SimCal', head='2fc_rand', threshold=5), detector, frequency)
    meta['calibrator'] = dict(type='SimCal', head='2fc_rand', threshold=5)
    save_checkpoint(dict(state_dict=detector.state_dict(), meta=meta), folder / 'calibrated.pth')
    return folder
