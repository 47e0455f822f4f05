import pytest
import torch
from torchvision.models.detection import anchor_utils
from torchvision.models.detection.image_list import ImageList

from mmdet.registry import TASK_UTILS

RPN = dict(type='AnchorGenerator', strides=[4, 8, 16, 32, 64], ratios=[0.5, 1.0, 2.0], scales=[8])


def test_the_example_of_mmdetections_documentation():
    generator = TASK_UTILS.build(
        dict(type='AnchorGenerator', strides=[16, 32], ratios=[1.0], scales=[1.0], base_sizes=[9, 18])
    )
    first, second = generator.grid_priors([(2, 2), (1, 1)])
    assert first.tolist() == [
        [-4.5, -4.5, 4.5, 4.5],
        [11.5, -4.5, 20.5, 4.5],
        [-4.5, 11.5, 4.5, 20.5],
        [11.5, 11.5, 20.5, 20.5],
    ]
    assert second.tolist() == [[-9, -9, 9, 9]]


def test_shapes_are_ratios_times_scales_and_centres_are_cells(device):
    generator = TASK_UTILS.build(dict(RPN, scales=[2, 8], strides=[(4, 8), 16]))
    levels = generator.grid_priors([(3, 5), (2, 2)], device=device)
    assert generator.num_base_priors == [6, 6]
    for level, (height, width), (stride_x, stride_y), base in zip(
        levels, [(3, 5), (2, 2)], [(4, 8), (16, 16)], [4, 16], strict=True
    ):
        assert level.device.type == device.type
        anchors = level.cpu().view(height, width, 3, 2, 4)
        for y in range(height):
            for x in range(width):
                for r, ratio in enumerate([0.5, 1, 2]):
                    for s, scale in enumerate([2, 8]):
                        x1, y1, x2, y2 = anchors[y, x, r, s].tolist()
                        assert ((x1 + x2) / 2, (y1 + y2) / 2) == pytest.approx((x * stride_x, y * stride_y), abs=1e-5)
                        assert (y2 - y1) / (x2 - x1) == pytest.approx(ratio, rel=1e-5)
                        assert (y2 - y1) * (x2 - x1) == pytest.approx((base * scale) ** 2, rel=1e-5)


def test_octaves_order_and_centres():
    by_octave = dict(type='AnchorGenerator', strides=[8], ratios=[1.0, 2.0], octave_base_scale=4, scales_per_octave=2)
    widths = lambda anchors: (anchors[:, 2] - anchors[:, 0]).tolist()
    generator = TASK_UTILS.build(dict(by_octave))
    assert widths(generator.base_anchors[0]) == pytest.approx([32, 32 * 2**0.5, 32 / 2**0.5, 32], rel=1e-5)
    ratio_major = TASK_UTILS.build(dict(by_octave, scale_major=False))
    assert widths(ratio_major.base_anchors[0]) == pytest.approx([32, 32 / 2**0.5, 32 * 2**0.5, 32], rel=1e-5)
    for centre in (dict(center_offset=0.5), dict(centers=[(4, 4)])):
        anchor = TASK_UTILS.build(dict(by_octave, **centre)).base_anchors[0][0]
        assert anchor.tolist() == [-12, -12, 20, 20]


def test_legacy_anchors_are_inclusive_and_whole():
    """Those of mmdetection 1.x for stride 4, scale 8 (a published RPN's)."""
    generator = TASK_UTILS.build(dict(RPN, type='LegacyAnchorGenerator', strides=[4], center_offset=0.5))
    assert generator.base_anchors[0].tolist() == [[-21, -9, 24, 12], [-14, -14, 17, 17], [-9, -21, 12, 24]]
    assert generator.grid_priors([(1, 2)])[0][3:].tolist() == [[-17, -9, 28, 12], [-10, -14, 21, 17], [-5, -21, 16, 24]]


def test_flags_are_of_the_cells_on_the_image():
    generator = TASK_UTILS.build(dict(RPN, strides=[4, 8]))
    sizes = [(8, 10), (4, 5)]
    for flags, anchors, stride in zip(
        generator.valid_flags(sizes, (13, 22)), generator.grid_priors(sizes), [4, 8], strict=True
    ):
        x, y = ((anchors[:, :2] + anchors[:, 2:]) / 2).round().unbind(1)
        assert torch.equal(flags, (y < 13) & (x < 22)), stride


def test_grids_are_shared_and_can_be_trained_on_after_inference():
    generator = TASK_UTILS.build(dict(RPN, strides=[4]))
    with torch.inference_mode():
        anchors = generator.grid_priors([(7, 9)])[0]
    assert not anchors.is_inference()
    assert generator.grid_priors([(7, 9)])[0] is anchors
    assert generator.grid_priors([(7, 9)], dtype=torch.float64)[0].dtype is torch.float64


@pytest.mark.parametrize(
    'change',
    [
        dict(octave_base_scale=4, scales_per_octave=3),
        dict(scales=None),
        dict(center_offset=2),
        dict(center_offset=0.5, centers=[(0, 0)] * 5),
        dict(base_sizes=[4]),
    ],
)
def test_contradictions_are_refused(change):
    with pytest.raises(ValueError):
        TASK_UTILS.build(dict(RPN, **change))


def test_another_number_of_levels_is_refused():
    with pytest.raises(ValueError, match='3 feature maps'):
        TASK_UTILS.build(dict(RPN)).grid_priors([(1, 1)] * 3)


@pytest.mark.parametrize('size', [(800, 1344), (416, 608), (32, 96)])
def test_torchvisions_anchors(size):
    """Those of torchvision's own generator, also where a map has been rounded up (800 pixels, 25 cells, 13 cells)."""
    theirs = anchor_utils.AnchorGenerator(tuple((4 * 2**i * 8,) for i in range(5)), ((0.5, 1.0, 2.0),) * 5)
    maps = [torch.zeros(1, 1, *(-(-side // stride) for side in size)) for stride in RPN['strides']]
    (wanted,) = theirs(ImageList(torch.zeros(1, 3, *size), [size]), maps)
    ours = TASK_UTILS.build(dict(RPN, type='TorchvisionAnchorGenerator'))
    assert torch.equal(torch.cat(ours.grid_priors([tuple(level.shape[-2:]) for level in maps])), wanted)
