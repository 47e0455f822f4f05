"""The fast per-class NMS against a greedy loop over all candidates, and against torchvision's."""
import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet.models.post_processing import bbox_nms, multiclass_nms, suppression, top_candidates

NMS = dict(type='nms', iou_threshold=0.5)


def random_boxes(count, generator, side=40, whole=False):
    corner = torch.rand(count, 2, generator=generator) * side
    size = torch.rand(count, 2, generator=generator) * side / 2
    boxes = torch.cat([corner, corner + size], dim=1)
    return boxes.round() if whole else boxes


def all_candidates(scores, score_thr):
    """(score, proposal, class) in the order of a stable sort."""
    flat = scores.flatten()
    order = flat.sort(descending=True, stable=True)[1]
    order = order[flat[order] > score_thr]
    return flat[order], order // scores.shape[1], order % scores.shape[1]


def iou(a, b):
    """Of two boxes, in float32 step by step."""
    a, b = a.numpy(), b.numpy()
    width = max(min(a[2], b[2]) - max(a[0], b[0]), np.float32(0))
    height = max(min(a[3], b[3]) - max(a[1], b[1]), np.float32(0))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return float(width * height / union) if union else 0.0


def greedy(boxes, scores, score_thr, iou_threshold, max_per_img):
    """The definition, box by box; boxes (R, C, 4)."""
    detections = []
    for score, roi, label in zip(*(column.tolist() for column in all_candidates(scores, score_thr)), strict=True):
        rivals = [boxes[better, label] for _, better, other in detections if other == label]
        if all(iou(rival, boxes[roi, label]) <= iou_threshold for rival in rivals):
            detections.append((score, roi, label))
    return detections[:max_per_img] if max_per_img > 0 else detections


def as_tuples(result):
    _, scores, labels, roi_index = result
    return list(zip(scores.tolist(), roi_index.tolist(), labels.tolist(), strict=True))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_equals_the_greedy_loop_also_where_scores_and_overlaps_tie(data):
    rois, classes = data.draw(st.integers(0, 14)), data.draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    levels = data.draw(st.sampled_from([2, 5, 10**6]))
    scores = torch.randint(levels, (rois, classes), generator=generator) / levels
    boxes = random_boxes(rois * classes, generator, whole=data.draw(st.booleans())).view(rois, classes, 4)
    score_thr = data.draw(st.sampled_from([0.0, 0.05, 0.5]))
    iou_threshold = data.draw(st.sampled_from([0.0, 0.3, 0.5, 0.7]))
    max_per_img = data.draw(st.sampled_from([-1, 1, 5, 100]))
    first_look, largest_group = data.draw(st.sampled_from([1, 4, 1024])), data.draw(st.sampled_from([1, 3, 64]))
    cell = data.draw(st.sampled_from([1, 3, 64]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bbox_nms, 'FIRST_LOOK', first_look)
        patch.setattr(bbox_nms, 'CELL', cell)
        patch.setattr(suppression, 'LARGEST_PAIRED_GROUP', largest_group)
        result = multiclass_nms(boxes, scores, score_thr, dict(NMS, iou_threshold=iou_threshold), max_per_img)
    assert as_tuples(result) == greedy(boxes, scores, score_thr, iou_threshold, max_per_img)
    torch.testing.assert_close(result[0], boxes[result[3], result[2]], rtol=0, atol=0)


@pytest.mark.parametrize('score_thr', [0.0, 1e-3, 0.05])
@pytest.mark.parametrize('class_wise', [False, True])
def test_equals_torchvision_over_all_candidates(score_thr, class_wise, device):
    generator = torch.Generator().manual_seed(0)
    rois, classes = 150, 203
    scores = torch.softmax(torch.randn(rois, classes + 1, generator=generator) * 2.5, dim=1)[:, :-1]
    boxes = random_boxes(rois * (classes if class_wise else 1), generator).view(rois, -1)
    everywhere = boxes.view(rois, -1, 4).expand(rois, classes, 4)
    chosen, roi, label = all_candidates(scores, score_thr)
    keep = torchvision.ops.boxes._batched_nms_vanilla(everywhere[roi, label], chosen, label, 0.5)[:300]

    result = multiclass_nms(boxes.to(device), scores.to(device), score_thr, NMS, 300)
    for ours, theirs in zip(result, (everywhere[roi, label], chosen, label, roi), strict=True):
        assert ours.device.type == device.type
        assert torch.equal(ours.cpu(), theirs[keep])


def test_large_classes_go_through_the_compiled_kernel_and_give_the_same():
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(400, 3, generator=generator)
    boxes = random_boxes(400, generator)
    by_kernel = multiclass_nms(boxes, scores, 0.0, NMS, -1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suppression, 'LARGEST_PAIRED_GROUP', 400)
        by_pairs = multiclass_nms(boxes, scores, 0.0, NMS, -1)
        patch.setattr(suppression, 'MOST_PAIRS', 10)
        by_kernel_again = multiclass_nms(boxes, scores, 0.0, NMS, -1)
    assert as_tuples(by_kernel) == as_tuples(by_pairs) == as_tuples(by_kernel_again)


def test_identical_boxes_exhaust_the_candidates():
    """200 boxes in one place leave one detection a class, however many candidates are looked at."""
    generator = torch.Generator().manual_seed(2)
    scores = torch.rand(200, 40, generator=generator)
    boxes = torch.tensor([[1.0, 1.0, 9.0, 9.0]]).expand(200, 4)
    _, found, labels, roi_index = multiclass_nms(boxes, scores, 0.0, NMS, 300)
    assert sorted(labels.tolist()) == list(range(40))
    assert torch.equal(found, scores.amax(0).sort(descending=True)[0])
    assert torch.equal(roi_index, scores.argmax(0)[labels])


def test_a_class_without_rivals_keeps_everything_in_order():
    scores = torch.full((1000, 1230), 0.25)
    boxes = torch.arange(1000.0)[:, None] * 10 + torch.tensor([0.0, 0.0, 5.0, 5.0])
    _, _, labels, roi_index = multiclass_nms(boxes, scores, 0.0, NMS, 300)
    assert roi_index.tolist() == [0] * 300
    assert labels.tolist() == list(range(300))


def test_boxes_are_asked_for_only_where_they_can_matter():
    generator = torch.Generator().manual_seed(3)
    scores = torch.rand(500, 300, generator=generator)
    boxes = random_boxes(500, generator, side=400)
    asked = []

    def boxes_of(roi_index, labels):
        asked.append(len(labels))
        return boxes[roi_index]

    lazy = multiclass_nms(boxes_of, scores, 0.0, NMS, 300)
    assert as_tuples(lazy) == as_tuples(multiclass_nms(boxes, scores, 0.0, NMS, 300))
    assert asked == [1024]


def test_legacy_offset_and_class_agnostic():
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 4.0, 9.0, 13.0], [50.0, 0.0, 59.0, 9.0]])
    scores = torch.tensor([[0.9, 0.0], [0.0, 0.8], [0.7, 0.0]])
    # Overlap 5 of 9 rows: IoU 5 / 13 exclusive; 6 of 10: 6 / 14 inclusive.
    near = dict(type='nms', iou_threshold=0.4, class_agnostic=True)
    assert multiclass_nms(boxes, scores, 0.0, near, 10)[3].tolist() == [0, 1, 2]
    assert multiclass_nms(boxes, scores, 0.0, dict(near, offset=1), 10)[3].tolist() == [0, 2]
    assert multiclass_nms(boxes, scores, 0.0, dict(near, offset=1, class_agnostic=False), 10)[3].tolist() == [0, 1, 2]
    assert boxes[0].tolist() == [0.0, 0.0, 9.0, 9.0]


@pytest.mark.parametrize('count', [15, 400])
def test_classes_shifted_apart_as_mmcv_does(count):
    """Few candidates, all of them looked at, and thousands, of which one reaches the image's far border."""
    generator = torch.Generator().manual_seed(7)
    boxes = random_boxes(count, generator, side=6).repeat_interleave(12, 0)
    boxes += torch.rand(12 * count, 4, generator=generator) + torch.tensor([1300, 0, 1300, 0])
    scores = torch.full((len(boxes), 1203), -1.0)
    labels = torch.randint(1150, 1203, (len(boxes),), generator=generator)
    scores[torch.arange(len(boxes)), labels] = torch.rand(len(boxes), generator=generator)
    if len(boxes) > bbox_nms.FIRST_LOOK:
        boxes[scores.amax(1).argmin(), 2] = 1333

    shifted = boxes + labels[:, None] * (boxes.max() + 1)
    wanted = torchvision.ops.nms(shifted, scores.amax(1), 0.5)[:300]
    found = multiclass_nms(boxes, scores, 0.0, NMS, 300, class_shift=1333)
    assert torch.equal(found[3], wanted)
    assert torch.equal(found[0], boxes[wanted])
    assert not torch.equal(multiclass_nms(boxes, scores, 0.0, NMS, 300)[3], wanted)


def test_nothing_to_detect():
    for scores in (torch.zeros(5, 7), torch.zeros(0, 7), torch.full((5, 7), torch.nan)):
        result = multiclass_nms(torch.zeros(len(scores), 28), scores, 0.0, NMS, 100)
        assert [tuple(part.shape) for part in result] == [(0, 4), (0,), (0,), (0,)]
        assert result[2].dtype == result[3].dtype == torch.int64


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_top_candidates_are_the_head_of_the_stable_sort(data):
    rois, classes = data.draw(st.integers(0, 30)), data.draw(st.integers(1, 200))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    levels = data.draw(st.sampled_from([1, 4, 10**6]))
    with_background = torch.randint(levels + 1, (rois, classes + 1), generator=generator) / levels
    scores = data.draw(st.sampled_from([with_background[:, :-1], with_background[:, :-1].t().contiguous().t()]))
    score_thr = data.draw(st.sampled_from([-1.0, 0.0, 0.3]))
    k = data.draw(st.integers(1, 400))
    for ours, expected in zip(top_candidates(scores, score_thr, k), all_candidates(scores, score_thr), strict=True):
        assert torch.equal(ours, expected[:k])


def test_a_nan_hides_no_other_candidate(device):
    scores = torch.rand(20, 100, generator=torch.Generator().manual_seed(4))
    scores[3, 70] = scores[9, 5] = torch.nan
    clean = scores.nan_to_num(nan=-1.0)
    for ours, expected in zip(top_candidates(scores.to(device), 0.0, 50), all_candidates(clean, 0.0), strict=True):
        assert torch.equal(ours.cpu(), expected[:50])


@pytest.mark.parametrize('max_per_img', [-1, 100])
def test_small_boxes_are_no_candidates(max_per_img):
    """As if they had not been there: enough others are looked at, though the best 2,000 are all too small."""
    generator = torch.Generator().manual_seed(4)
    boxes, scores = random_boxes(4000, generator, side=400), torch.rand(4000, 2, generator=generator)
    small = torch.arange(4000) % 2 == 0
    boxes[small, 2] = boxes[small, 0] + 1.5
    scores[small] += 1
    settings = (0.0, NMS, max_per_img)
    found = multiclass_nms(boxes, scores, *settings, min_bbox_size=2)
    large = (boxes[:, 2:] - boxes[:, :2] > 2).all(1)
    wanted = multiclass_nms(boxes[large], scores[large], *settings)
    for one, other in zip(found[:3], wanted[:3], strict=True):
        assert torch.equal(one, other)
    assert torch.equal(found[3], large.nonzero().flatten()[wanted[3]])
