import pytest
import torch
import torch.nn.functional as F

from mmdet.models.layers.precision import at_least_float32
from mmdet.registry import MODELS


@pytest.mark.parametrize('kind', ['DCN', 'DCNv2'])
@pytest.mark.parametrize('groups', [1, 2])
def test_deformable_convolution_starts_as_an_ordinary_one(kind, groups, device):
    layer = MODELS.get(kind)(4, 6, 3, stride=2, padding=2, dilation=2, groups=groups, deform_groups=2).to(device)
    assert set(layer.state_dict()) == {'weight', 'conv_offset.weight', 'conv_offset.bias'}
    x = torch.randn(2, 4, 9, 11, device=device)
    factor = 0.5 if kind == 'DCNv2' else 1.0  # sigmoid(0)
    expected = factor * F.conv2d(x, layer.weight, stride=2, padding=2, dilation=2, groups=groups)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', ['DCN', 'DCNv2'])
def test_offsets_are_in_mmcvs_order(kind):
    """Of each tap y then x, tap after tap; then, in version 2, the weights."""
    layer = MODELS.get(kind)(1, 1, 3, padding=1)
    torch.nn.init.zeros_(layer.weight)
    layer.weight.data[0, 0, 0, 1] = 1.0  # the second tap alone: the pixel above
    layer.conv_offset.bias.data[2] = 2.0  # of which y + 2: the pixel below
    layer.conv_offset.bias.data[3] = 1.0  # and x + 1: below and right
    if kind == 'DCNv2':
        layer.conv_offset.bias.data[18 + 1] = 100.0
    x = torch.randn(1, 1, 6, 6)
    expected = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize('spelling', ['temperature', 'tempearture'])
def test_normed_linear_is_a_scaled_cosine(spelling):
    layer = MODELS.build({'type': 'NormedLinear', 'in_features': 5, 'out_features': 3, spelling: 20})
    x = torch.randn(4, 5)
    cosine = F.cosine_similarity(x[:, None], layer.weight[None], dim=2)
    torch.testing.assert_close(layer(x), 20 * cosine, rtol=1e-3, atol=1e-3)
    layer.bias.data[:] = torch.tensor([1.0, 2, 3])
    torch.testing.assert_close(layer(7 * x), 20 * cosine + layer.bias, rtol=1e-3, atol=1e-3)
    assert set(layer.state_dict()) == {'weight', 'bias'}


@pytest.mark.parametrize('norm_over_kernel', [False, True])
def test_normed_convolution(norm_over_kernel):
    layer = MODELS.build(
        dict(
            type='NormedConv2d',
            in_channels=5,
            out_channels=3,
            kernel_size=2,
            power=0.5,
            temperature=10,
            norm_over_kernel=norm_over_kernel,
        )
    )
    x = torch.randn(2, 5, 4, 4)
    weight = layer.weight.detach().clone()
    for kernel in weight:
        if norm_over_kernel:
            kernel /= kernel.norm() ** 0.5 + 1e-6
        else:
            kernel /= kernel.norm(dim=0) ** 0.5 + 1e-6
    scaled = 10 * x / (x.norm(dim=1, keepdim=True) ** 0.5 + 1e-6)
    torch.testing.assert_close(layer(x), F.conv2d(scaled, weight, layer.bias), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('given', 'wanted'),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_becomes_single_and_double_stays(given, wanted):
    found = at_least_float32(torch.tensor([0.5, -2.0], dtype=given))
    assert found.dtype == wanted and found.tolist() == [0.5, -2.0]
