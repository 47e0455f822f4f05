import numpy as np
import pytest
import torch
from hotcoco import mask as rle
from mmengine.structures import InstanceData

from mmdet.structures.masks import InstanceMasks
from mmdet.visualization import class_colour, contact_sheet, draw_detections
from mmdet.visualization.text import font, shortened

NAMES = ['tall_sunflower', 'bicycle', 'a name that is much longer than the widest picture anyone would draw it on ' * 2]


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(90, 110, (400, 500, 3), dtype=np.uint8)


@pytest.fixture
def instances():
    bitmaps = np.zeros((3, 400, 500), np.uint8)
    bitmaps[0, 100:200, 100:180] = 1
    bitmaps[1, 250:300, 300:420] = 1
    return {
        'bboxes': torch.tensor([[100.0, 100, 180, 200], [300, 250, 420, 300], [-20, -5, 600, 420]]),
        'scores': torch.tensor([0.9, 0.5, 0.2]),
        'labels': torch.tensor([0, 1, 2]),
        'masks': [rle.encode(bitmap) for bitmap in bitmaps],
    }


def changed(before, after):
    return (before != after).any(-1)


def test_masks_are_tinted_and_what_is_not_shown_stays_as_it_was(image, instances):
    before = image.copy()
    drawn = draw_detections(image, instances, NAMES, score_thr=0.6)
    assert (image == before).all()
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    where = changed(image, drawn)
    assert where[110:190, 110:170].all()
    assert not where[:, 300:].any() and not where[210:].any()
    tint = drawn[150, 140].astype(float) - 0.6 * image[150, 140]
    np.testing.assert_allclose(tint, 0.4 * np.array(class_colour(0)), atol=1.5)


def test_all_forms_of_masks_and_instances_give_the_same_picture(image, instances):
    expected = draw_detections(image, instances, NAMES, 0.1)
    bitmaps = np.stack([rle.decode(mask) for mask in instances['masks']])
    for masks in (bitmaps, torch.from_numpy(bitmaps), InstanceMasks(list(bitmaps), 400, 500)):
        assert (draw_detections(image, {**instances, 'masks': masks}, NAMES, 0.1) == expected).all()
    assert (draw_detections(image, InstanceData(**instances), NAMES, 0.1) == expected).all()


def test_ground_truth_has_no_scores_and_boxes_may_come_without_masks(image, instances):
    annotated = {key: value for key, value in instances.items() if key != 'scores'}
    assert changed(image, draw_detections(image, annotated, NAMES))[260:290, 310:410].all()
    boxes = {key: value for key, value in annotated.items() if key != 'masks'}
    assert not changed(image, draw_detections(image, boxes, NAMES))[260:290, 310:410].any()


def test_without_instances_the_image_is_only_enlarged():
    small = np.full((40, 60, 3), 77, np.uint8)
    nothing = {'bboxes': torch.empty(0, 4), 'scores': torch.empty(0), 'labels': torch.empty(0).long(), 'masks': []}
    drawn = draw_detections(small, nothing, NAMES)
    assert drawn.shape == (240, 360, 3) and (drawn == 77).all()
    assert draw_detections(small, nothing, NAMES, scale=1).shape == small.shape


def test_small_images_are_enlarged_with_what_is_on_them():
    small = np.zeros((40, 60, 3), np.uint8)
    bitmap = np.zeros((40, 60), np.uint8)
    bitmap[20:30, 10:30] = 1
    instances = {'bboxes': np.array([[10.0, 20, 30, 30]]), 'labels': np.array([1]), 'masks': [rle.encode(bitmap)]}
    drawn = draw_detections(small, instances, NAMES, scale=5)
    tinted = np.all(np.abs(drawn.astype(int) - 0.4 * np.array(class_colour(1))) < 2, axis=-1)
    assert tinted[105:145, 55:145].all() and not tinted[160:].any() and not tinted[:, 160:].any()


def test_labels_stay_inside_and_off_each_other():
    image = np.zeros((300, 300, 3), np.uint8)
    instances = {
        'bboxes': torch.tensor([[100.0, 100, 200, 200]] * 4 + [[290, 0, 300, 8]]),
        'scores': torch.tensor([0.9, 0.8, 0.7, 0.6, 0.95]),
        'labels': torch.tensor([0, 1, 3, 4, 5]),
    }
    drawn = draw_detections(image, instances, ['name'] * 6, scale=1)
    # The label backgrounds keep their full colour nearly everywhere, so all five can be read.
    for label in instances['labels'].tolist():
        assert (drawn == class_colour(label)).all(-1).sum() > 300


def test_long_names_are_shortened_before_their_score():
    typeface = font(12)
    assert shortened('short', 100, typeface) == 'short'
    text = shortened(NAMES[2], 150, typeface)
    assert text.endswith('…') and typeface.getlength(text) <= 150 and NAMES[2].startswith(text[:-1])


def test_colours_are_fixed_and_neighbours_differ():
    colours = np.array([class_colour(label) for label in range(1230)], float)
    assert class_colour(7) == class_colour(7)
    for step in (1, 2, 3):
        assert np.abs(colours[step:] - colours[:-step]).max(1).min() > 35
    assert len({tuple(colour) for colour in colours[:200]}) == 200


class TestContactSheet:
    def test_pictures_of_the_cells_width_are_left_as_they_are(self):
        rng = np.random.default_rng(0)
        rows = [[rng.integers(0, 255, (90, 120, 3), dtype=np.uint8) for _ in range(2)] for _ in range(3)]
        sheet = contact_sheet(rows, ('base', 'dual'), across=2, cell_width=120)
        windows = np.lib.stride_tricks.sliding_window_view(sheet[..., 0], (90, 120))
        for row in rows:
            for picture in row:
                corner = picture[0, 0, 0], picture[-1, -1, 0]
                found = np.argwhere((windows[:, :, 0, 0] == corner[0]) & (windows[:, :, -1, -1] == corner[1]))
                assert sum((sheet[y : y + 90, x : x + 120] == picture).all() for y, x in found) == 1

    def test_pictures_of_other_sizes_are_fitted(self):
        rows = [[np.zeros((50, 25, 3), np.uint8), np.zeros((300, 1000, 3), np.uint8)]]
        sheet = contact_sheet(rows, ('a very long header that has no room', 'b'), across=3, cell_width=100)
        dark = (sheet < 20).all(-1)
        assert dark.sum() == pytest.approx(50 * 100 + 100 * 30, rel=0.1)
        assert sheet.shape[1] < 300
