import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet.models.task_modules import MaxIoUAssigner, max_iou_assigner
from mmdet.structures.boxes import box_iou

grid_box = st.tuples(*[st.integers(0, 6)] * 2, *[st.integers(1, 5)] * 2).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


def boxes(most):
    return st.lists(grid_box, max_size=most).map(lambda b: torch.tensor(b, dtype=torch.float32).reshape(-1, 4))


options = st.fixed_dictionaries(
    dict(
        pos_iou_thr=st.sampled_from([0.5, 0.7]),
        neg_iou_thr=st.sampled_from([0.3, 0.5, (0.1, 0.4)]),
        min_pos_iou=st.sampled_from([0.0, 0.3, 0.5]),
        gt_max_assign_all=st.booleans(),
        ignore_iof_thr=st.sampled_from([-1, 0.5]),
        ignore_wrt_candidates=st.booleans(),
        match_low_quality=st.booleans(),
    )
)


def assign_slowly(boxes, gt_boxes, gt_labels, ignored_boxes, **cfg):
    """The rules of mmdetection one box and one ground truth at a time."""
    if not len(gt_boxes):
        return [0] * len(boxes), [0.0] * len(boxes), [-1] * len(boxes)
    overlaps = box_iou(gt_boxes, boxes).tolist()
    if cfg['ignore_iof_thr'] > 0:
        for b, box in enumerate(boxes):
            for region in ignored_boxes:
                pair = (box, region) if cfg['ignore_wrt_candidates'] else (region, box)
                if box_iou(pair[0][None], pair[1][None], mode='iof').item() > cfg['ignore_iof_thr']:
                    for row in overlaps:
                        row[b] = -1.0
    low, high = cfg['neg_iou_thr'] if isinstance(cfg['neg_iou_thr'], tuple) else (0, cfg['neg_iou_thr'])
    index, largest = [], []
    for b in range(len(boxes)):
        column = [row[b] for row in overlaps]
        largest.append(max(column))
        index.append(0 if low <= max(column) < high else -1)
        if max(column) >= cfg['pos_iou_thr']:
            index[b] = column.index(max(column)) + 1
    if cfg['match_low_quality'] and len(boxes):
        for g, row in enumerate(overlaps):
            if max(row) >= cfg['min_pos_iou']:
                if cfg['gt_max_assign_all']:
                    for b, overlap in enumerate(row):
                        if overlap == max(row):
                            index[b] = g + 1
                else:
                    index[row.index(max(row))] = g + 1
    return index, largest, [gt_labels[i - 1].item() if i > 0 else -1 for i in index]


@pytest.mark.slow
@settings(max_examples=150)
@given(boxes(12), boxes(6), boxes(2), options, st.sampled_from([1, 24, 2**21]))
def test_assignment_is_by_mmdetections_rules(candidates, gt_boxes, ignored, cfg, overlaps_at_once):
    gt_labels = torch.arange(len(gt_boxes)) * 7 % 5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(max_iou_assigner, 'OVERLAPS_AT_ONCE', overlaps_at_once)
        found = MaxIoUAssigner(**cfg).assign(candidates, gt_boxes, gt_labels, ignored)
    index, largest, labels = assign_slowly(candidates, gt_boxes, gt_labels, ignored, **cfg)
    assert found.gt_index.tolist() == index
    assert found.max_overlap.tolist() == largest
    assert found.labels.tolist() == labels


def test_an_ignored_region_makes_no_background():
    box, crowd = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 50, 50]])
    gt, label = torch.tensor([[60.0, 60, 70, 70]]), torch.tensor([3])
    thresholds = dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5)
    assert MaxIoUAssigner(**thresholds, ignore_iof_thr=0.5).assign(box, gt, label, crowd).gt_index.tolist() == [-1]
    assert MaxIoUAssigner(**thresholds, ignore_iof_thr=-1).assign(box, gt, label, crowd).gt_index.tolist() == [0]
    assert MaxIoUAssigner(**thresholds, ignore_iof_thr=0.5).assign(box, gt, label).gt_index.tolist() == [0]


def test_devices_and_configs_keys(device):
    assigner = MaxIoUAssigner(0.7, 0.3, 0.3, gpu_assign_thr=50)
    candidates = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [30, 30, 40, 40]], device=device)
    found = assigner.assign(candidates, candidates[:1], torch.tensor([4], device=device))
    assert found.gt_index.tolist() == [1, -1, 0]
    assert found.labels.tolist() == [4, -1, -1]
    with pytest.raises(TypeError):
        MaxIoUAssigner(0.7, 0.3, gpu_assing_thr=50)
