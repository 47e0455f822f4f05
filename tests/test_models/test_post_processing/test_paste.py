"""Masks straight to run lengths against masks pasted pixel by pixel."""
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from torchvision.models.detection.roi_heads import paste_masks_in_image

from mmdet.errors import ConfigError
from mmdet.models.post_processing import (
    paste_masks,
    paste_masks_legacy_to_rle,
    paste_masks_to_rle,
    paste_masks_torchvision_to_rle,
    rle_to_bitmaps,
)


def encode(bitmaps):
    """pycocotools' encodings of (K, H, W) bool."""
    return [coco_mask.encode(np.asfortranarray(bitmap, dtype=np.uint8)) for bitmap in bitmaps]


def blobs(count, size, generator):
    """Probabilities like a mask head's: smooth shapes, mostly near 0 or 1."""
    coarse = torch.randn(count, 1, 5, 5, generator=generator) * 4 + 1
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode='bicubic', align_corners=False)
    return smooth[:, 0].sigmoid()


def boxes_around(count, height, width, generator, largest=1.5):
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
    size = torch.rand(count, 2, generator=generator) ** 2 * torch.tensor([width, height]) * largest
    return torch.cat([centre - size / 2, centre + size / 2], dim=1)


def bilinear(prob, box, x, y):
    """One sample in double precision, with nothing outside the mask."""
    size = len(prob)
    cell_x = (x + 0.5 - box[0]) / (box[2] - box[0]) * size - 0.5
    cell_y = (y + 0.5 - box[1]) / (box[3] - box[1]) * size - 0.5
    total = 0.0
    for row in (int(np.floor(cell_y)), int(np.floor(cell_y)) + 1):
        for column in (int(np.floor(cell_x)), int(np.floor(cell_x)) + 1):
            if 0 <= row < size and 0 <= column < size:
                total += prob[row][column] * (1 - abs(cell_x - column)) * (1 - abs(cell_y - row))
    return total


def test_a_pixel_is_object_where_the_bilinear_sample_reaches_the_threshold():
    generator = torch.Generator().manual_seed(0)
    probs, boxes = torch.rand(6, 5, 5, generator=generator), boxes_around(6, 20, 24, generator)
    pasted = paste_masks(probs, boxes, (20, 24))
    for prob, box, mask in zip(probs.double().tolist(), boxes.double().tolist(), pasted.tolist(), strict=True):
        for y in range(20):
            for x in range(24):
                sample = bilinear(prob, box, x, y)
                assert mask[y][x] == (sample >= 0.5) or abs(sample - 0.5) < 1e-5


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_run_lengths_are_those_of_the_pasted_bitmaps(data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    count, size = data.draw(st.integers(0, 5)), data.draw(st.sampled_from([1, 2, 7, 28]))
    image_size = data.draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    kind = data.draw(st.sampled_from(['smooth', 'noise', 'steps', 'flat']))
    probs = {
        'smooth': lambda: blobs(count, size, generator),
        'noise': lambda: torch.rand(count, size, size, generator=generator),
        'steps': lambda: torch.randint(5, (count, size, size), generator=generator) / 4,
        'flat': lambda: 0.5 + 1e-7 * torch.randn(count, size, size, generator=generator),
    }[kind]()
    boxes = boxes_around(count, *image_size, generator)
    if data.draw(st.booleans()):
        boxes = (boxes * 2).round() / 2
    threshold = data.draw(st.sampled_from([0.5, 0.25, 0.7, 1.0]))
    bitmaps = paste_masks(probs, boxes, image_size, threshold)
    assert paste_masks_to_rle(probs, boxes, image_size, threshold) == encode(bitmaps.numpy())


def test_many_masks_of_a_photograph(device):
    generator = torch.Generator().manual_seed(1)
    probs, boxes = blobs(200, 28, generator), boxes_around(200, 480, 640, generator, largest=0.6)
    rles = paste_masks_to_rle(probs.to(device), boxes.to(device), (480, 640))
    assert rles == encode(paste_masks(probs, boxes, (480, 640)).numpy())


def test_samples_within_rounding_of_the_threshold_fall_as_grid_sample_rounds_them():
    """Ramps whose samples meet the threshold at pixel centres, thousands of times, up to rounding."""
    ramp = torch.linspace(0, 1, 28)
    probs = torch.stack([ramp.expand(28, 28), ramp[:, None].expand(28, 28), (ramp + ramp[:, None]) / 2])
    probs = probs.repeat(60, 1, 1)
    shift = torch.arange(180.0)[:, None] / 7
    boxes = torch.tensor([[3.0, 2.0, 59.0, 58.0]]) + shift
    for threshold in (0.5, 1 / 3):
        bitmaps = paste_masks(probs, boxes, (90, 90), threshold)
        assert paste_masks_to_rle(probs, boxes, (90, 90), threshold) == encode(bitmaps.numpy())


@pytest.mark.parametrize(
    'box',
    [
        [5.0, 5.0, 5.0, 12.0],
        [5.5, 5.0, 5.5, 12.0],
        [5.0, 7.25, 12.0, 7.25],
        [4.0, 4.0, 4.0, 4.0],
        [4.0, 4.0, 4.0005, 15.0],
        [4.2, 4.2, 4.3, 4.3],
        [-30.0, -30.0, -20.0, -20.0],
        [100.0, 3.0, 130.0, 9.0],
        [-500.0, -400.0, 600.0, 700.0],
        [0.0, 0.0, 20.0, 20.0],
    ],
)
def test_boxes_without_extent_outside_or_larger_than_the_image(box):
    probs = torch.full((1, 28, 28), 0.9)
    boxes = torch.tensor([box])
    bitmap = paste_masks(probs, boxes, (20, 20))
    assert paste_masks_to_rle(probs, boxes, (20, 20)) == encode(bitmap.numpy())
    if box[0] == 0:
        assert bitmap.all()


def test_what_cannot_be_a_threshold():
    for paste in (paste_masks, paste_masks_to_rle):
        with pytest.raises(ConfigError, match='mask_thr_binary'):
            paste(torch.rand(1, 3, 3), torch.tensor([[0.0, 0.0, 9.0, 9.0]]), (10, 10), 0.0)


def test_legacy_masks_are_resized_to_whole_inclusive_boxes():
    generator = torch.Generator().manual_seed(2)
    probs = blobs(40, 28, generator)
    boxes = boxes_around(40, 60, 80, generator).clamp(min=0).minimum(torch.tensor([79.0, 59.0, 79.0, 59.0]))
    expected = np.zeros((40, 60, 80), dtype=bool)
    for bitmap, prob, (left, top, right, bottom) in zip(expected, probs.numpy(), boxes.int().tolist(), strict=True):
        width, height = right - left + 1, bottom - top + 1
        bitmap[top : top + height, left : left + width] = cv2.resize(prob, (width, height)) > 0.5
    assert paste_masks_legacy_to_rle(probs, boxes, (60, 80)) == encode(expected)


def test_legacy_masks_are_cut_at_the_image():
    probs = torch.ones(5, 4, 4)
    boxes = torch.tensor([[-3.0, -2, 4, 5], [6, 5, 30, 30], [9, 9, 9, 9], [-9, -9, -4, -4], [40, 2, 50, 3]])
    areas = rle_to_bitmaps(paste_masks_legacy_to_rle(probs, boxes, (10, 12))).sum((1, 2))
    assert areas.tolist() == [5 * 6, 6 * 5, 1, 0, 0]


def test_bitmaps_come_back(device):
    bitmaps = np.random.default_rng(3).random((7, 13, 9)) > 0.6
    decoded = rle_to_bitmaps(encode(bitmaps))
    assert decoded.dtype == bool and np.array_equal(decoded, bitmaps)
    assert rle_to_bitmaps([]).shape == (0, 0, 0)
    assert paste_masks_to_rle(torch.zeros(0, 28, 28, device=device), torch.zeros(0, 4, device=device), (5, 5)) == []
    assert paste_masks_legacy_to_rle(torch.zeros(0, 28, 28), torch.zeros(0, 4), (5, 5)) == []


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 5), size=st.sampled_from([7, 14, 28]))
def test_the_torchvision_paste_is_torchvisions(seed, count, size):
    """Its detections lie on the image."""
    generator = torch.Generator().manual_seed(seed)
    height, width = torch.randint(1, 90, (2,), generator=generator).tolist()
    probs, boxes = blobs(count, size, generator), boxes_around(count, height, width, generator)
    boxes = boxes.clamp(min=0).minimum(torch.tensor([width, height] * 2))
    wanted = paste_masks_in_image(probs[:, None], boxes, (height, width))[:, 0] >= 0.5
    found = paste_masks_torchvision_to_rle(probs, boxes, (height, width))
    assert found == encode(wanted.numpy())
