"""What holds for every calibrator, and the rules of the short ones against loops."""
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmdet.calibration import (
    BAGS,
    FRACAL,
    NCM,
    DualHead,
    LogN,
    MeanScores,
    NorCal,
    Panel,
    SimCal,
    StepRoIs,
    TauNorm,
    Temperature,
    TrainingAnnotations,
)
from mmdet.calibration.calibrators.fracal import fractal_dimensions
from mmdet.errors import ConfigError
from mmdet.models.roi_heads import Shared2FCBBoxHead
from mmdet.models.roi_heads.roi_outputs import RoIOutputs
from mmdet.registry import CALIBRATORS
from mmdet.structures import ClassFrequency

COUNTS = np.array([1, 8, 20, 150, 2000])
NUM_CLASSES = len(COUNTS)
FREQUENCY = ClassFrequency(tuple('abcde'), COUNTS, np.minimum(COUNTS, 900))
PLAIN = [
    'ACSL', 'BAGS', 'CRT', 'DisAlign', 'FRACAL', 'FineTuned', 'LWS', 'LogN', 'LogitAdjustment', 'NCM', 'NorCal',
    'ReWeighting', 'SimCal', 'TailFineTune', 'TauNorm', 'Temperature',
]  # fmt: skip
COMPOSED = {
    'norcal on simcal': dict(type='NorCal', gamma=0.3, on=dict(type='SimCal'), on_scores='calibrated'),
    'dual of norcal on bags and norcal': dict(
        type='DualHead', rare=dict(type='NorCal', on=dict(type='BAGS')), others=dict(type='NorCal', gamma=0.2)
    ),
    'mean of fracal and the base': dict(type='MeanScores', first=dict(type='FRACAL')),
    'temperature of norcal': dict(type='Temperature', temperature=2.0, on=dict(type='NorCal')),
}
ALL = {name: dict(type=name) for name in PLAIN} | COMPOSED


def box_head() -> torch.nn.Module:
    torch.manual_seed(0)
    head = Shared2FCBBoxHead(in_channels=4, fc_out_channels=16, num_classes=NUM_CLASSES).requires_grad_(False)
    head.init_weights()
    head.fc_cls.weight.mul_(30)
    return head.eval()


def made(config: dict, num_stages: int = 1):
    """A calibrator that has seen some RoIs, and the heads it is bound to."""
    heads = [box_head() for _ in range(num_stages)]
    torch.manual_seed(1)
    calibrator = CALIBRATORS.build(dict(config)).bind(heads, FREQUENCY)
    with torch.no_grad():
        for parameter in calibrator.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
        for stage, head in enumerate(heads):
            if calibrator.observes:
                calibrator.observe(RoIOutputs(head, rois(40)), step(40), stage)
    return calibrator, heads


def rois(count: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(count, 4, 7, 7, generator=torch.Generator().manual_seed(seed))


def step(count: int) -> StepRoIs:
    labels = torch.arange(count) % (NUM_CLASSES + 1)
    return StepRoIs(labels, count, [count // 2, count - count // 2], [(3, 0, 0), (3, 1, 0)])


@torch.no_grad()
def scores_of(calibrator, head, roi_feats, setting):
    outputs = RoIOutputs(head, roi_feats)
    return calibrator.scores(outputs.logits.softmax(dim=1), calibrator.logits(outputs), setting)


@pytest.mark.parametrize('name', ALL)
def test_a_rois_scores_depend_on_no_other_roi(name):
    calibrator, (head,) = made(ALL[name])
    feats = rois(9)
    for setting in calibrator.score_settings:
        together = scores_of(calibrator, head, feats, setting)
        assert together.shape == (9, NUM_CLASSES + 1) and together.dtype == torch.float32
        assert torch.isfinite(together).all() and (together >= 0).all()
        alone = torch.cat([scores_of(calibrator, head, feats[i : i + 1], setting) for i in range(9)])
        torch.testing.assert_close(together, alone)


@pytest.mark.parametrize('name', ALL)
def test_logits_need_no_more_than_is_said(name):
    """From the last layer's input alone they are the same; a bank keeps no more."""
    calibrator, (head,) = made(ALL[name])
    outputs = RoIOutputs(head, rois(5))
    if calibrator.learns_from == 'roi_feats':
        with pytest.raises((AttributeError, TypeError)):
            calibrator.logits(RoIOutputs(head, class_feats=outputs.class_feats))
        return
    with torch.no_grad():
        logits, again = (calibrator.logits(o) for o in (outputs, RoIOutputs(head, class_feats=outputs.class_feats)))
    for one, other in zip(flat(logits), flat(again), strict=True):
        assert torch.equal(one, other)


def flat(logits):
    return [part for each in logits for part in flat(each)] if isinstance(logits, tuple) else [logits]


@pytest.mark.parametrize('name', [name for name in ALL if made(ALL[name])[0].is_trained])
def test_its_gradients_reach_all_that_it_learns_and_nothing_else(name):
    calibrator, heads = made(ALL[name], num_stages=2)
    losses = {}
    for stage, head in enumerate(heads):
        logits = calibrator.logits(RoIOutputs(head, rois(24)), stage)
        losses |= calibrator.loss(logits, step(24), stage)
    sum(losses.values()).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in calibrator.parameters())
    assert all(parameter.grad is None for head in heads for parameter in head.parameters())
    assert {loss.partition('.')[0] for loss in losses} == {'s0', 's1'}


@pytest.mark.parametrize('name', ALL)
def test_a_step_without_rois_has_finite_losses(name):
    calibrator, (head,) = made(ALL[name])
    nothing = StepRoIs(torch.zeros(0, dtype=torch.long), 1.0, [0], [(3, 0, 0)])
    outputs = RoIOutputs(head, rois(0))
    if calibrator.observes:
        before = {key: value.clone() for key, value in calibrator.state_dict().items()}
        calibrator.observe(outputs, nothing)
        assert all(torch.equal(value, before[key]) for key, value in calibrator.state_dict().items())
    if calibrator.is_trained:
        losses = calibrator.loss(calibrator.logits(outputs), nothing)
        assert all(torch.isfinite(loss) and loss == 0 for loss in losses.values())


@pytest.mark.parametrize('name', ALL)
def test_a_state_dict_has_all_that_a_test_needs(name):
    calibrator, (head,) = made(ALL[name])
    centres = np.random.default_rng(0).random((500, 2))

    class Annotated:
        num_annotated_images = staticmethod(lambda: 1000)
        box_centres = staticmethod(lambda: (centres, np.arange(500) % NUM_CLASSES))

    calibrator.prepare(TrainingAnnotations(Annotated))
    other = CALIBRATORS.build(dict(ALL[name])).bind([head], FREQUENCY)
    other.load_state_dict(calibrator.state_dict())
    for setting in calibrator.score_settings:
        assert torch.equal(*(scores_of(each, head, rois(6), setting) for each in (calibrator, other)))


@pytest.mark.parametrize('name', ALL)
def test_a_variant_shares_what_is_learnt_and_leaves_the_original_as_it_is(name):
    calibrator, (head,) = made(ALL[name])
    settings = calibrator.score_settings
    before = {setting: scores_of(calibrator, head, rois(7), setting) for setting in settings}
    for choice, values in calibrator.all_choices().items():
        for value in values:
            variant = calibrator.variant({choice: value})
            pairs = zip(variant.parameters(), calibrator.parameters(), strict=True)
            assert all(one.data_ptr() == other.data_ptr() for one, other in pairs)
            assert variant.learns_from == calibrator.learns_from
            fresh = rebuilt(ALL[name], choice, value, head, calibrator)
            for setting in settings:
                of_variant = scores_of(variant, head, rois(7), setting)
                assert torch.equal(of_variant, scores_of(fresh, head, rois(7), setting))
                if not calibrator.depends_on(choice, setting):
                    assert torch.equal(of_variant, before[setting])
    for setting in settings:
        assert torch.equal(scores_of(calibrator, head, rois(7), setting), before[setting])


def rebuilt(config, choice, value, head, like):
    """The calibrator that a config with another value builds, with the same state."""

    def changed(config, name):
        part, _, rest = name.partition('.')
        return config | ({part: changed(dict(config[part]), rest)} if rest else {part: value})

    fresh = CALIBRATORS.build(changed(dict(config), choice)).bind([head], FREQUENCY)
    fresh.load_state_dict(like.state_dict())
    return fresh


def test_a_panel_gives_each_members_scores_and_computes_heads_once():
    simcal, (head,) = made(dict(type='SimCal'))
    bags, _ = made(dict(type='BAGS'))
    on_simcal = NorCal(0.3, on=simcal, on_scores='calibrated').bind([head], FREQUENCY)
    runs = []
    simcal.heads[0].register_forward_hook(lambda *_: runs.append(1))
    members = {
        'dual': (simcal, 'dual'),
        'other T': (simcal.variant(dict(threshold=5)), 'dual'),
        'bags': (bags, 'calibrated'),
        'norcal': (NorCal(0.5).bind([head], FREQUENCY), 'calibrated'),
        'on simcal': (on_simcal, 'calibrated'),
        'on simcal, other gamma': (on_simcal.variant(dict(gamma=0.9)), 'calibrated'),
    }
    panel = Panel(members)
    with torch.no_grad():
        outputs = RoIOutputs(head, rois(5))
        base, logits = outputs.logits.softmax(dim=1), panel.logits(outputs)
    assert len(runs) == 1
    for name, (calibrator, setting) in members.items():
        assert torch.equal(panel.scores(base, logits, name), scores_of(calibrator, head, rois(5), setting)), name


probabilities = st.integers(0, 50).map(
    lambda seed: torch.randn(4, NUM_CLASSES + 1, generator=torch.Generator().manual_seed(seed)).softmax(dim=1)
)


@given(scores=probabilities, gamma=st.floats(0, 2))
def test_norcal_class_by_class(scores, gamma):
    ours = NorCal(gamma).bind([box_head()], FREQUENCY).scores(scores, ())
    for own, row in zip(ours, scores, strict=True):
        raw = [float(p) * float(m) ** -gamma for p, m in zip(row[:-1], FREQUENCY.image_count, strict=True)]
        total = sum(raw) + float(row[-1])
        expected = torch.tensor([*(value / total for value in raw), float(row[-1]) / total])
        torch.testing.assert_close(own, expected, atol=1e-6, rtol=1e-5)


@given(scores=probabilities)
def test_what_changes_nothing_gives_the_base_back(scores):
    head = box_head()
    for calibrator in (NorCal(0.0), Temperature(1.0), CALIBRATORS.build(dict(type='LogitAdjustment', tau=0.0))):
        torch.testing.assert_close(calibrator.bind([head], FREQUENCY).scores(scores, ()), scores, atol=1e-6, rtol=1e-5)
    outputs = RoIOutputs(head, rois(3))
    plain = TauNorm(0.0).bind([head], FREQUENCY)
    torch.testing.assert_close(plain.logits(outputs), outputs.logits)


@given(scores=probabilities, threshold=st.integers(0, 300))
def test_the_dual_head_rule_between_any_two(scores, threshold):
    heads = [box_head()]
    rare, others = NorCal(1.0).bind(heads, FREQUENCY), Temperature(2.0).bind(heads, FREQUENCY)
    dual = DualHead(dict(type='NorCal', gamma=1.0), dict(type='Temperature', temperature=2.0), threshold=threshold)
    ours = dual.bind(heads, FREQUENCY).scores(scores, ((), ()))
    of_rare, of_others = rare.scores(scores, ()), others.scores(scores, ())
    for c, count in enumerate(COUNTS):
        assert torch.equal(ours[:, c], (of_rare if count < threshold else of_others)[:, c])
    assert torch.equal(ours[:, -1], of_others[:, -1])
    mean = MeanScores(dict(type='NorCal', gamma=1.0), dict(type='Temperature', temperature=2.0)).bind(heads, FREQUENCY)
    torch.testing.assert_close(mean.scores(scores, ((), ())), (of_rare + of_others) / 2)


@given(seed=st.integers(0, 99), count=st.integers(4, 40))
def test_fractal_dimension_by_counting_cells(seed, count):
    rng = np.random.default_rng(seed)
    centres = rng.random((count, 2)) ** rng.integers(1, 4)
    x, y = [], []
    for grid in range(1, 65):
        if count < grid * grid:
            break
        cells = set()
        for point in centres:
            for i in range(grid):
                for j in range(grid):
                    low, high = np.array([i, j]) * (1 / grid), np.array([i + 1, j + 1]) * (1 / grid)
                    if (point >= low).all() and (point < high).all():
                        cells.add((i, j))
        x.append(np.log(grid))
        y.append(np.log(len(cells)))
    expected = max(np.polyfit(x, y, 1)[0], 1.0)
    labels = np.full(count, 1)
    assert fractal_dimensions(centres, labels, 3) == pytest.approx([1.0, expected, 1.0], abs=1e-9)


def test_fracal_knows_the_dimensions_from_the_training_annotations():
    rng = np.random.default_rng(0)

    class Annotated:
        num_annotated_images = staticmethod(lambda: 7000)
        box_centres = staticmethod(lambda: (rng.random((900, 2)), np.arange(900) % NUM_CLASSES))

    calibrator = FRACAL().bind([box_head()], FREQUENCY)
    calibrator.prepare(TrainingAnnotations(Annotated))
    assert calibrator.num_images == 7000 and (calibrator.dimensions > 1.2).all()
    shift = np.log10(7000 / FREQUENCY.image_count) - np.log10(NUM_CLASSES)
    np.testing.assert_allclose(calibrator.prior_shift().numpy(), shift)
    with pytest.raises(ConfigError, match='which has no `box_centres` for the calibrator'):
        FRACAL().bind([box_head()], FREQUENCY).prepare(TrainingAnnotations(object()))


def test_logn_sees_the_statistics_of_whole_steps():
    head = box_head()
    calibrator = LogN(momentum=0.5).bind([head], FREQUENCY)
    mean, var = torch.zeros(NUM_CLASSES + 1), torch.ones(NUM_CLASSES + 1)
    for seed in range(3):
        outputs = RoIOutputs(head, rois(20, seed))
        calibrator.observe(outputs, step(20))
        mean = 0.5 * mean + 0.5 * outputs.logits.mean(dim=0)
        var = 0.5 * var + 0.5 * outputs.logits.var(dim=0)
    torch.testing.assert_close(calibrator.running_mean[0], mean)
    torch.testing.assert_close(calibrator.running_var[0], var)


def test_ncm_is_of_the_class_whose_mean_is_nearest():
    head = box_head()
    calibrator = NCM(temperature=0.1).bind([head], FREQUENCY)
    seen = RoIOutputs(head, rois(30))
    labels = torch.arange(30) % 3 * 2  # classes 0, 2 and 4; no RoI of 1 and 3
    calibrator.observe(seen, StepRoIs(labels, 30))
    means = torch.stack([seen.class_feats[labels == c].mean(dim=0) for c in (0, 2, 4)])
    outputs = RoIOutputs(head, rois(6, 5))
    base = outputs.logits.softmax(dim=1)
    scores = calibrator.scores(base, calibrator.logits(outputs))
    cosines = torch.nn.functional.cosine_similarity(outputs.class_feats[:, None], means[None], dim=2)
    expected = (cosines / 0.1).softmax(dim=1) * (1 - base[:, -1:])
    torch.testing.assert_close(scores[:, [0, 2, 4]], expected)
    assert (scores[:, [1, 3]] == 0).all() and torch.equal(scores[:, -1], base[:, -1])


def test_bags_keeps_eight_others_for_each_of_a_groups_own():
    calibrator, _ = made(dict(type='BAGS', edges=[10, 100], others_ratio=2.0))
    assert isinstance(calibrator, BAGS) and [len(group) for group in calibrator.groups] == [2, 1, 2]
    labels = torch.tensor([0, 5, 5, 5, 5, 5, 3, 4, 4, 5])
    of_step = StepRoIs(labels, 10, [4, 6], [(1, 0), (1, 1)])
    is_own = torch.isin(labels, calibrator.groups[0])
    chosen = calibrator.chosen_others(is_own, of_step, 0)
    assert chosen.sum() == 2 and not (chosen & is_own).any()
    every_choice = {tuple(calibrator.chosen_others(is_own, of_step, group).tolist()) for group in range(9)}
    assert len(every_choice) > 1
    nothing = torch.zeros(10, dtype=torch.bool)
    assert not calibrator.chosen_others(nothing, of_step, 0).any()


def test_chances_are_a_rois_own_whatever_ranks_share_the_step():
    whole = StepRoIs(torch.zeros(7, dtype=torch.long), 7, [3, 4], [(1, 0), (1, 1)])
    parts = [StepRoIs(torch.zeros(n, dtype=torch.long), n, [n], [key]) for n, key in ((3, (1, 0)), (4, (1, 1)))]
    assert torch.equal(whole.chances(2), torch.cat([part.chances(2) for part in parts]))
    assert not torch.equal(whole.chances(0), whole.chances(1))


def test_simcal_in_a_composition_is_simcal():
    simcal, (head,) = made(dict(type='SimCal', threshold=100))
    assert isinstance(simcal, SimCal)
    composed = DualHead(simcal, None, rare_scores='calibrated').bind
    torch.manual_seed(1)
    dual = composed([head], FREQUENCY)
    dual.rare.load_state_dict(made(dict(type='SimCal', threshold=100))[0].state_dict())
    assert torch.equal(
        scores_of(dual, head, rois(8), 'calibrated'), scores_of(made(dict(type='SimCal'))[0], head, rois(8), 'dual')
    )
