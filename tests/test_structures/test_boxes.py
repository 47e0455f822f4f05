import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from mmdet.structures.boxes import box_area, box_iou, boxes_to_rois, clip_boxes, scale_boxes


def boxes_of(count):
    """Lists of boxes on a coarse grid, so that touching, equal and empty ones are common."""
    corner = st.tuples(*[st.integers(0, 12)] * 2)
    size = st.tuples(*[st.integers(0, 8)] * 2)
    box = st.tuples(corner, size).map(lambda b: [*b[0], b[0][0] + b[1][0], b[0][1] + b[1][1]])
    return st.lists(box, min_size=count[0], max_size=count[1]).map(
        lambda boxes: torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    )


@given(boxes_of((0, 6)), boxes_of((0, 6)))
def test_iou_is_torchvisions_except_that_empty_boxes_give_zero(a, b):
    expected = torchvision.ops.box_iou(a, b).nan_to_num(0)
    torch.testing.assert_close(box_iou(a, b), expected)


@given(boxes_of((1, 5)), boxes_of((1, 5)))
def test_iof_is_the_share_of_the_first_box(a, b):
    found = box_iou(a, b, mode='iof')
    for i, (x1, y1, x2, y2) in enumerate(a.tolist()):
        cells = {(x, y) for x in range(int(x1), int(x2)) for y in range(int(y1), int(y2))}
        for j, (u1, v1, u2, v2) in enumerate(b.tolist()):
            common = [c for c in cells if u1 <= c[0] < u2 and v1 <= c[1] < v2]
            assert found[i, j].item() == pytest.approx(len(common) / len(cells) if cells else 0)


def test_iou_takes_no_gradient_and_knows_its_modes():
    a = torch.tensor([[0.0, 0, 2, 2]], requires_grad=True)
    assert not box_iou(a, a).requires_grad
    with pytest.raises(ValueError, match='giou'):
        box_iou(a, a, mode='giou')


def test_clip_scale_and_area():
    boxes = torch.tensor([[-3.0, -4, 50, 60], [1, 2, 3, 5]])
    assert clip_boxes(boxes, (40, 30)).tolist() == [[0, 0, 30, 40], [1, 2, 3, 5]]
    assert scale_boxes(boxes, (2, 0.5)).tolist() == [[-6, -2, 100, 30], [2, 1, 6, 2.5]]
    assert box_area(boxes).tolist() == [53 * 64, 6]


def test_rois_name_their_image(device):
    boxes = [torch.ones(2, 4, device=device), torch.ones(0, 4, device=device), 2 * torch.ones(1, 4, device=device)]
    assert boxes_to_rois(boxes).tolist() == [[0, 1, 1, 1, 1], [0, 1, 1, 1, 1], [2, 2, 2, 2, 2]]
