"""InstanceMasks: mask targets against brute force, and geometry."""
import math

import mmcv
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from mmdet.structures.masks import InstanceMasks

L_SHAPE = np.array([[10.0, 12], [40, 12], [40, 25], [25, 25], [25, 44], [10, 44]])
TRIANGLE = np.array([[50.5, 8.25], [61.75, 30.5], [45.0, 28.0]])


def polygons(seed: int, count: int = 3, size: float = 64) -> list[list[np.ndarray]]:
    """Star-shaped polygons, one or two parts a mask."""
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        parts = []
        for _ in range(rng.integers(1, 3)):
            corners = rng.integers(3, 12)
            angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
            radius = rng.uniform(0.1, 0.4, corners) * size
            centre = rng.uniform(0.2, 0.8, 2) * size
            parts.append(centre + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1))
        masks.append(parts)
    return masks


def inside(polygon: np.ndarray, x: float, y: float) -> bool:
    """Crossing-number test."""
    odd = False
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
            odd = not odd
    return odd


def distance(polygon: np.ndarray, x: float, y: float) -> float:
    """From a point to the polygon's outline."""
    best = math.inf
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        edge = b - a
        t = np.clip(np.dot((x, y) - a, edge) / max(np.dot(edge, edge), 1e-12), 0, 1)
        best = min(best, float(np.hypot(*(a + t * edge - (x, y)))))
    return best


@pytest.mark.parametrize('seed', range(6))
def test_polygon_targets_agree_with_a_brute_force_rasteriser(seed, device):
    """Away from outlines each cell is what its centre is; COCO rounds outlines to fifths of a cell and half a pixel."""
    masks = InstanceMasks(polygons(seed), 64, 64)
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-5, 40, (4, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(6, 30, (4, 2))], axis=1).astype(np.float32)
    index = rng.integers(0, 3, 4)
    targets = masks.crop_and_resize(torch.tensor(boxes, device=device), 14, torch.tensor(index, device=device))
    assert targets.shape == (4, 14, 14) and targets.dtype == torch.float32 and targets.device == device
    checked = 0
    for box, i, target in zip(boxes, index, targets.cpu().numpy(), strict=True):
        cell = (box[2:] - box[:2]) / 14
        parts = [(part - box[:2]) / cell for part in masks.masks[i]]
        for row in range(14):
            for column in range(14):
                x, y = column + 0.5, row + 0.5
                if min(distance(part, x, y) for part in parts) > 1.0:
                    assert target[row, column] == any(inside(part, x, y) for part in parts)
                    checked += 1
    assert checked > 300


def test_polygon_targets_are_mmdetections():
    """PolygonMasks.crop_and_resize: shift, stretch (sides of at least 1), rasterise with COCO's functions."""
    masks = InstanceMasks(polygons(3, 8), 64, 64)
    boxes = np.array([[0, 0, 30.5, 20], [5, 5, 5.25, 30], [10, 3, 60, 61], [-3, 4, 80, 9]], np.float32)
    index = [0, 1, 5, 7]
    expected = []
    for (x1, y1, x2, y2), i in zip(boxes, index, strict=True):
        stretch = 28 / np.array([max(x2 - x1, np.float32(1)), max(y2 - y1, np.float32(1))])
        parts = [((part - (x1, y1)) * stretch).ravel().tolist() for part in masks.masks[i]]
        expected.append(coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(parts, 28, 28))))
    targets = masks.crop_and_resize(torch.from_numpy(boxes), 28, torch.tensor(index))
    assert np.array_equal(targets.numpy(), expected)


def aligned_average(bitmap: np.ndarray, box: np.ndarray, out_size: int) -> np.ndarray:
    """RoIAlign (aligned, adaptive sampling) of one bitmap, sample by sample."""
    height, width = bitmap.shape
    x1, y1, x2, y2 = (float(edge) - 0.5 for edge in box)
    cell_w, cell_h = (x2 - x1) / out_size, (y2 - y1) / out_size
    nx, ny = max(math.ceil(cell_w), 1), max(math.ceil(cell_h), 1)

    def sample(x: float, y: float) -> float:
        if not (-1 <= x <= width and -1 <= y <= height):
            return 0.0
        x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
        left, top = int(x), int(y)
        right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
        fx, fy = x - left, y - top
        return (
            bitmap[top, left] * (1 - fx) * (1 - fy)
            + bitmap[top, right] * fx * (1 - fy)
            + bitmap[bottom, left] * (1 - fx) * fy
            + bitmap[bottom, right] * fx * fy
        )

    out = np.zeros((out_size, out_size))
    for row in range(out_size):
        for column in range(out_size):
            xs = [x1 + cell_w * (column + (k + 0.5) / nx) for k in range(nx)]
            ys = [y1 + cell_h * (row + (k + 0.5) / ny) for k in range(ny)]
            out[row, column] = np.mean([sample(x, y) for x in xs for y in ys])
    return out


@pytest.mark.parametrize('seed', range(3))
def test_bitmap_targets_agree_with_brute_force_roi_align(seed, device):
    """BitmapMasks.crop_and_resize, i.e. `poly2mask=True`: the average over each cell, set from 0.5."""
    masks = InstanceMasks(polygons(seed, size=40), 40, 40).rasterised()
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 20, (5, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(3, 18, (5, 2))], axis=1).astype(np.float32)
    index = rng.integers(0, 3, 5)
    targets = masks.crop_and_resize(torch.tensor(boxes, device=device), 7, torch.tensor(index, device=device)).cpu()
    for box, i, target in zip(boxes, index, targets.numpy(), strict=True):
        average = aligned_average(masks.masks[i], box, 7)
        sure = np.abs(average - 0.5) > 1e-4
        assert np.array_equal(target[sure], (average >= 0.5)[sure])


def test_targets_of_a_mixture_of_polygons_bitmaps_and_rles():
    bitmap = InstanceMasks([[TRIANGLE]], 64, 64).to_bitmaps()[0]
    rle = coco_mask.encode(np.asfortranarray(bitmap))
    masks = InstanceMasks([[L_SHAPE], bitmap, rle, []], 64, 64)
    box = torch.tensor([[44.0, 8, 62, 31]]).expand(5, 4)
    targets = masks.crop_and_resize(box, 14, torch.tensor([1, 0, 2, 3, 1]))
    assert torch.equal(targets[0], targets[2]) and torch.equal(targets[0], targets[4])
    assert targets[0].mean() > 0.3 and not targets[1].any() and not targets[3].any()
    assert masks.crop_and_resize(torch.zeros(0, 4), 14, torch.zeros(0, dtype=torch.long)).shape == (0, 14, 14)


def test_bitmaps_and_areas_of_every_kind_of_mask():
    (bitmap,) = InstanceMasks([[L_SHAPE, TRIANGLE]], 64, 64).to_bitmaps()
    masks = InstanceMasks([[L_SHAPE, TRIANGLE], bitmap, coco_mask.encode(np.asfortranarray(bitmap)), []], 64, 64)
    bitmaps = masks.to_bitmaps()
    assert bitmaps.dtype == np.uint8 and bitmaps.shape == (4, 64, 64)
    assert np.array_equal(bitmaps[0], bitmaps[1]) and np.array_equal(bitmaps[0], bitmaps[2]) and not bitmaps[3].any()
    shoelace = 30 * 32 - 15 * 19 + 0.5 * abs((61.75 - 50.5) * (28 - 8.25) - (45 - 50.5) * (30.5 - 8.25))
    assert masks.areas == pytest.approx([shoelace, bitmap.sum(), bitmap.sum(), 0])


@given(st.integers(0, 10**6), st.sampled_from(['horizontal', 'vertical', 'diagonal']))
@settings(max_examples=25, deadline=None)
def test_flipping_twice_changes_nothing(seed, direction):
    masks = InstanceMasks(polygons(seed), 50, 64)
    again = masks.flip(direction).flip(direction)
    for one, other in zip(masks.masks, again.masks, strict=True):
        assert all(np.allclose(a, b) for a, b in zip(one, other, strict=True))
    bitmaps = masks.rasterised()
    assert np.array_equal(bitmaps.flip(direction).flip(direction).to_bitmaps(), bitmaps.to_bitmaps())
    assert np.array_equal(bitmaps.flip(direction).to_bitmaps()[0], mmcv.imflip(bitmaps.masks[0], direction))


@given(st.integers(0, 10**6), st.integers(20, 150), st.integers(20, 150))
@settings(max_examples=25, deadline=None)
def test_resizing_scales_areas(seed, height, width):
    masks = InstanceMasks(polygons(seed), 50, 64)
    resized = masks.resize((height, width))
    assert (resized.height, resized.width) == (height, width)
    assert resized.areas == pytest.approx(masks.areas * (height / 50) * (width / 64))
    bitmaps = masks.rasterised()
    expected = mmcv.imresize(bitmaps.masks[0], (width, height), interpolation='nearest')
    assert np.array_equal(bitmaps.resize((height, width)).masks[0], expected)


def test_padding_keeps_the_masks_where_they_are():
    masks = InstanceMasks([[L_SHAPE]], 64, 64)
    for padded in (masks.pad((70, 80)), masks.rasterised().pad((70, 80))):
        bitmap = padded.to_bitmaps()[0]
        assert bitmap.shape == (70, 80)
        assert np.array_equal(bitmap[:64, :64], masks.to_bitmaps()[0]) and not bitmap[64:].any()


@pytest.mark.parametrize(
    'index', [1, slice(0, 2), [2, 0], np.array([True, False, True]), torch.tensor([2, 2]), torch.tensor([False] * 3)]
)
def test_selecting_masks(index):
    masks = InstanceMasks(polygons(1), 64, 64)
    array = index.numpy() if isinstance(index, torch.Tensor) else index
    expected = np.atleast_1d(np.arange(3)[array])
    chosen = masks[index]
    assert [id(mask) for mask in chosen.masks] == [id(masks.masks[i]) for i in expected]
    assert (chosen.height, chosen.width) == (64, 64)


def test_masks_travel_in_instance_data():
    masks = InstanceMasks(polygons(1), 64, 64)
    instances = InstanceData(labels=torch.arange(3), masks=masks)
    assert [id(m) for m in instances[torch.tensor([2, 0])].masks.masks] == [id(masks.masks[2]), id(masks.masks[0])]
    assert len(InstanceData.cat([instances, instances]).masks) == 6


@pytest.mark.parametrize('seed', range(4))
def test_cropped_polygons_are_cropped_pixels(seed):
    """Pixels may differ where a side was cut, which COCO then rounds otherwise, but only at the outline."""
    masks = InstanceMasks(polygons(seed), 64, 64)
    cropped = masks.crop((11, 20, 51, 55))
    assert (cropped.height, cropped.width) == (35, 40)
    pixels = masks.to_bitmaps()[:, 20:55, 11:51]
    for k, row, column in np.argwhere(cropped.to_bitmaps() != pixels):
        assert min(distance(part, column + 11.5, row + 20.5) for part in masks.masks[k]) < 1
    as_bitmaps = masks.rasterised().crop((11, 20, 51, 55))
    assert np.array_equal(as_bitmaps.to_bitmaps(), pixels) and pixels.any()
    assert as_bitmaps.bounding_boxes() == pytest.approx(cropped.bounding_boxes(), abs=1.5)


def test_what_lies_outside_a_crop_is_empty():
    crop = InstanceMasks([[L_SHAPE], [L_SHAPE, TRIANGLE]], 64, 64).crop((44, 0, 64, 20))
    assert crop.masks[0] == [] and len(crop.masks[1]) == 1
    assert crop.bounding_boxes()[0].tolist() == [0, 0, 0, 0]
    assert crop.rasterised().bounding_boxes()[0].tolist() == [0, 0, 0, 0]
