"""The rule of Props-GT against its definition, box by box."""
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.structures import InstanceData

from mmdet.evaluation.props_gt import NO_CLASS, true_classes, true_scores

whole_boxes = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 6), st.integers(1, 6)), max_size=6
)


def overlap(a, b):
    """IoU by counting unit squares."""
    squares_a, squares_b = (
        {(x, y) for x in range(box[0], box[0] + box[2]) for y in range(box[1], box[1] + box[3])} for box in (a, b)
    )
    return len(squares_a & squares_b) / len(squares_a | squares_b)


def corners(boxes):
    return torch.tensor([[x, y, x + w, y + h] for x, y, w, h in boxes], dtype=torch.float32).view(-1, 4)


@given(boxes=whole_boxes, gt_boxes=whole_boxes)
def test_a_proposal_takes_the_class_of_what_it_overlaps_most(boxes, gt_boxes):
    labels = torch.arange(len(gt_boxes)) % 3
    found = true_classes(corners(boxes), corners(gt_boxes), labels)
    assert found.dtype == torch.int64 and len(found) == len(boxes)
    for box, label in zip(boxes, found.tolist(), strict=True):
        overlaps = [overlap(box, gt_box) for gt_box in gt_boxes]
        most = max(overlaps, default=0)
        if most < 0.5:
            assert label == NO_CLASS
        else:
            assert label == int(labels[overlaps.index(most)])


def test_its_score_is_its_objectness():
    """The first lies on both ground truths, the second overlaps one by a half exactly, the third by less."""
    proposals = InstanceData(
        bboxes=torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4.9]]), scores=torch.tensor([0.9, 0.6, 0.3])
    )
    gt = InstanceData(bboxes=torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 10]]), labels=torch.tensor([0, 2]))
    expected = torch.zeros(3, 4)
    expected[0, 2], expected[1, 0] = 0.9, 0.6
    assert torch.equal(true_scores(proposals, gt[:2], 3)[:1], expected[:1])
    second = true_scores(proposals, gt[1:], 3)
    assert second[1].tolist() == pytest.approx([0, 0, 0.6, 0]) and (second[2] == 0).all()
    nothing = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    assert torch.equal(true_scores(proposals, nothing, 3), torch.zeros(3, 4))
