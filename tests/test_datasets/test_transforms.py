"""Transforms: the image, its boxes and its masks stay together."""
import mmcv
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from mmdet.datasets.transforms import PackDetInputs
from mmdet.errors import AnnotationError, ConfigError
from mmdet.registry import TRANSFORMS
from mmdet.structures.masks import InstanceMasks
from mmdet.utils.seeding import keyed_generator


def results(height=37, width=53, seed=0):
    """An image with two rectangles: one inside, one that leaves the image."""
    boxes = np.array([[4, 6, 20.5, 30], [30, 2, 60, 41]], np.float32)
    corners = [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64) for x1, y1, x2, y2 in boxes.tolist()]
    return dict(
        img=np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8),
        img_shape=(height, width),
        ori_shape=(height, width),
        gt_bboxes=boxes,
        gt_bboxes_labels=np.array([3, 5]),
        gt_ignore_flags=np.array([False, True]),
        gt_masks=InstanceMasks([[corner] for corner in corners], height, width),
        gt_seg_map=np.random.default_rng(seed).integers(0, 9, (height, width), dtype=np.uint8),
        rng=keyed_generator(seed),
    )


def build(name, **args):
    return TRANSFORMS.build(dict(type=name, **args))


@given(st.integers(20, 200), st.integers(20, 200))
@settings(max_examples=30, deadline=None)
def test_resizing_keeps_the_ratio_as_mmcv_does(longer, shorter):
    before = results()
    after = build('Resize', scale=(longer, shorter), keep_ratio=True)(results())
    expected, _ = mmcv.imrescale(before['img'], (longer, shorter), return_scale=True)
    height, width = expected.shape[:2]
    assert np.array_equal(after['img'], expected) and after['img_shape'] == (height, width)
    assert after['scale_factor'] == (width / 53, height / 37)
    boxes = before['gt_bboxes'] * np.array([width / 53, height / 37] * 2, np.float32)
    boxes = np.clip(boxes, 0, [width, height, width, height])
    assert after['gt_bboxes'].dtype == np.float32 and after['gt_bboxes'] == pytest.approx(boxes)
    assert (after['gt_masks'].height, after['gt_masks'].width) == (height, width) == after['gt_seg_map'].shape
    assert after['gt_masks'].masks[0][0].min(axis=0) == pytest.approx(boxes[0, :2], abs=1e-4)


@given(st.integers(20, 200), st.integers(20, 200))
@settings(max_examples=30, deadline=None)
def test_legacy_resizing_has_mmcvs_one_factor(longer, shorter):
    before = results()
    after = build('LegacyResize', scale=(longer, shorter))(results())
    expected, factor = mmcv.imrescale(before['img'], (longer, shorter), return_scale=True)
    assert np.array_equal(after['img'], expected) and after['img_shape'] == expected.shape[:2]
    assert after['scale_factor'] == (factor, factor)


def test_resizing_to_a_size_or_by_a_factor():
    after = build('Resize', scale=(100, 40))(results())
    assert after['img'].shape == (40, 100, 3) and after['scale_factor'] == (100 / 53, 40 / 37)
    assert build('Resize', scale_factor=0.5)(results())['img'].shape == (19, 27, 3)
    assert build('Resize', scale_factor=(2.0, 1.0))(results())['img'].shape == (37, 106, 3)
    unclipped = build('Resize', scale=(106, 74), clip_object_border=False)(results())
    assert unclipped['gt_bboxes'][1].tolist() == [60, 4, 120, 82]
    with pytest.raises(ConfigError, match='scale'):
        build('Resize')


def test_a_random_scale_is_drawn_from_its_range():
    by_ratio = build('RandomResize', scale=(100, 60), ratio_range=(0.5, 2.0), keep_ratio=False)
    sizes = [by_ratio(results(seed=seed))['img_shape'] for seed in range(40)]
    assert all(30 <= height <= 120 and 50 <= width <= 200 for height, width in sizes)
    assert all(width == pytest.approx(height * 100 / 60, abs=2) for height, width in sizes)
    between = build('RandomResize', scale=[(100, 30), (200, 90)])
    sizes = np.array([between(results(seed=seed))['img_shape'] for seed in range(60)])
    assert sizes.min() >= 30 and sizes[:, 0].max() <= 90 and sizes[:, 1].min() >= 100 and sizes[:, 1].max() <= 200
    assert len(np.unique(sizes[:, 0])) > 20
    choice = build('RandomChoiceResize', scales=[(100, 60), (50, 30)], keep_ratio=True)
    assert {choice(results(seed=seed))['scale'] for seed in range(20)} == {(100, 60), (50, 30)}
    with pytest.raises(ConfigError, match='no range'):
        build('RandomResize', scale=(100, 60))


@pytest.mark.parametrize('name, args', [
    ('RandomResize', dict(scale=(100, 60), ratio_range=(0.5, 2.0), keep_ratio=True)),
    ('RandomFlip', dict(prob=0.5)),
])
def test_random_transforms_draw_from_the_given_generator_only(name, args):
    transform = build(name, **args)
    before = np.random.get_state()[1].copy()
    once, again = ([transform(results(seed=seed))['img'] for seed in range(10)] for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(once, again, strict=True))
    assert np.array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
def test_flipping_moves_boxes_and_masks_with_the_image(direction):
    before, after = results(), build('RandomFlip', prob=1.0, direction=direction)(results())
    assert after['flip'] and after['flip_direction'] == direction
    assert np.array_equal(after['img'], mmcv.imflip(before['img'], direction))
    assert np.array_equal(after['gt_seg_map'], mmcv.imflip(before['gt_seg_map'], direction))
    for box, mask in zip(after['gt_bboxes'], after['gt_masks'].masks, strict=True):
        assert np.concatenate([mask[0].min(axis=0), mask[0].max(axis=0)]) == pytest.approx(box)
    x1, y1, x2, y2 = before['gt_bboxes'][0]
    expected_x = (53 - x2, 53 - x1) if direction != 'vertical' else (x1, x2)
    expected_y = (37 - y2, 37 - y1) if direction != 'horizontal' else (y1, y2)
    assert after['gt_bboxes'][0].tolist() == [expected_x[0], expected_y[0], expected_x[1], expected_y[1]]


def test_flipping_probabilities():
    def shares(**args):
        transform = build('RandomFlip', **args)
        chosen = [transform(results(seed=seed))['flip_direction'] for seed in range(300)]
        return {direction: chosen.count(direction) / 300 for direction in set(chosen)}

    assert shares(prob=0.0) == {None: 1.0}
    assert shares(prob=0.5)['horizontal'] == pytest.approx(0.5, abs=0.09)
    both = shares(prob=0.6, direction=['horizontal', 'vertical'])
    assert both['horizontal'] == pytest.approx(0.3, abs=0.08) and both['vertical'] == pytest.approx(0.3, abs=0.08)
    assert shares(prob=[0.2, 0.7], direction=['horizontal', 'vertical'])['vertical'] == pytest.approx(0.7, abs=0.08)
    for wrong in (dict(prob=1.5), dict(prob=[0.5], direction=['horizontal', 'vertical']), dict(prob=-0.1)):
        with pytest.raises(ConfigError, match='RandomFlip'):
            build('RandomFlip', **wrong)


@pytest.mark.parametrize(
    'args, shape', [(dict(size_divisor=32), (64, 64)), (dict(size=(60, 40), pad_val=dict(img=(1, 2, 3))), (40, 60))]
)
def test_padding(args, shape):
    after = build('Pad', **args)(results())
    assert after['img'].shape[:2] == shape == after['pad_shape'] == after['gt_seg_map'].shape
    assert (after['gt_masks'].height, after['gt_masks'].width) == shape
    assert np.array_equal(after['img'][:37, :53], results()['img'])
    assert after['img'][-1, -1].tolist() == list(args.get('pad_val', dict(img=(0, 0, 0)))['img'])
    assert after['gt_seg_map'][-1, -1] == 255
    with pytest.raises(ConfigError):
        build('Pad')


def test_padding_to_a_square_and_every_channel():
    after = build('Pad', pad_to_square=True, size_divisor=10, pad_val=7)(results())
    assert after['img'].shape == (60, 60, 3) and after['img'][-1, -1].tolist() == [7, 7, 7]
    assert build('Pad', size=(40, 50))(results())['img_shape'] == (50, 53)
    with pytest.raises(ConfigError, match='masks are padded with 0'):
        build('Pad', size_divisor=32, pad_val=dict(img=0, mask=1))


@pytest.mark.parametrize('crop_type, crop_size, height, width', [
    ('absolute', (30, 20), [20], [30]),
    ('absolute', (300, 200), [37], [53]),
    ('absolute_range', (15, 45), range(15, 38), range(15, 46)),
    ('relative', (0.5, 0.25), [9], [27]),
    ('relative_range', (0.5, 0.5), range(18, 38), range(26, 54)),
])
def test_crops_have_the_size_asked_for(crop_type, crop_size, height, width):
    crop = build('RandomCrop', crop_size=crop_size, crop_type=crop_type)
    shapes = {crop(results(seed=seed))['img_shape'] for seed in range(40)}
    assert {shape[0] for shape in shapes} <= set(height) and {shape[1] for shape in shapes} <= set(width)
    assert len(shapes) == 1 or len(shapes) > 20
    with pytest.raises(ConfigError, match='RandomCrop: crop_size'):
        build('RandomCrop', crop_size=(0, 0), crop_type=crop_type)


def test_a_crop_keeps_polygons_boxes_and_pixels_together():
    crop = build('RandomCrop', crop_size=(20, 16))
    dropped = 0
    for seed in range(40):
        after = crop(results(seed=seed))
        assert after['img'].shape[:2] == after['img_shape'] == after['gt_seg_map'].shape == (16, 20)
        assert len(after['gt_bboxes']) == len(after['gt_masks']) == len(after['gt_bboxes_labels']) >= 1
        dropped += len(after['gt_bboxes']) == 1
        assert after['gt_masks'].bounding_boxes() == pytest.approx(after['gt_bboxes'])
        x1, y1, x2, y2 = after['gt_bboxes'].T
        assert after['gt_masks'].areas == pytest.approx((x2 - x1) * (y2 - y1))
    assert dropped
    anywhere = build('RandomCrop', crop_size=(4, 4), allow_negative_crop=True)
    assert 0 in {len(anywhere(results(seed=seed))['gt_bboxes']) for seed in range(40)}
    of_instances = ('gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags', 'gt_masks')
    empty = results() | {key: results()[key][:0] for key in of_instances}
    assert crop(empty)['gt_bboxes'].shape == (0, 4)


def test_small_instances_are_left_out():
    wide = build('FilterAnnotations', min_gt_bbox_wh=(20, 1))(results())
    assert wide['gt_bboxes_labels'].tolist() == [5] and len(wide['gt_masks']) == len(wide['gt_ignore_flags']) == 1
    large = build('FilterAnnotations', by_box=False, by_mask=True, min_gt_mask_area=500)(results())
    assert large['gt_bboxes_labels'].tolist() == [5]
    with pytest.raises(ConfigError, match='by_mask=True'):
        build('FilterAnnotations', by_box=False)


def test_packing_separates_ignored_instances():
    packed = build('PackDetInputs', meta_keys=('img_shape', 'absent'))(results() | dict(drawn_class=3, draw_key=(0, 7)))
    sample = packed['data_samples']
    assert packed['inputs'].dtype == torch.uint8 and packed['inputs'].is_contiguous()
    assert np.array_equal(packed['inputs'].numpy().transpose(1, 2, 0), results()['img'])
    assert sample.gt_instances.labels.tolist() == [3] and sample.ignored_instances.labels.tolist() == [5]
    assert sample.gt_instances.bboxes.tolist() == [[4, 6, 20.5, 30]] and len(sample.ignored_instances.masks) == 1
    assert set(sample.metainfo) == {'img_shape', 'drawn_class', 'draw_key'}
    assert sample.gt_sem_seg.sem_seg.shape == (1, 37, 53)
    plain = PackDetInputs()(dict(img=np.zeros((4, 5), np.float32), img_shape=(4, 5)))
    assert plain['inputs'].shape == (1, 4, 5) and 'gt_instances' not in plain['data_samples']


def test_masks_as_bitmaps_or_as_they_are():
    square = np.array([[2.0, 2], [10, 2], [10, 10], [2, 10]])
    info = dict(height=20, width=30, img_path='a.png')
    info['instances'] = [dict(bbox=[2, 2, 10, 10], bbox_label=0, ignore_flag=0, mask=[square])]
    kept = build('LoadAnnotations', with_mask=True, poly2mask=False)(dict(info))['gt_masks']
    drawn = build('LoadAnnotations', with_mask=True)(dict(info))['gt_masks']
    assert kept.masks[0][0] is square and drawn.masks[0].shape == (20, 30)
    assert np.array_equal(kept.to_bitmaps(), drawn.to_bitmaps()) and drawn.areas[0] == 64
    info['instances'][0]['mask'] = dict(size=[20, 30], counts=b'')
    with pytest.raises(AnnotationError, match='a.png: the image is 31x20, but a mask of it was annotated at 30x20'):
        build('LoadAnnotations', with_mask=True, poly2mask=False)(info | dict(ori_shape=(20, 31)))


def test_annotations_loaded_after_resizing_are_for_the_image_as_it_lies():
    rle = coco_mask.encode(np.asfortranarray(np.ones((37, 53), np.uint8)))
    instance = dict(bbox=[0, 0, 53, 37], bbox_label=0, ignore_flag=1, mask=rle)
    resized = build('Resize', scale=(106, 74))(dict(img=results()['img'], img_shape=(37, 53), ori_shape=(37, 53)))
    resized |= dict(height=37, width=53, instances=[instance])
    loaded = build('LoadAnnotations', with_mask=True, poly2mask=False)(resized)
    assert (loaded['gt_masks'].height, loaded['gt_masks'].width) == (37, 53)
    assert loaded['gt_bboxes'].tolist() == [[0, 0, 53, 37]]


def test_mmdetection_keys_are_known_and_others_are_not():
    build('LoadImageFromFile', to_float32=True, color_type='color', imdecode_backend='cv2', backend_args=None)
    with pytest.raises(TypeError):
        build('RandomFlip', flip_ratio=0.5)


@given(st.integers(20, 200), st.integers(20, 200))
@settings(max_examples=20, deadline=None)
def test_torchvision_resize_is_torchvisions(height, width):
    image = results(height, width)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    channels = torch.from_numpy(image['img']).permute(2, 0, 1) / 255
    theirs, _ = GeneralizedRCNNTransform(60, 100, mean, std, size_divisible=1).eval()([channels])
    resized = build('TorchvisionResize', min_size=60, max_size=100).transform(image)
    assert resized['img_shape'] == tuple(theirs.image_sizes[0]) == resized['img'].shape[:2]
    ours = (torch.from_numpy(resized['img'] / 255) - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(ours.permute(2, 0, 1).float(), theirs.tensors[0], rtol=0, atol=1e-5)
    new_height, new_width = resized['img_shape']
    assert resized['scale_factor'] == (new_width / width, new_height / height)
    assert resized['gt_seg_map'].shape == resized['img_shape']
    scaled = np.array([4 * new_width / width, 6 * new_height / height], np.float32)
    np.testing.assert_allclose(resized['gt_bboxes'][0, :2], scaled, rtol=1e-5)
