import math

import pytest
import torch
import torch.nn.functional as F

from mmdet.models.losses import CrossEntropyLoss, L1Loss, SeesawLoss, SmoothL1Loss, accuracy
from mmdet.registry import MODELS

EPS = torch.finfo(torch.float32).eps


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_regression_losses_are_their_formulas(device):
    pred, target = torch.randn(7, 4, device=device), torch.randn(7, 4, device=device)
    distance = (pred - target).abs()
    beta = 1 / 9
    smooth = torch.where(distance < beta, distance**2 / (2 * beta), distance - beta / 2)
    for loss, elements in ((L1Loss(), distance), (SmoothL1Loss(beta=beta), smooth)):
        weight = torch.rand(7, 1, device=device)
        torch.testing.assert_close(loss(pred, target), elements.mean())
        torch.testing.assert_close(loss(pred, target, weight, avg_factor=5), (elements * weight).sum() / (5 + EPS))
    summed = MODELS.build(dict(type='L1Loss', reduction='sum', loss_weight=3.0))
    torch.testing.assert_close(summed(pred, target), 3 * distance.sum())
    torch.testing.assert_close(L1Loss(reduction='none')(pred, target), distance)
    with pytest.raises(ValueError, match='avg_factor'):
        summed(pred, target, avg_factor=2)
    with pytest.raises(ValueError, match='average'):
        L1Loss(reduction='average')


def test_softmax_cross_entropy(device):
    logits, labels = torch.randn(6, 5, device=device), torch.tensor([0, 4, 2, 2, 1, 3], device=device)
    elements = -logits.log_softmax(1)[range(6), labels]
    loss = CrossEntropyLoss(loss_weight=0.5)
    torch.testing.assert_close(loss(logits, labels), 0.5 * elements.mean())
    weight = torch.tensor([1.0, 0, 1, 1, 0, 2], device=device)
    torch.testing.assert_close(loss(logits, labels, weight, avg_factor=4), 0.5 * (elements * weight).sum() / (4 + EPS))
    by_class = [1.0, 2, 3, 4, 5]
    torch.testing.assert_close(
        CrossEntropyLoss(class_weight=by_class)(logits, labels), (elements * (labels + 1)).mean()
    )


def test_ignored_labels_cost_nothing_and_count_where_mmdetection_counts_them():
    logits, labels = torch.randn(2, 5, 3, 3), torch.randint(0, 5, (2, 3, 3))
    labels[:, 0] = 255
    elements = F.cross_entropy(logits, labels, ignore_index=255, reduction='none')
    assert (elements[:, 0] == 0).all()
    torch.testing.assert_close(CrossEntropyLoss(ignore_index=255)(logits, labels), elements.mean())
    torch.testing.assert_close(
        CrossEntropyLoss(ignore_index=255, avg_non_ignore=True)(logits, labels), elements.sum() / 12
    )


def test_sigmoid_cross_entropy_of_labels():
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, 3, -1])  # the third is background, the last ignored
    one_hot = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]])
    elements = F.binary_cross_entropy_with_logits(logits, one_hot, reduction='none')
    elements[3] = 0
    loss = CrossEntropyLoss(use_sigmoid=True)
    torch.testing.assert_close(loss(logits, labels), elements.mean())
    weight = torch.tensor([1.0, 2, 3, 4])
    torch.testing.assert_close(
        loss(logits, labels, weight, avg_factor=7), (elements * weight[:, None]).sum() / (7 + EPS)
    )
    torch.testing.assert_close(
        CrossEntropyLoss(use_sigmoid=True, avg_non_ignore=True)(logits, labels), elements.sum() / 9
    )
    torch.testing.assert_close(loss(logits, one_hot), F.binary_cross_entropy_with_logits(logits, one_hot))


def test_rpn_scores_have_one_logit_and_two_labels():
    logits, labels = torch.randn(5, 1), torch.tensor([0, 1, 1, 0, 1])
    expected = F.binary_cross_entropy_with_logits(logits[:, 0], (labels == 0).float(), reduction='sum') / (5 + EPS)
    torch.testing.assert_close(CrossEntropyLoss(use_sigmoid=True)(logits, labels, avg_factor=5), expected)


def test_mask_cross_entropy_is_the_mean_over_pixels():
    logits, targets = torch.randn(3, 28, 28), torch.randint(0, 2, (3, 28, 28))
    torch.testing.assert_close(
        CrossEntropyLoss(use_mask=True, loss_weight=2.0)(logits, targets),
        2 * F.binary_cross_entropy_with_logits(logits, targets.float()),
    )
    with pytest.raises(ValueError, match='either'):
        CrossEntropyLoss(use_mask=True, use_sigmoid=True)


def test_accuracy_is_per_cent():
    logits = torch.tensor([[1.0, 2], [3, 1], [0, 1], [5, 6]])
    assert accuracy(logits, torch.tensor([1, 0, 0, 1])).item() == 75
    assert accuracy(logits[:0], torch.zeros(0, dtype=torch.long)).item() == 0


def seesaw_slowly(logits, labels, seen, p, q, eps):
    """The formula of the paper, sample by sample."""
    losses = []
    for row, i in zip(logits.tolist(), labels.tolist(), strict=True):
        total = sum(math.exp(z) for z in row)
        denominator = 0.0
        for j, z in enumerate(row):
            mitigation = min(1.0, (max(seen[j], 1) / max(seen[i], 1)) ** p)
            compensation = max(1.0, (math.exp(z) / max(math.exp(row[i]), eps * total)) ** q)
            denominator += math.exp(z) * (1 if j == i else mitigation * compensation)
        losses.append(math.log(denominator) - row[i])
    return losses


@pytest.mark.parametrize(('p', 'q'), [(0.8, 2.0), (0, 2.0), (0.8, 0), (0, 0)])
def test_seesaw_is_its_formula_over_the_counts_so_far(p, q, device):
    classes, rows = 6, 20
    loss = SeesawLoss(p=p, q=q, num_classes=classes, loss_weight=2.0).to(device)
    seen = torch.zeros(classes + 1)
    for _ in range(3):
        logits = (3 * torch.randn(rows, classes + 2)).to(device)
        labels = torch.randint(0, classes + 1, (rows,)).clamp(max=classes).to(device)
        weight = torch.rand(rows, device=device)
        parts = loss(logits, labels, weight, avg_factor=rows)
        seen += torch.bincount(labels.cpu(), minlength=classes + 1)
        objects = labels < classes
        slow = torch.tensor(
            seesaw_slowly(logits[objects, :-2], labels[objects], seen[:-1].tolist(), p, q, 1e-2), device=device
        )
        torch.testing.assert_close(
            parts['loss_cls_classes'], 2 * (slow * weight[objects]).sum() / rows, rtol=1e-4, atol=1e-5
        )
        binary = F.cross_entropy(logits[:, -2:], (~objects).long(), reduction='none')
        torch.testing.assert_close(parts['loss_cls_objectness'], 2 * (binary * weight).sum() / rows)
    assert torch.equal(loss.state_dict()['cum_samples'].cpu(), seen)


def test_seesaw_scores_multiply_class_and_objectness():
    loss = SeesawLoss(num_classes=4, return_dict=False)
    assert loss.get_cls_channels(4) == 6
    logits = torch.randn(9, 6)
    scores = loss.get_activation(logits)
    assert scores.shape == (9, 5)
    torch.testing.assert_close(scores.sum(1), torch.ones(9))
    torch.testing.assert_close(scores[:, :4], logits[:, :4].softmax(1) * logits[:, 4:].softmax(1)[:, :1])
    background = torch.full((9,), 4)
    only_background = loss(logits.requires_grad_(), background)
    only_background.backward()
    assert (logits.grad[:, :4] == 0).all() and logits.grad[:, 4:].abs().min() > 0
    right = loss.get_accuracy(torch.tensor([[0.0, 1, 0, 0, 1, 0], [0, 0, 1, 0, 1, 0]]), torch.tensor([1, 4]))
    assert {name: value.item() for name, value in right.items()} == dict(acc_objectness=50, acc_classes=100)
    with pytest.raises(ValueError, match='two more'):
        loss.get_activation(torch.zeros(1, 5))
    with pytest.raises(ValueError, match='softmax'):
        SeesawLoss(use_sigmoid=True)
