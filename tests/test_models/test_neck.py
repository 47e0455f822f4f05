import json

import pytest
import torch
import torch.nn.functional as F

from mmdet.registry import MODELS

FPN = dict(type='FPN', in_channels=[4, 8, 16, 32], out_channels=6, num_outs=5)


def maps(device='cpu'):
    torch.manual_seed(0)
    sizes = [(17, 25), (9, 13), (5, 7), (3, 4)]
    return [torch.randn(2, c, *size, device=device) for c, size in zip([4, 8, 16, 32], sizes, strict=True)]


def test_levels_are_lateral_plus_enlarged_then_smoothed(device):
    neck = MODELS.build(dict(FPN)).to(device)
    neck.init_weights()
    inputs = maps(device)
    outs = neck(inputs)
    merged = None
    for i in reversed(range(4)):
        lateral = F.conv2d(inputs[i], neck.lateral_convs[i].conv.weight, neck.lateral_convs[i].conv.bias)
        if merged is not None:
            lateral = lateral + F.interpolate(merged, size=lateral.shape[-2:], mode='nearest')
        merged = lateral
        smoothed = F.conv2d(merged, neck.fpn_convs[i].conv.weight, neck.fpn_convs[i].conv.bias, padding=1)
        torch.testing.assert_close(outs[i], smoothed)
    torch.testing.assert_close(outs[4], outs[3][..., ::2, ::2])


def test_inputs_are_left_alone():
    inputs = maps()
    copies = [x.clone() for x in inputs]
    MODELS.build(dict(FPN))(inputs)
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))


@pytest.mark.parametrize(('source', 'channels'), [('on_input', 32), (True, 32), ('on_lateral', 6), ('on_output', 6)])
def test_extra_levels_by_convolution(source, channels):
    neck = MODELS.build(dict(FPN, num_outs=5, start_level=1, add_extra_convs=source, relu_before_extra_convs=True))
    assert len(neck.lateral_convs) == 3 and len(neck.fpn_convs) == 5
    assert neck.fpn_convs[3].conv.in_channels == channels
    outs = neck(maps())
    assert [tuple(out.shape[-2:]) for out in outs] == [(9, 13), (5, 7), (3, 4), (2, 2), (1, 1)]
    last = neck.fpn_convs[4].conv
    torch.testing.assert_close(outs[4], F.conv2d(outs[3].relu(), last.weight, last.bias, stride=2, padding=1))


def test_norms_and_names(oracle):
    shapes = json.loads((oracle / 'mmdet3_mask_rcnn_r50_lvis' / 'shapes.json').read_text())
    expected = {k.removeprefix('neck.'): v for k, v in shapes.items() if k.startswith('neck.')}
    with torch.device('meta'):
        neck = MODELS.build(dict(FPN, in_channels=[256, 512, 1024, 2048], out_channels=256))
    assert {name: list(value.shape) for name, value in neck.state_dict().items()} == expected


def test_norms_where_asked_for():
    neck = MODELS.build(dict(FPN, norm_cfg=dict(type='GN', num_groups=2), no_norm_on_lateral=True))
    names = set(neck.state_dict())
    assert 'fpn_convs.0.gn.weight' in names and 'fpn_convs.0.conv.bias' not in names
    assert 'lateral_convs.0.conv.bias' in names and 'lateral_convs.0.gn.weight' not in names


def test_impossible_pyramids_are_refused():
    for change in (dict(num_outs=3), dict(end_level=5), dict(add_extra_convs='sideways')):
        with pytest.raises(ValueError):
            MODELS.build(dict(FPN, **change))
    with pytest.raises(ValueError, match='2 feature maps'):
        MODELS.build(dict(FPN))(maps()[:2])
