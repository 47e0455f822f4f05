"""Every published calibrator on the road from a checkpoint to a test."""
import re

import pytest
import torch

from mmdet import apis
from mmdet.apis.calibrate import trained_detector
from mmdet.calibration import build_calibrator
from mmdet.engine import load_config, read_checkpoint
from mmdet.errors import ConfigError
from mmdet.registry import DATASETS

from . import tiny
from .test_calibrate import assert_equal_states, split_state
from .test_cascade import config_for as cascade_config

FOLDER = tiny.CONFIGS / '_base_/calibration'
NAMES = sorted(file.stem for file in FOLDER.glob('*.py') if 'steps' not in file.stem and file.stem != 'last_layer')
OBSERVING = ('logn', 'ncm')


def config_for(glyphs, work_dir, name, bank=None, **changes):
    """A quickstart config with a published calibration in two steps of four images."""
    config = tiny.tiny_config(glyphs, work_dir, 'quickstart/base.py')
    config.randomness = dict(seed=3)
    config.calibration = shortened(load_config(FOLDER / f'{name}.py').calibration)
    if bank is not None:
        config.calibration.feature_bank = bank
    config.calibration.update(changes)
    return config


def shortened(recipe):
    if 'max_steps' in recipe:
        recipe.update(max_steps=2, num_workers=0)
        recipe.sampler['images_per_step' if recipe.sampler.type == 'ImageSampler' else 'classes_per_step'] = 4
    return recipe


@pytest.mark.parametrize('name', NAMES)
def test_it_calibrates_tests_and_leaves_the_base_as_it_is(glyphs, checkpoints, tmp_path, name):
    config = config_for(glyphs, tmp_path, name)
    result = apis.calibrate(config, checkpoints / 'base.pth')
    base, calibrator = split_state(result)
    assert_equal_states(base, dict(read_checkpoint(checkpoints / 'base.pth')['state_dict']))
    assert read_checkpoint(result)['meta']['calibrator']['type'] == config.calibration.calibrator.type
    assert all(torch.isfinite(value.float()).all() for value in calibrator.values())
    config.train_dataloader.dataset.ann_file = 'annotations/gone.json'
    figures = apis.test(config, result)
    (default,) = figures
    assert (tmp_path / f'test/{default}.json').is_file() and default != 'base'
    both = apis.test(config, result, scores=['base', default])
    assert both[default] == pytest.approx(figures[default], nan_ok=True)
    own = apis.test(tiny.tiny_config(glyphs, tmp_path / 'own'), checkpoints / 'base.pth')
    assert both['base'] == pytest.approx(own['base'], nan_ok=True)


@pytest.mark.parametrize('name', ['acsl', 'bags', 'fine_tuned', 'logn', 'norcal_on_simcal'])
def test_steps_are_the_same_with_a_bank_that_keeps_every_visit(glyphs, checkpoints, tmp_path, name):
    base = checkpoints / 'base.pth'
    without = split_state(apis.calibrate(config_for(glyphs, tmp_path / 'without', name), base))[1]
    bank = dict(visits_per_view=1, draws=1)
    kept = split_state(apis.calibrate(config_for(glyphs, tmp_path / 'with', name, bank), base))[1]
    assert without.keys() == kept.keys()
    for key, value in without.items():
        # Features of half precision move a weight of step 0.02 by no more than that of their rounding.
        torch.testing.assert_close(kept[key], value, atol=2e-3, rtol=2e-3, msg=key)


@pytest.mark.parametrize('name', ['bags', 'disalign', 'dual_norcal', 'fracal', 'logn', 'ncm', 'tau_norm'])
def test_a_cascade_has_its_own_at_every_stage(glyphs, tmp_path_factory, tmp_path, name):
    base = cascade_base(glyphs, tmp_path_factory)
    config = cascade_config(glyphs, tmp_path)
    config.calibration = shortened(load_config(FOLDER / f'{name}.py').calibration)
    result = apis.calibrate(config, base)
    figures = apis.test(config, result)
    assert all('lvis/segm_AP' in of_setting for of_setting in figures.values())


_CASCADE = []


def cascade_base(glyphs, tmp_path_factory):
    """A cascade of one step of training, made once."""
    if not _CASCADE:
        config = cascade_config(glyphs, tmp_path_factory.mktemp('cascade'))
        config.train_cfg.max_iters = config.default_hooks.checkpoint.interval = 1
        apis.train(config)
        _CASCADE.append(f'{config.work_dir}/iter_1.pth')
    return _CASCADE[0]


@pytest.mark.parametrize('name', ['norcal', 'fracal', 'tau_norm'])
def test_what_looks_at_no_image_needs_no_pipeline(glyphs, checkpoints, tmp_path, name):
    config = config_for(glyphs, tmp_path, name)
    config.train_dataloader.dataset.pipeline = []
    assert apis.calibrate(config, checkpoints / 'base.pth').is_file()


@pytest.mark.parametrize('name', OBSERVING)
def test_a_resumed_pass_is_the_uninterrupted_one(glyphs, checkpoints, tmp_path, name):
    base = checkpoints / 'base.pth'
    straight = apis.calibrate(config_for(glyphs, tmp_path / 'straight', name, max_steps=4), base)
    apis.calibrate(config_for(glyphs, tmp_path / 'resumed', name, max_steps=2), base)
    config = config_for(glyphs, tmp_path / 'resumed', name, max_steps=4)
    config.resume = 'auto'
    assert_equal_states(split_state(apis.calibrate(config, base))[1], split_state(straight)[1])


def test_one_bank_serves_heads_last_layers_and_passes(glyphs, checkpoints, tmp_path, monkeypatch):
    loaded = []
    dataset = DATASETS.build(config_for(glyphs, tmp_path, 'norcal').train_dataloader.dataset)
    load = type(dataset).__getitem__
    monkeypatch.setattr(type(dataset), '__getitem__', lambda self, draw: loaded.append(draw) or load(self, draw))
    features = dict(roi_feats=16, class_feats=64)
    bank = dict(dir=str(tmp_path / 'bank'), views_per_image=1, draws=1, features=features)
    for name in ('simcal', 'bags', 'ncm'):
        config = config_for(glyphs, tmp_path / name, name, bank, max_steps=20)
        apis.calibrate(config, checkpoints / 'base.pth')
    assert len(loaded) == len({draw.index for draw in loaded}) <= len(dataset)


def test_a_bank_that_keeps_less_is_refused(glyphs, checkpoints, tmp_path):
    bank = dict(dir=str(tmp_path / 'bank'), views_per_image=1)
    apis.calibrate(config_for(glyphs, tmp_path / 'simcal', 'simcal', bank), checkpoints / 'base.pth')
    message = (
        'the feature bank there keeps roi_feats of 16 background RoIs, and this calibration needs class_feats of 64; '
        'delete that folder, or name another one with calibration.feature_bank.dir'
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        apis.calibrate(config_for(glyphs, tmp_path / 'bags', 'bags', bank), checkpoints / 'base.pth')


@pytest.mark.parametrize(
    ('name', 'changes', 'message'),
    [
        ('norcal', dict(calibrator=dict(type='NorKal')), 'calibration.calibrator.type=NorKal is not known; there are '),
        ('norcal', dict(calibrator=dict(type='NorCal', gamma=-1)), 'calibration.calibrator.gamma=-1: must be a number'),
        ('norcal', dict(max_steps=3), 'calibration.max_steps: NorCal looks at no training image; leave it out'),
        ('ncm', dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=1))), 'NCM learns nothing by gradients'),
        ('ncm', dict(max_steps=0), 'calibration.max_steps=0: give a number of steps from 1'),
        ('bags', dict(optim_wrapper=None), 'the key `calibration.optim_wrapper` is missing'),
        ('bags', dict(selector=dict(type='DrawnClassSelector')), 'needs a sampler that draws classes'),
        ('bags', dict(sampler=dict(type='InfiniteSampler')), 'calibration.sampler is InfiniteSampler; take one of'),
        (
            'norcal_on_simcal',
            dict(calibrator=dict(type='NorCal', on=dict(type='SimCal'), on_scores='both')),
            'calibration.calibrator.on_scores=both: SimCal knows dual, calibrated, average',
        ),
        (
            'simcal',
            dict(calibrator=dict(type='DualHead', rare=dict(type='SimCal'), others=dict(type='BAGS'))),
            'SimCal and BAGS learn from training images; a composition can have one that does',
        ),
        ('simcal', dict(calibrator=dict(threshold=5)), 'calibration.calibrator: the key `type` is missing'),
    ],
)
def test_mistakes_are_one_line(glyphs, checkpoints, tmp_path, name, changes, message):
    config = config_for(glyphs, tmp_path, name)
    for key, value in changes.items():
        config.calibration[key] = value
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        apis.calibrate(config, checkpoints / 'base.pth')
    assert '\n' not in str(error.value)


def test_a_threshold_is_refused_where_there_is_none(glyphs, checkpoints, tmp_path):
    config = config_for(glyphs, tmp_path, 'norcal')
    result = apis.calibrate(config, checkpoints / 'base.pth')
    with pytest.raises(ConfigError, match='--threshold 5: NorCal has no threshold'):
        apis.test(config, result, threshold=5)


def test_a_class_without_a_training_image_spoils_no_score(glyphs, checkpoints, tmp_path):
    """It counts as if it had one, whatever divides by its count."""
    config = config_for(glyphs, tmp_path, 'norcal')
    dataset = DATASETS.build(config.train_dataloader.dataset)
    frequency = dataset.class_frequency()
    frequency.instance_count[2] = frequency.image_count[2] = 0
    for recipe in (dict(type='NorCal'), dict(type='FRACAL'), dict(type='LogitAdjustment'), dict(type='DisAlign')):
        detector = trained_detector(config, checkpoints / 'base.pth', dataset.metainfo)
        calibrator = build_calibrator(recipe, detector, frequency)
        scores = torch.rand(5, len(frequency) + 1).softmax(dim=1)
        logits = scores.log() if recipe['type'] == 'DisAlign' else ()
        assert torch.isfinite(calibrator.scores(scores, logits, 'calibrated')).all()
