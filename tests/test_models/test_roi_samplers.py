import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmdet.models.task_modules import Assignment, PseudoSampler, RandomSampler
from mmdet.utils.seeding import keyed_torch_rng


def scene(num_pos, num_neg, num_ignored, num_gts, seed=0, device='cpu'):
    """Boxes in random order, numbered by their first coordinate, with an assignment to `num_gts` ground truths."""
    generator = torch.Generator().manual_seed(seed)
    positives = torch.randint(1, num_gts + 1, (num_pos,), generator=generator) if num_gts else torch.zeros(0).long()
    gt_index = torch.cat([positives, torch.zeros(num_neg).long(), -torch.ones(num_ignored).long()])
    gt_index = gt_index[torch.randperm(len(gt_index), generator=generator)]
    boxes = torch.arange(len(gt_index)).float()[:, None].repeat(1, 4)
    gt_boxes = -1 - torch.arange(num_gts).float()[:, None].repeat(1, 4)
    gt_labels = torch.arange(num_gts) + 50
    labels = torch.where(gt_index > 0, gt_index + 49, -1)
    assignment = Assignment(gt_index.to(device), (gt_index > 0).float().to(device), labels.to(device))
    return assignment, boxes.to(device), gt_boxes.to(device), gt_labels.to(device)


@given(
    st.integers(0, 30), st.integers(0, 60), st.integers(0, 10), st.integers(1, 5), st.integers(1, 40),
    st.sampled_from([0.25, 0.5, 1.0]), st.sampled_from([-1, 0, 1, 3]), st.booleans(),
)  # fmt: skip
def test_counts_and_membership(num_pos, num_neg, num_ignored, num_gts, num, fraction, ub, add_gt):
    assignment, boxes, gt_boxes, gt_labels = scene(num_pos, num_neg, num_ignored, num_gts)
    sampler = RandomSampler(num, fraction, neg_pos_ub=ub, add_gt_as_proposals=add_gt)
    sampled = sampler.sample(assignment, boxes, gt_boxes, gt_labels)

    pos = min(num_pos + add_gt * num_gts, int(num * fraction))
    neg = min(num_neg, num - pos)
    if ub >= 0:
        neg = min(neg, ub * max(1, pos))
    assert (len(sampled.pos_boxes), len(sampled.neg_boxes)) == (pos, neg)
    assert len(sampled.boxes) == pos + neg
    assert sampled.avg_factor == max(pos, 1) + max(neg, 1)

    added = num_gts if add_gt else 0
    for number, gt, is_gt in zip(
        sampled.pos_boxes[:, 0].tolist(), sampled.pos_gt_index.tolist(), sampled.pos_is_gt.tolist(), strict=True
    ):
        assert is_gt == (number < 0)
        assert gt == (-1 - number if is_gt else assignment.gt_index[int(number)] - 1)
    assert (assignment.gt_index[sampled.neg_boxes[:, 0].long()] == 0).all()
    assert torch.equal(sampled.pos_gt_boxes, gt_boxes[sampled.pos_gt_index])
    assert torch.equal(sampled.pos_gt_labels, gt_labels[sampled.pos_gt_index])
    everything = torch.cat([gt_boxes[:added], boxes])
    assert torch.equal(everything[sampled.pos_index], sampled.pos_boxes)
    assert torch.equal(everything[sampled.neg_index], sampled.neg_boxes)
    assert len(sampled.pos_index.unique()) == pos and len(sampled.neg_index.unique()) == neg


def test_every_candidate_is_as_likely():
    assignment, boxes, gt_boxes, gt_labels = scene(20, 40, 0, 2)
    sampler = RandomSampler(10, 0.5, add_gt_as_proposals=False)
    drawn = torch.zeros(60)
    with keyed_torch_rng(1):
        for _ in range(2000):
            sampled = sampler.sample(assignment, boxes, gt_boxes, gt_labels)
            drawn[sampled.pos_index] += 1
            drawn[sampled.neg_index] += 1
    expected = torch.where(assignment.gt_index > 0, 2000 * 5 / 20, 2000 * 5 / 40)
    assert ((drawn - expected).abs() < 5 * expected.sqrt()).all()


def test_the_choice_follows_the_cpu_generator(device):
    def draw(key, where):
        with keyed_torch_rng(key):
            return RandomSampler(16, 0.25).sample(*scene(30, 90, 5, 3, device=where)).boxes.cpu()

    assert torch.equal(draw(1, device), draw(1, 'cpu'))
    assert not torch.equal(draw(1, device), draw(2, device))


@pytest.mark.parametrize('sampler', [RandomSampler(8, 0.25), PseudoSampler()])
def test_without_ground_truth_all_are_negative(sampler):
    sampled = sampler.sample(*scene(0, 6, 2, 0))
    assert sampled.pos_boxes.shape == sampled.pos_gt_boxes.shape == (0, 4)
    assert sampled.pos_gt_labels.shape == (0,)
    assert len(sampled.neg_boxes) == 6
    assert sampled.avg_factor == 7


def test_pseudo_sampler_takes_all_that_are_assigned():
    assignment, boxes, gt_boxes, gt_labels = scene(5, 7, 3, 2)
    sampled = PseudoSampler().sample(assignment, boxes, gt_boxes, gt_labels)
    assert torch.equal(sampled.pos_index, (assignment.gt_index > 0).nonzero().flatten())
    assert torch.equal(sampled.neg_index, (assignment.gt_index == 0).nonzero().flatten())
    assert not sampled.pos_is_gt.any()
