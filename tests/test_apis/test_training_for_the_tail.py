"""Training with the losses and samplers for the tail: counts come by themselves, runs resume exactly, tests work."""
import pytest
import torch

from mmdet import apis
from mmdet.apis.classes import GiveClassFrequencyHook
from mmdet.engine import latest_checkpoint, mixed_precision, read_checkpoint
from mmdet.errors import ConfigError
from mmdet.registry import DATASETS

from . import tiny

LOSSES = {
    'EQLLoss': dict(type='EQLLoss', lambda_=0.3),
    'EQLV2Loss': dict(type='EQLV2Loss', num_classes=tiny.NUM_CLASSES),
    'FederatedLoss': dict(type='FederatedLoss', fed_loss_num_cat=4),
    'FocalCustomLoss': dict(type='FocalCustomLoss', num_classes=tiny.NUM_CLASSES),
    'FocalLoss': dict(type='FocalLoss'),
}


def config_with(glyphs, work_dir, loss, name='quickstart/base.py', **changes):
    config = tiny.tiny_config(glyphs, work_dir, name, **changes)
    config.model.roi_head.bbox_head.loss_cls = LOSSES[loss]
    config.randomness = dict(seed=3)
    return config


def state_of(folder):
    return read_checkpoint(latest_checkpoint(folder))['state_dict']


@pytest.fixture(scope='module')
def trained(glyphs, tmp_path_factory):
    """Checkpoints of two steps with each loss, made when asked for."""
    made = {}

    def train_once(loss):
        if loss not in made:
            made[loss] = tmp_path_factory.mktemp(loss)
            apis.train(config_with(glyphs, made[loss], loss))
        return made[loss]

    return train_once


@pytest.mark.parametrize('loss', ['EQLLoss', 'EQLV2Loss', 'FederatedLoss'])
def test_a_training_resumes_exactly(glyphs, trained, tmp_path, loss):
    halfway = config_with(glyphs, tmp_path, loss, train_cfg__max_iters=1)
    apis.train(halfway)
    first = state_of(tmp_path)
    apis.train(config_with(glyphs, tmp_path, loss, resume='auto'))
    straight, resumed = state_of(trained(loss)), state_of(tmp_path)
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert not torch.equal(first['roi_head.bbox_head.fc_cls.weight'], resumed['roi_head.bbox_head.fc_cls.weight'])
    of_loss = sorted(name.removeprefix('roi_head.bbox_head.loss_cls.') for name in resumed if 'bbox_head.loss' in name)
    assert of_loss == (['neg_grad', 'pos_grad', 'pos_neg'] if loss == 'EQLV2Loss' else [])


@pytest.mark.parametrize('loss', LOSSES)
def test_its_checkpoint_is_tested_and_calibrated_without_training_counts(glyphs, trained, tmp_path, loss):
    checkpoint = latest_checkpoint(trained(loss))
    config = config_with(glyphs, tmp_path, loss, 'quickstart/calibrate.py', test_cfg=dict(type='TestLoop'))
    config.model.test_cfg.rcnn.score_thr = 0.0
    refused = config.copy()
    refused.calibration.calibrator.head = '3fc_ft'
    if loss != 'FocalLoss':
        with pytest.raises(ConfigError, match=f'{loss}, which has no softmax logits: choose 2fc_rand or 3fc_rand'):
            apis.calibrate(refused, checkpoint)
    config.calibration.calibrator.head = '2fc_rand'
    calibrated = apis.calibrate(config, checkpoint)
    base = read_checkpoint(checkpoint)['state_dict']
    assert all(value.isfinite().all() for value in base.values())
    state = read_checkpoint(calibrated)['state_dict']
    assert all(torch.equal(value, state[name]) for name, value in base.items())
    config.train_dataloader.dataset.ann_file = 'annotations/gone.json'
    figures = apis.test(config, calibrated, scores=['base', 'dual'])
    assert list(figures) == ['base', 'dual']


@pytest.mark.parametrize(
    'wrapper', [None, dict(type='RepeatDataset', times=3), dict(type='ClassBalancedDataset', oversample_thr=0.5)]
)
def test_losses_get_the_counts_of_the_training_data(glyphs, tmp_path, wrapper):
    config = config_with(glyphs, tmp_path, 'EQLLoss', train_cfg__max_iters=1)
    inner = config.train_dataloader.dataset
    if wrapper is not None:
        config.train_dataloader.dataset = dict(wrapper, dataset=inner)
    loss = apis.train(config).model.roi_head.bbox_head.loss_cls
    dataset = DATASETS.build(inner)
    assert loss.image_count.tolist() == dataset.class_frequency().image_count.tolist()
    assert loss.num_images == sum(bool(dataset.get_cat_ids(index)) for index in range(len(dataset)))


def test_every_stage_of_a_cascade_gets_the_counts(glyphs, tmp_path):
    config = config_with(glyphs, tmp_path, 'FederatedLoss', train_cfg__max_iters=1)
    roi_head = config.model.roi_head
    roi_head.update(type='CascadeRoIHead', num_stages=2, stage_loss_weights=[1, 1], bbox_head=[roi_head.bbox_head] * 2)
    config.model.train_cfg.rcnn = [config.model.train_cfg.rcnn] * 2
    heads = apis.train(config).model.roi_head.bbox_head
    assert len(heads) == 2 and all(head.loss_cls.image_count.sum() > 0 for head in heads)


class Uncounted:
    """A training run on a data set without counts, as far as the hook looks at it."""

    def __init__(self, model):
        self.model = model
        self.cfg = type('Config', (), dict(filename='a.py'))
        self.train_dataloader = type('Loader', (), dict(dataset=[1, 2, 3]))


def test_a_data_set_that_cannot_count_is_refused_where_counts_are_needed(glyphs, trained):
    folder = trained('EQLLoss')
    counting = apis.init_detector(config_with(glyphs, folder, 'EQLLoss'), latest_checkpoint(folder))
    with pytest.raises(ConfigError, match='a.py: train_dataloader.dataset cannot count .* EQLLoss needs') as error:
        GiveClassFrequencyHook().before_run(Uncounted(counting))
    assert '\n' not in str(error.value)
    assert GiveClassFrequencyHook().before_run(Uncounted(torch.nn.Linear(1, 1))) is None


def test_bfloat16_on_a_cpu(glyphs, tmp_path):
    config = config_with(glyphs, tmp_path, 'EQLV2Loss', train_cfg__max_iters=1)
    config.optim_wrapper = mixed_precision(config.optim_wrapper)
    loss = apis.train(config).model.roi_head.bbox_head.loss_cls
    assert loss.neg_grad.dtype == torch.float32 and (loss.neg_grad > 0).all()


@pytest.mark.parametrize('loop', ['IterBasedTrainLoop', 'EpochBasedTrainLoop'])
def test_class_aware_sampling_in_either_loop(glyphs, tmp_path, loop, monkeypatch):
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda seconds: None)
    config = tiny.tiny_config(glyphs, tmp_path, train_dataloader__batch_size=4)
    config.train_dataloader.sampler = dict(type='ClassAwareSampler', num_sample_class=1)
    config.param_scheduler = None
    # Two epochs of eight images, two steps each.
    config.train_cfg = dict(type=loop, **(dict(max_iters=4) if loop == 'IterBasedTrainLoop' else dict(max_epochs=2)))
    runner = apis.train(config)
    assert runner.iter == 4 and runner.train_dataloader.sampler.epoch == 1
