"""One calibration step on a frozen detector."""
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmdet.calibration import CalibrationModel, DrawnClassSelector, build_calibrator
from mmdet.registry import MODELS
from mmdet.structures import ClassFrequency, DetDataSample

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
NUM_CLASSES = 4


@pytest.fixture
def model() -> CalibrationModel:
    init_default_scope('mmdet')
    config = Config.fromfile(CONFIGS / '_base_/models/mask-rcnn_r18-half_fpn.py').model
    config.roi_head.bbox_head.num_classes = config.roi_head.mask_head.num_classes = NUM_CLASSES
    torch.manual_seed(0)
    detector = MODELS.build(config)
    detector.init_weights()
    counts = np.array([1, 10, 100, 1000])
    frequency = ClassFrequency(('a', 'b', 'c', 'd'), counts, counts)
    build_calibrator(dict(type='SimCal', head='3fc_ft', threshold=100), detector, frequency)
    return CalibrationModel(detector, DrawnClassSelector()).train()


def batch(drawn_classes=(0, 1)) -> dict:
    """Two images of three objects each."""
    rng = torch.Generator().manual_seed(1)
    samples = []
    for i, drawn in enumerate(drawn_classes):
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(128, 128), pad_shape=(128, 128), ori_shape=(128, 128), drawn_class=drawn, draw_key=(7, i)
            )
        )
        corners = 60 * torch.rand(3, 2, generator=rng)
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corners, corners + 50], dim=1), labels=torch.tensor([0, 1, i])
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
        samples.append(sample)
    return dict(inputs=torch.randn(2, 3, 128, 128, generator=rng), data_samples=samples)


def test_only_the_calibrator_learns_and_the_base_stays_in_eval_mode(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    assert not any(module.training for module in model.detector.backbone.modules())
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    model(**batch())['s0.loss_cls'].backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith('roi_head.calibrator.') for name in changed)


def test_the_same_draws_give_the_same_loss_whatever_torchs_generator(model):
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        losses.append(model(**batch())['s0.loss_cls'])
    assert torch.equal(*losses)


def test_images_can_be_spread_over_steps_without_changing_their_rois(model):
    seen = []
    draw_rois = model.draw_rois
    model.draw_rois = lambda *images: seen.append(draw_rois(*images)) or seen[-1]
    both = batch()
    model(**both)
    alone = {'inputs': both['inputs'][1:], 'data_samples': both['data_samples'][1:]}
    model(**alone)
    (together, _), (separate, _) = seen[0][0], seen[1][0]
    together, separate = together[1], separate[0]
    torch.testing.assert_close(together.boxes, separate.boxes, atol=1e-3, rtol=1e-4)


def test_a_step_without_positives_leaves_the_calibrator_as_it_is(model):
    loss = model(**batch(drawn_classes=(3, 3)))['s0.loss_cls']
    assert loss == 0
    loss.backward()
    gradients = [p.grad for p in model.calibrator.parameters()]
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)


def test_the_state_dict_is_a_calibrated_detectors(model):
    names = model.state_dict().keys()
    assert 'backbone.conv1.weight' in names
    assert 'roi_head.calibrator.heads.0.path.fc_cls.weight' in names
    assert not any(name.startswith('detector.') for name in names)


@pytest.mark.parametrize('wanted', [True, False])
def test_the_base_head_is_run_for_calibrators_that_ask_for_its_outputs(model, wanted):
    given = []
    logits = model.calibrator.logits
    base_head = model.detector.roi_head.bbox_head
    runs = []
    base_head.register_forward_pre_hook(lambda *_: runs.append('head'))
    base_head.shared_fcs[0].register_forward_pre_hook(lambda *_: runs.append('shared'))

    def asking(outputs, stage):
        given.append((outputs, outputs.logits if wanted else None))
        return logits(outputs, stage)

    model.calibrator.logits = asking
    model(**batch())
    assert runs == (['shared'] if wanted else [])
    outputs, base_logits = given[0]
    if wanted:
        with torch.no_grad():
            assert torch.equal(base_logits, base_head.classify(base_head.shared(outputs.roi_feats)))
