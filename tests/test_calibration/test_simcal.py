"""SimCal's heads and its fusion rule."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet.calibration import SimCal, StepRoIs
from mmdet.errors import ConfigError
from mmdet.models.roi_heads import Shared2FCBBoxHead, Shared4Conv1FCBBoxHead
from mmdet.models.roi_heads.roi_outputs import RoIOutputs
from mmdet.structures import ClassFrequency


def frequency_of(counts) -> ClassFrequency:
    return ClassFrequency(tuple(f'class {i}' for i in range(len(counts))), np.array(counts), np.array(counts))


def box_head(num_classes: int, kind=Shared2FCBBoxHead) -> torch.nn.Module:
    head = kind(in_channels=8, fc_out_channels=16, num_classes=num_classes)
    head.init_weights()
    return head


def bound(head: str, counts, **kwargs) -> tuple[SimCal, torch.nn.Module]:
    base = box_head(len(counts))
    return SimCal(head, **kwargs).bind([base], frequency_of(counts)), base


instances = st.integers(0, 300)


@given(counts=st.lists(instances, min_size=1, max_size=12), threshold=instances, seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_dual_scores_follow_the_rule_class_by_class(counts, threshold, seed):
    calibrator, _ = bound('2fc_rand', counts, threshold=threshold)
    rng = torch.Generator().manual_seed(seed)
    base = torch.randn(5, len(counts) + 1, generator=rng).softmax(-1)
    logits = torch.randn(5, len(counts) + 1, generator=rng)
    calibrated = logits.softmax(-1)
    dual = calibrator.scores(base, logits, 'dual')
    for z, count in enumerate(counts):
        expected = calibrated[:, z] if count < threshold else base[:, z]
        assert torch.equal(dual[:, z], expected)
    assert torch.equal(dual[:, -1], base[:, -1])
    assert torch.equal(calibrator.scores(base, logits, 'calibrated'), calibrated)
    assert torch.allclose(calibrator.scores(base, logits, 'average'), (base + calibrated) / 2)
    assert calibrator.scores(base, logits, 'base') is base


def test_a_class_with_exactly_t_instances_keeps_the_base_score():
    calibrator, _ = bound('2fc_rand', [99, 100, 101], threshold=100)
    base, logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]), torch.zeros(1, 4)
    assert torch.equal(calibrator.scores(base, logits, 'dual'), torch.tensor([[0.25, 0.2, 0.3, 0.4]]))


def test_average_of_two_scores_by_hand():
    calibrator, _ = bound('2fc_rand', [1], threshold=100)
    scores = calibrator.scores(torch.tensor([[0.9, 0.1]]), torch.zeros(1, 2), 'average')
    assert torch.allclose(scores, torch.tensor([[0.7, 0.3]]))


@pytest.mark.parametrize('kind', [Shared2FCBBoxHead, Shared4Conv1FCBBoxHead])
def test_3fc_ft_starts_as_the_base_classifier(kind, device):
    base = box_head(6, kind).to(device)
    calibrator = SimCal('3fc_ft').bind([base], frequency_of([1] * 6)).to(device)
    roi_feats = torch.randn(10, 8, 7, 7, device=device)
    base_logits, _ = base(roi_feats)
    assert torch.equal(calibrator.logits(RoIOutputs(base, roi_feats)), base_logits)


@pytest.mark.parametrize('loss_cls', ['CrossEntropyLoss', 'SeesawLoss'])
def test_3fc_ft_copies_cosine_classifiers_and_seesaws_logits(loss_cls):
    """Calibrated scores start as the base's own, whatever its classifier's layers and its loss make of the logits."""
    classifier = dict(type='NormedLinear', temperature=20)
    loss_cls = dict(type=loss_cls, **(dict(num_classes=6) if loss_cls == 'SeesawLoss' else {}))
    stages = [
        Shared2FCBBoxHead(
            in_channels=8, fc_out_channels=16, num_classes=6, cls_predictor_cfg=classifier, loss_cls=loss_cls
        )
        for _ in range(3)
    ]
    calibrator = SimCal('3fc_ft', threshold=2).bind(stages, frequency_of([1, 2, 1, 2, 1, 2]))
    roi_feats = torch.randn(10, 8, 7, 7)
    base_logits = [base(roi_feats)[0] for base in stages]
    logits = [calibrator.logits(RoIOutputs(base, roi_feats), stage) for stage, base in enumerate(stages)]
    assert all(torch.equal(own, given) for own, given in zip(logits, base_logits, strict=True))

    base_scores = stages[-1].class_scores(sum(base_logits) / 3)
    for setting in ('calibrated', 'dual', 'average'):
        scores = calibrator.scores(base_scores, sum(logits) / 3, setting)
        torch.testing.assert_close(scores, base_scores, rtol=1e-5, atol=1e-7)

    labels = torch.arange(10) % 7
    loss = calibrator.loss(logits[0], StepRoIs(labels, 10))['s0.loss_cls']
    own_scores = stages[0].class_scores(base_logits[0])[torch.arange(10), labels]
    torch.testing.assert_close(loss, -own_scores.log().mean())
    loss.backward()
    assert calibrator.heads[0].path.fc_cls.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in stages[0].parameters())


def test_a_random_head_on_seesaws_base_is_an_ordinary_softmax():
    base = Shared2FCBBoxHead(
        in_channels=8, fc_out_channels=16, num_classes=2, loss_cls=dict(type='SeesawLoss', num_classes=2)
    )
    calibrator = SimCal('2fc_rand').bind([base], frequency_of([1, 200]))
    logits = calibrator.logits(RoIOutputs(base, torch.randn(4, 8, 7, 7)))
    base_scores = base.class_scores(torch.randn(4, 4))
    dual = calibrator.scores(base_scores, logits, 'dual')
    expected = torch.stack([logits.softmax(-1)[:, 0], base_scores[:, 1], base_scores[:, 2]], dim=1)
    assert torch.equal(dual, expected)


SIGMOID_LOSSES = [
    dict(type='EQLLoss'),
    dict(type='EQLV2Loss', num_classes=2),
    dict(type='FederatedLoss'),
    dict(type='FocalCustomLoss', num_classes=2),
]


@pytest.mark.parametrize('loss_cls', SIGMOID_LOSSES, ids=lambda loss: loss['type'])
def test_sigmoid_bases_take_a_random_head_and_keep_their_scores(loss_cls):
    base = Shared2FCBBoxHead(in_channels=8, fc_out_channels=16, num_classes=2, loss_cls=dict(loss_cls))
    roi_feats = torch.randn(4, 8, 7, 7)
    base_scores = base.class_scores(base(roi_feats)[0])
    calibrator = SimCal('3fc_rand', threshold=5).bind([base], frequency_of([1, 200]))
    logits = calibrator.logits(RoIOutputs(base, roi_feats))
    assert logits.shape == (4, 3)
    expected = torch.stack([logits.softmax(-1)[:, 0], base_scores[:, 1], base_scores[:, 2]], dim=1)
    assert torch.equal(calibrator.scores(base_scores, logits, 'dual'), expected)

    message = f"head='3fc_ft' copies .* trained with {loss_cls['type']}, .*: choose 2fc_rand or 3fc_rand$"
    with pytest.raises(ConfigError, match=message) as error:
        SimCal('3fc_ft').bind([base], frequency_of([1, 200]))
    assert '\n' not in str(error.value)


def test_3fc_ft_of_a_sigmoid_loss_whose_scores_are_a_softmax():
    base = Shared2FCBBoxHead(in_channels=8, fc_out_channels=16, num_classes=2, loss_cls=dict(type='FocalLoss'))
    calibrator = SimCal('3fc_ft').bind([base], frequency_of([1, 200]))
    roi_feats = torch.randn(4, 8, 7, 7)
    base_scores, logits = base.class_scores(base(roi_feats)[0]), calibrator.logits(RoIOutputs(base, roi_feats))
    assert torch.equal(calibrator.scores(base_scores, logits, 'calibrated'), base_scores)


@pytest.mark.parametrize('head', ['2fc_rand', '3fc_ft'])
def test_heads_are_bound_on_the_device_of_the_base(head):
    base = box_head(2).to('meta')
    calibrator = SimCal(head).bind([base], frequency_of([1, 2]))
    assert {tensor.device.type for tensor in [*calibrator.parameters(), calibrator.is_rare]} == {'meta'}


def test_3fc_ft_keeps_the_statistics_of_batch_norms():
    """In training too the head computes what it does in testing, and its steps leave the statistics as they are."""
    base = Shared4Conv1FCBBoxHead(
        in_channels=8, conv_out_channels=8, fc_out_channels=16, num_classes=2, norm_cfg=dict(type='BN')
    )
    head = SimCal('3fc_ft').bind([base.eval()], frequency_of([1, 2])).heads[0].train()
    statistics = {name: value.clone() for name, value in head.state_dict().items() if 'running' in name}
    roi_feats = torch.randn(5, 8, 7, 7)
    assert statistics and torch.equal(head(roi_feats), base(roi_feats)[0])
    assert all(torch.equal(head.state_dict()[name], value) for name, value in statistics.items())


def test_3fc_ft_shares_no_storage_with_the_base():
    calibrator, base = bound('3fc_ft', [1, 2])
    own = {parameter.data_ptr() for parameter in calibrator.parameters()}
    assert own.isdisjoint(parameter.data_ptr() for parameter in base.parameters())


@pytest.mark.parametrize(('head', 'widths'), [('2fc_rand', [16, 5]), ('3fc_rand', [16, 16, 5])])
def test_random_heads_have_the_papers_layers(head, widths):
    calibrator, _ = bound(head, [1] * 4)
    linears = [layer for layer in calibrator.heads[0] if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in linears] == widths
    assert linears[0].in_features == 8 * 7 * 7


def test_each_stage_has_a_head_of_its_own():
    stages = [box_head(3) for _ in range(3)]
    calibrator = SimCal('3fc_ft').bind(stages, frequency_of([1, 1, 1]))
    roi_feats = torch.randn(2, 8, 7, 7)
    for stage, base in enumerate(stages):
        assert torch.equal(calibrator.logits(RoIOutputs(base, roi_feats), stage), base(roi_feats)[0])


def test_loss_is_the_mean_over_the_steps_rois():
    calibrator, _ = bound('2fc_rand', [1, 1])
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 0, 1])
    loss = calibrator.loss(logits, StepRoIs(labels, 6))['s0.loss_cls']
    assert torch.allclose(loss, torch.nn.functional.cross_entropy(logits, labels))


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [(dict(threshold=-1), 'threshold=-1'), (dict(head='4fc'), "head='4fc'")],
)
def test_impossible_settings_are_refused_in_one_line(kwargs, message):
    with pytest.raises(ConfigError, match=message) as error:
        SimCal(**kwargs).bind([box_head(1)], frequency_of([1]))
    assert '\n' not in str(error.value)


def test_an_unknown_score_setting_names_the_known_ones():
    calibrator, _ = bound('2fc_rand', [1])
    with pytest.raises(ConfigError, match='base, dual, calibrated, average'):
        calibrator.scores(torch.zeros(1, 2), torch.zeros(1, 2), 'both')
