"""Losses for the long tail: their formulas written out, the authors' own figures, scores, and two processes."""
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet.errors import ConfigError
from mmdet.models.losses import CrossEntropyLoss, EQLLoss, EQLV2Loss, FederatedLoss, FocalCustomLoss, FocalLoss
from mmdet.models.roi_heads import Shared2FCBBoxHead
from mmdet.models.task_modules import SampledRoIs
from mmdet.registry import MODELS
from mmdet.structures import ClassFrequency

from . import long_tail_share

EPS = torch.finfo(torch.float32).eps
# Each with the width of a classifier of 5 classes and the score that training starts from.
LOSSES = {
    'EQLLoss': (dict(type='EQLLoss'), 5, 0.001),
    'EQLV2Loss': (dict(type='EQLV2Loss', num_classes=5), 6, 0.001),
    'FederatedLoss': (dict(type='FederatedLoss'), 5, 0.01),
    'FocalCustomLoss': (dict(type='FocalCustomLoss', num_classes=5), 5, 0.01),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def frequency_of(image_count) -> ClassFrequency:
    return ClassFrequency([str(i) for i in range(len(image_count))], np.array(image_count) * 3, np.array(image_count))


def built(name, device='cpu'):
    """One of `LOSSES`, with counts where it needs them."""
    loss = MODELS.build(LOSSES[name][0]).to(device)
    if hasattr(loss, 'set_class_frequency'):
        loss.set_class_frequency(frequency_of([1, 2, 30, 400, 900]), num_images=1000)
    return loss


def log_sigmoid(z: float) -> float:
    return -math.log1p(math.exp(-z))


def cross_entropy(z: float, is_positive: bool) -> float:
    return -log_sigmoid(z) if is_positive else -log_sigmoid(-z)


def some_rois(classes, columns, rows=30, device='cpu'):
    """Logits in float64 and labels, a third of them background."""
    labels = torch.randint(0, 3 * classes // 2, (rows,)).clamp(max=classes)
    return (2 * torch.randn(rows, columns, dtype=torch.float64)).to(device), labels.to(device)


@pytest.mark.parametrize(('dtype', 'rtol'), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_eqlv2_is_the_authors_over_three_steps(oracle, dtype, rtol, device):
    stored = np.load(oracle / 'calibrators/eqlv2.npz', allow_pickle=False)
    settings = {name: stored[name].item() for name in ('gamma', 'mu', 'alpha')}
    loss = EQLV2Loss(stored['pos_grad'].shape[1], **settings).to(device, dtype)
    logits = torch.tensor(stored['logits']).to(device, dtype)
    for step, labels in enumerate(torch.tensor(stored['labels']).to(device)):
        positive, negative = loss.weights()
        np.testing.assert_allclose(positive.cpu(), stored['pos_weight'][step], rtol=rtol)
        np.testing.assert_allclose(negative.cpu(), stored['neg_weight'][step], rtol=rtol, atol=1e-9)
        np.testing.assert_allclose(loss(logits[step], labels).item(), stored['loss'][step], rtol=rtol)
        for name in ('pos_grad', 'neg_grad', 'pos_neg'):
            np.testing.assert_allclose(getattr(loss, name).cpu(), stored[name][step], rtol=rtol)
    atol = 1e-9 if dtype == torch.float64 else 1e-6
    np.testing.assert_allclose(loss.get_activation(logits[-1]).cpu(), stored['scores'], rtol=0, atol=atol)


def test_eqlv2_is_its_formula(device):
    classes, gamma, mu, alpha = 4, 7.0, 0.6, 3.0
    loss = EQLV2Loss(classes, gamma=gamma, mu=mu, alpha=alpha, loss_weight=0.5).double().to(device)
    pulled, pushed, ratio = [0.0] * classes, [0.0] * classes, [100.0] * classes
    for _ in range(3):
        logits, labels = some_rois(classes, classes + 1, device=device)
        weight = torch.rand(len(labels), dtype=torch.float64, device=device)
        negative = [1 / (1 + math.exp(-gamma * (g - mu))) for g in ratio] + [1.0]
        total = 0.0
        for row, label, factor in zip(logits.tolist(), labels.tolist(), weight.tolist(), strict=True):
            for c, z in enumerate(row):
                element = 1 + alpha * (1 - negative[c]) if c == label else negative[c]
                total += factor * element * cross_entropy(z, c == label)
                if c < classes:
                    gradient = factor * element * abs(1 / (1 + math.exp(-z)) - (c == label))
                    (pulled if c == label else pushed)[c] += gradient
        ratio = [p / (n + 1e-10) for p, n in zip(pulled, pushed, strict=True)]
        found = loss(logits, labels, weight, avg_factor=7)
        assert found.item() == pytest.approx(0.5 * total / (7 + EPS), rel=1e-12)
        assert loss.pos_grad.tolist() == pytest.approx(pulled, rel=1e-12)
        assert loss.neg_grad.tolist() == pytest.approx(pushed, rel=1e-12)
        assert loss.pos_neg.tolist() == pytest.approx(ratio, rel=1e-12)


def test_eqlv2_sums_are_of_the_gradients(device):
    """What is added up is what autograd gives, up to sign, the loss's factor and the division by RoIs."""
    loss = EQLV2Loss(3, loss_weight=2.0).double().to(device)
    loss(*some_rois(3, 4, device=device))
    before = loss.pos_grad + loss.neg_grad
    logits, labels = some_rois(3, 4, device=device)
    loss(logits.requires_grad_(), labels).backward()
    after = loss.pos_grad + loss.neg_grad
    torch.testing.assert_close(after - before, logits.grad.abs().sum(0)[:-1] * len(labels) / 2)


def test_eqlv2_goes_on_from_a_checkpoint():
    straight, stopped = EQLV2Loss(4), EQLV2Loss(4)
    steps = [some_rois(4, 5) for _ in range(3)]
    for logits, labels in steps[:2]:
        straight(logits.float(), labels)
        stopped(logits.float(), labels)
    resumed = EQLV2Loss(4)
    resumed.load_state_dict(stopped.state_dict())
    assert sorted(stopped.state_dict()) == ['neg_grad', 'pos_grad', 'pos_neg']
    logits, labels = steps[2]
    assert torch.equal(straight(logits.float(), labels), resumed(logits.float(), labels))
    assert torch.equal(straight.pos_neg, resumed.pos_neg)


def test_eqlv2_without_the_factor_of_background():
    logits = torch.randn(6, 5)
    torch.testing.assert_close(EQLV2Loss(4, test_with_obj=False).get_activation(logits), logits.sigmoid())


def test_two_processes_add_up_the_gradients_and_share_the_draws_of_one(tmp_path):
    command = [sys.executable, long_tail_share.__file__]
    processes = [subprocess.Popen([*command, str(rank), '2', str(tmp_path)]) for rank in range(2)]
    alone = long_tail_share.share(0, 1)
    assert [process.wait(300) for process in processes] == [0, 0]
    shares = [torch.load(tmp_path / f'{rank}.pt') for rank in range(2)]
    for share in shares:
        assert share['state'].keys() == alone['state'].keys()
        for name, sums in alone['state'].items():
            torch.testing.assert_close(share['state'][name], sums, rtol=1e-6, atol=0)
    draws = sorted(tuple(draw) for share in shares for draw in share['draws'])
    assert draws == sorted(tuple(draw) for draw in alone['draws']) and len(draws) == 2 * long_tail_share.NUM_IMAGES


def test_eql_is_its_formula(device):
    image_count, num_images, lambda_ = [0, 3, 4, 5, 90], 1000, 0.004  # 4 in 1,000 is no tail
    loss = EQLLoss(lambda_=lambda_, loss_weight=0.5).to(device)
    loss.set_class_frequency(frequency_of(image_count), num_images)
    logits, labels = some_rois(5, 5, device=device)
    weight = torch.rand(len(labels), dtype=torch.float64, device=device)
    total = 0.0
    for row, label, factor in zip(logits.tolist(), labels.tolist(), weight.tolist(), strict=True):
        for c, z in enumerate(row):
            spared = label < 5 and c in (0, 1) and c != label
            total += 0 if spared else factor * cross_entropy(z, c == label)
    found = loss(logits.requires_grad_(), labels, weight, avg_factor=9)
    assert found.item() == pytest.approx(0.5 * total / (9 + EPS), rel=1e-12)
    found.backward()
    objects_of_others = (labels < 5) & (labels > 1)
    assert (logits.grad[objects_of_others, :2] == 0).all() and (logits.grad[labels == 5] != 0).all()
    torch.testing.assert_close(loss(logits, labels), loss(logits, labels, avg_factor=30), rtol=1e-8, atol=0)


def test_federated_is_its_formula(device):
    loss = FederatedLoss(fed_loss_num_cat=6, loss_weight=0.5).to(device)
    loss.set_class_frequency(frequency_of([1, 2, 3, 4, 5, 60, 70, 80, 90, 100]), 500)
    logits = torch.randn(12, 10, dtype=torch.float64, device=device)
    labels = torch.tensor([0, 0, 10, 10, 3, 3, 7, 10, 10, 10, 10, 10], device=device)
    torch.manual_seed(5)
    takes_part = loss.draw_classes(labels).tolist()
    assert takes_part[0] and takes_part[3] and takes_part[7] and sum(takes_part) == 5  # background is the sixth
    torch.manual_seed(5)
    total = sum(
        cross_entropy(z, c == label)
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
        for c, z in enumerate(row)
        if takes_part[c]
    )
    assert loss(logits, labels, avg_factor=12).item() == pytest.approx(0.5 * total / (12 + EPS), rel=1e-12)


@given(
    image_count=st.lists(st.integers(0, 40), min_size=1, max_size=30),
    labels=st.lists(st.integers(0, 30), max_size=20),
    num_cat=st.integers(1, 40),
    exponent=st.sampled_from([0.0, 0.5, 1.0]),
)
@settings(max_examples=100, deadline=None)
def test_classes_of_a_federated_step(image_count, labels, num_cat, exponent):
    """Those that occur and those without an image always; of the others as many as are missing, or all."""
    classes = len(image_count)
    labels = torch.tensor(labels, dtype=torch.long).clamp(max=classes)
    loss = FederatedLoss(num_cat, exponent)
    loss.set_class_frequency(frequency_of(image_count), num_images=50)
    takes_part = loss.draw_classes(labels)
    occurring = set(labels.tolist())
    surely = (occurring - {classes}) | {c for c, count in enumerate(image_count) if not count}
    drawn = set(takes_part.nonzero().flatten().tolist()) - surely
    assert takes_part[sorted(surely)].all()
    assert len(drawn) == min(max(num_cat - len(occurring), 0), classes - len(surely))


def test_federated_draws_by_the_square_root_of_images():
    image_count, draws = np.array([0, 1, 4, 16, 64, 7]), 5_000
    loss = FederatedLoss(fed_loss_num_cat=3)
    loss.set_class_frequency(frequency_of(image_count), num_images=90)
    labels = torch.tensor([5, 6])  # class 5 and background: one is missing
    seen = sum(loss.draw_classes(labels).long() for _ in range(draws)).numpy()
    assert seen[0] == seen[5] == draws
    expected = draws * np.sqrt(image_count[1:5]) / np.sqrt(image_count[1:5]).sum()
    # Chi-square of 3 degrees of freedom: 16.27 is exceeded once in a thousand times.
    assert ((seen[1:5] - expected) ** 2 / expected).sum() < 16.27


def test_federated_draws_again_what_it_drew_from_a_seed():
    loss = FederatedLoss(fed_loss_num_cat=10)
    loss.set_class_frequency(frequency_of([5] * 100), num_images=90)

    def drawn(seed):
        torch.manual_seed(seed)
        return loss.draw_classes(torch.tensor([100, 4]))

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize('name', ['EQLLoss', 'FederatedLoss'])
def test_losses_that_need_counts_say_so_and_keep_none(name, device):
    loss = MODELS.build(LOSSES[name][0]).to(device)
    logits, labels = some_rois(5, 5, device=device)
    with pytest.raises(ConfigError, match=f'^{name} does not know how often .* tools/train.py'):
        loss(logits, labels)
    loss.set_class_frequency(frequency_of([1, 2, 3, 4, 5]), num_images=10)
    assert loss(logits, labels).isfinite() and loss.image_count.device.type == device.type
    assert not loss.state_dict()


def focal(z: float, target: float, gamma: float, alpha: float) -> float:
    p = 1 / (1 + math.exp(-z))
    right = p if target else 1 - p
    return -(alpha if target else 1 - alpha) * (1 - right) ** gamma * math.log(right)


def focal_elements(logits, targets, gamma, alpha):
    pairs = zip(logits.flatten().tolist(), targets.flatten().tolist(), strict=True)
    return logits.new_tensor([focal(z, y, gamma, alpha) for z, y in pairs]).view_as(logits)


@pytest.mark.parametrize('kind', [FocalLoss, FocalCustomLoss])
@pytest.mark.parametrize(('gamma', 'alpha'), [(2.0, 0.25), (1.5, 0.6)])
def test_focal_is_its_formula(kind, gamma, alpha, device):
    named = dict(num_classes=5) if kind is FocalCustomLoss else {}
    loss = kind(gamma=gamma, alpha=alpha, loss_weight=3.0, **named)
    logits, labels = some_rois(5, 5, device=device)
    one_hot = F.one_hot(labels, 6)[:, :5]
    elements = focal_elements(logits, one_hot, gamma, alpha)
    weight = torch.rand(len(labels), dtype=torch.float64, device=device)
    torch.testing.assert_close(loss(logits, labels), 3 * elements.mean())
    expected = 3 * (elements * weight[:, None]).sum() / (8 + EPS)
    torch.testing.assert_close(loss(logits, labels, weight, avg_factor=8), expected)
    summed = kind(gamma=gamma, alpha=alpha, reduction='sum', **named)
    torch.testing.assert_close(summed(logits, labels), elements.sum())


def test_focal_of_targets_and_element_weights():
    logits, targets, weight = torch.randn(6, 3), (torch.rand(6, 3) > 0.7).float(), torch.rand(6, 3)
    expected = (focal_elements(logits, targets, 2.0, 0.25) * weight).sum() / (4 + EPS)
    torch.testing.assert_close(FocalLoss()(logits, targets, weight, avg_factor=4), expected)


def test_focal_of_an_rpn():
    anchors = dict(type='AnchorGenerator', scales=[4], ratios=[1.0], strides=[8])
    head = MODELS.build(dict(type='RPNHead', in_channels=8, anchor_generator=anchors, loss_cls=dict(type='FocalLoss')))
    logits, labels = torch.randn(6, 1), torch.tensor([0, 1, 1, 0, 1, 1])  # 0 is an object
    expected = focal_elements(logits, (labels == 0).float()[:, None], 2.0, 0.25).sum() / (4 + EPS)
    torch.testing.assert_close(head.loss_cls(logits, labels, torch.ones(6), avg_factor=4), expected)


def box_head(loss_cls, num_classes=5, **options):
    sizes = dict(in_channels=4, fc_out_channels=16, num_classes=num_classes, reg_class_agnostic=True)
    head = Shared2FCBBoxHead(loss_cls=loss_cls, **sizes, **options)
    head.init_weights()
    return head


@pytest.mark.parametrize('loss_cls', [dict(type='FocalLoss'), dict(type='CrossEntropyLoss', use_sigmoid=True)])
def test_losses_that_say_nothing_of_scores_mean_mmdetections_box_head(loss_cls):
    """C + 1 logits, the label of background having one as any other, and a softmax in the test."""
    head = box_head(dict(loss_cls))
    assert head.fc_cls.out_features == 6 and (head.fc_cls.bias == 0).all()
    logits, labels = torch.randn(9, 6), torch.arange(9) % 6
    torch.testing.assert_close(head.class_scores(logits), logits.softmax(1))
    targets = F.one_hot(labels, 6).float()
    torch.testing.assert_close(head.loss_cls(logits, labels), head.loss_cls(logits, targets))


@pytest.mark.parametrize(('name', 'config', 'width', 'prior'), [(name, *row) for name, row in LOSSES.items()])
def test_a_box_head_asks_the_loss_for_logits_scores_and_accuracy(name, config, width, prior):
    head = box_head(dict(config))
    assert head.num_cls_logits == head.fc_cls.out_features == width
    logits = head(torch.randn(300, 4, 7, 7))[0]
    assert logits.sigmoid().mean().item() == pytest.approx(prior, rel=0.2)

    logits = 2 * torch.randn(40, width) - 2
    scores = head.class_scores(logits)
    assert scores.shape == (40, 6) and scores.dtype == torch.float32
    classes = logits[:, :5].sigmoid()
    if name == 'EQLV2Loss':
        background = logits[:, 5:].sigmoid()
        classes = classes * (1 - background)
    else:
        background = (1 - classes.sum(1, keepdim=True)).clamp(0, 1)
        assert 0 < (background == 0).sum() < 40
    torch.testing.assert_close(scores, torch.cat([classes, background], dim=1))
    assert torch.equal(head.foreground_class(logits), classes.argmax(1))

    logits = F.one_hot(torch.tensor([0, 1, 4, 2]), width).float()
    accuracies = head.loss_cls.get_accuracy(logits, torch.tensor([0, 2, 4, 5]))
    assert accuracies['acc_classes'].item() == pytest.approx(200 / 3)


@pytest.mark.parametrize('name', LOSSES)
def test_a_prior_of_ones_own_and_an_initialisation_of_ones_own(name):
    head = box_head(dict(LOSSES[name][0], prior_prob=0.3))
    torch.testing.assert_close(head.fc_cls.bias.sigmoid(), torch.full((LOSSES[name][1],), 0.3))
    own = box_head(dict(LOSSES[name][0]), init_cfg=dict(type='Normal', std=0.1, bias=2, override=dict(name='fc_cls')))
    assert (own.fc_cls.bias == 2).all()


def rois_of(labels, num_negatives):
    empty = torch.zeros(0, 4)
    boxes = torch.tensor([[0.0, 0, 9, 9]]).repeat(len(labels), 1) if len(labels) else empty
    return SampledRoIs(
        pos_index=torch.arange(len(labels)),
        neg_index=torch.arange(num_negatives),
        pos_boxes=boxes,
        neg_boxes=torch.tensor([[0.0, 0, 5, 5]]).repeat(num_negatives, 1) if num_negatives else empty,
        pos_gt_index=torch.arange(len(labels)),
        pos_gt_boxes=boxes,
        pos_gt_labels=torch.tensor(labels, dtype=torch.long),
        pos_is_gt=torch.zeros(len(labels), dtype=torch.bool),
    )


@pytest.mark.parametrize('config', [dict(type='CrossEntropyLoss'), dict(type='SeesawLoss', num_classes=5), *LOSSES])
@pytest.mark.parametrize(('labels', 'num_negatives'), [([0, 3, 3], 4), ([], 6), ([], 0)])
def test_steps_with_objects_without_and_without_any_roi(config, labels, num_negatives):
    head = box_head(dict(LOSSES[config][0] if isinstance(config, str) else config))
    if isinstance(config, str):
        head.loss_cls = built(config)
    logits, deltas = head(torch.randn(len(labels) + num_negatives, 4, 7, 7))
    losses = head.loss(logits, deltas, [rois_of(labels, num_negatives)])
    total = sum(value for key, value in losses.items() if 'loss' in key)
    assert all(value.isfinite() for value in losses.values()) and (total > 0) == bool(labels or num_negatives)
    total.backward()
    assert (head.fc_cls.weight.grad.abs().sum() > 0) == bool(labels or num_negatives)


@pytest.mark.parametrize('name', LOSSES)
def test_half_precision_logits_are_summed_in_full(name, device):
    loss, same = built(name, device), built(name, device)
    logits, labels = some_rois(5, LOSSES[name][1], device=device)
    logits = logits.bfloat16()
    torch.manual_seed(1)
    with torch.autocast(device.type, torch.bfloat16):
        found = loss(logits, labels)
    torch.manual_seed(1)
    torch.testing.assert_close(found, same(logits.float(), labels))
    assert found.dtype == torch.float32


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: EQLLoss(use_sigmoid=False), 'EQLLoss is a sigmoid loss'),
        (lambda: FocalLoss(use_sigmoid=False), 'FocalLoss is a sigmoid loss'),
        (lambda: EQLV2Loss(prior_prob=0), 'prior_prob=0'),
        (lambda: FederatedLoss(fed_loss_num_cat=0), 'fed_loss_num_cat=0'),
        (lambda: FederatedLoss(fed_loss_freq_weight=-0.5), 'fed_loss_freq_weight=-0.5'),
        (lambda: FocalCustomLoss(5, reduction='average'), 'average'),
    ],
)
def test_impossible_settings(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize('kind', ['SeesawLoss', 'EQLV2Loss', 'FocalCustomLoss'])
def test_a_loss_of_other_classes_than_its_head(kind):
    message = 'bbox_head: num_classes is 5, but loss_cls.num_classes is 1203: make the two agree'
    with pytest.raises(ConfigError, match=message):
        box_head(dict(type=kind, num_classes=1203))


def test_ordinary_losses_keep_their_logits_and_biases():
    head = box_head(dict(type='CrossEntropyLoss'))
    assert isinstance(head.loss_cls, CrossEntropyLoss) and not head.has_custom_cls_logits
    assert head.fc_cls.out_features == 6 and (head.fc_cls.bias == 0).all()
