import json

import pytest
import torch
import torchvision
from torch import nn

from mmdet.errors import CheckpointError
from mmdet.models.backbones.resnet import Bottleneck, ResidualBlock
from mmdet.models.layers import DeformConv2d
from mmdet.registry import MODELS


def randomize(module):
    """Weights and statistics that leave no layer without effect and no activation huge."""
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                if value.dim() > 1:
                    value.normal_(std=value[0].numel() ** -0.5)
                else:
                    value.uniform_(0.5, 1.0) if name.endswith(('weight', 'var')) else value.normal_(std=0.1)


def features_of_torchvision(model, x):
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    outs = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = stage(x)
        outs.append(x)
    return outs


@pytest.mark.parametrize(
    ('config', 'peer'),
    [
        (dict(type='ResNet', depth=18), 'resnet18'),
        (dict(type='ResNet', depth=34), 'resnet34'),
        (dict(type='ResNet', depth=50), 'resnet50'),
        (dict(type='ResNeXt', depth=50, groups=32, base_width=4), 'resnext50_32x4d'),
    ],
)
def test_same_names_and_outputs_as_torchvision(config, peer, device):
    torch.manual_seed(0)
    peer = getattr(torchvision.models, peer)().to(device).eval()
    randomize(peer)
    ours = MODELS.build(config).to(device).eval()
    weights = {name: value for name, value in peer.state_dict().items() if not name.startswith('fc.')}
    ours.load_state_dict(weights, strict=True)
    x = torch.randn(1, 3, 65, 97, device=device)
    with torch.no_grad():
        for found, expected in zip(ours(x), features_of_torchvision(peer, x), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def shapes_of(config):
    with torch.device('meta'):
        return {name: list(value.shape) for name, value in MODELS.build(config).state_dict().items()}


@pytest.mark.slow
def test_resnet101_and_its_relatives_have_torchvisions_shapes():
    for config, peer in (
        (dict(type='ResNet', depth=101), 'resnet101'),
        (dict(type='ResNet', depth=152), 'resnet152'),
        (dict(type='ResNeXt', depth=101, groups=64, base_width=4), 'resnext101_64x4d'),
    ):
        with torch.device('meta'):
            expected = getattr(torchvision.models, peer)().state_dict()
        assert shapes_of(config) == {k: list(v.shape) for k, v in expected.items() if not k.startswith('fc.')}


def test_every_backbone_of_the_oracles_has_its_names(oracle):
    for folder in sorted(oracle.glob('mmdet3_*')):
        shapes = json.loads((folder / 'shapes.json').read_text())
        expected = {k.removeprefix('backbone.'): v for k, v in shapes.items() if k.startswith('backbone.')}
        assert shapes_of(dict(type='ResNet', depth=50)) == expected, folder.name


def test_narrow_network_without_its_last_stage():
    net = MODELS.build(dict(type='ResNet', depth=18, base_channels=16, num_stages=3, strides=(1, 2, 2),
                            dilations=(1, 1, 1), out_indices=(1, 2), frozen_stages=0))  # fmt: skip
    assert [tuple(out.shape) for out in net(torch.randn(2, 3, 64, 32))] == [(2, 32, 8, 4), (2, 64, 4, 2)]


def test_dilation_keeps_the_size():
    net = MODELS.build(dict(type='ResNet', depth=50, base_channels=8, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)))
    assert [out.shape[-1] for out in net(torch.randn(1, 3, 64, 64))] == [16, 8, 4, 4]
    assert net.layer4[0].conv2.dilation == net.layer4[2].conv2.dilation == (2, 2)


@pytest.mark.parametrize(('style', 'strides'), [('pytorch', (1, 2)), ('caffe', (2, 1))])
def test_style_says_which_convolution_strides(style, strides):
    block = MODELS.build(dict(type='ResNet', depth=50, base_channels=8, style=style)).layer2[0]
    assert (block.conv1.stride[0], block.conv2.stride[0]) == strides


def test_resnet_d_names():
    shapes = shapes_of(dict(type='ResNetV1d', depth=50))
    assert shapes['stem.0.weight'] == [32, 3, 3, 3] and shapes['stem.6.weight'] == [64, 32, 3, 3]
    assert shapes['stem.7.running_mean'] == [64]
    assert shapes['layer2.0.downsample.1.weight'] == [512, 256, 1, 1]
    net = MODELS.build(dict(type='ResNetV1d', depth=50, base_channels=8, frozen_stages=1))
    assert [out.shape[-1] for out in net(torch.randn(1, 3, 65, 65))] == [17, 9, 5, 3]
    assert not any(parameter.requires_grad for parameter in net.stem.parameters())


def test_frozen_stages_and_norms_stay_frozen():
    net = MODELS.build(dict(type='ResNet', depth=50, base_channels=8, frozen_stages=1)).train()
    before = {name: value.clone() for name, value in net.named_buffers()}
    sum(out.mean() for out in net(torch.randn(2, 3, 32, 32))).backward()
    for name, parameter in net.named_parameters():
        frozen = name.startswith(('conv1', 'bn1', 'layer1'))
        assert parameter.requires_grad is not frozen
        assert (parameter.grad is None) is frozen
    for name, value in net.named_buffers():
        assert torch.equal(value, before[name])

    moving = MODELS.build(dict(type='ResNet', depth=18, base_channels=8, frozen_stages=0, norm_eval=False)).train()
    assert not moving.bn1.training and moving.layer1[0].bn1.training
    assert not moving.eval().layer1[0].bn1.training


def test_norm_config_decides_the_norms():
    frozen = MODELS.build(dict(type='ResNet', depth=18, base_channels=8, norm_cfg=dict(type='BN', requires_grad=False)))
    assert not frozen.layer2[0].bn1.weight.requires_grad and frozen.layer2[0].conv1.weight.requires_grad
    grouped = MODELS.build(dict(type='ResNet', depth=18, base_channels=8, norm_cfg=dict(type='GN', num_groups=4)))
    assert {'gn1.weight', 'layer1.0.gn2.bias', 'layer2.0.downsample.1.weight'} <= set(grouped.state_dict())
    grouped.train()(torch.randn(1, 3, 32, 32))


def test_blocks_start_as_their_shortcuts():
    net = MODELS.build(dict(type='ResNet', depth=18, base_channels=8))
    net.init_weights()
    for block in net.modules():
        if isinstance(block, ResidualBlock):
            assert (block.last_norm.weight == 0).all()
    assert net.conv1.weight.std().item() == pytest.approx((2 / (8 * 49)) ** 0.5, rel=0.1)
    ordinary = MODELS.build(dict(type='ResNet', depth=18, base_channels=8, zero_init_residual=False))
    ordinary.init_weights()
    assert (ordinary.layer1[0].bn2.weight == 1).all()


@pytest.mark.parametrize('kind', ['DCN', 'DCNv2'])
def test_deformable_stages(kind):
    config = dict(type='ResNeXt', depth=50, groups=4, base_width=4, base_channels=16,
                  dcn=dict(type=kind, deform_groups=1, fallback_on_stride=False),
                  stage_with_dcn=(False, True, True, True))  # fmt: skip
    net = MODELS.build(config)
    net.init_weights()
    for i in range(4):
        for block in net.get_submodule(f'layer{i + 1}'):
            assert isinstance(block, Bottleneck)
            assert isinstance(block.conv2, DeformConv2d) is (i > 0)
    names = set(net.state_dict())
    assert {f'layer2.0.conv2.{p}' for p in ('weight', 'conv_offset.weight', 'conv_offset.bias')} <= names
    assert 'layer2.0.conv2.bias' not in names
    assert (net.layer3[1].conv2.conv_offset.weight == 0).all()
    assert [out.shape[-1] for out in net(torch.randn(1, 3, 64, 64))] == [16, 8, 4, 2]


def test_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    x, grads = torch.randn(1, 3, 32, 32), []
    net = MODELS.build(dict(type='ResNet', depth=50, base_channels=8))
    again = MODELS.build(dict(type='ResNet', depth=50, base_channels=8, with_cp=True))
    again.load_state_dict(net.state_dict())
    for model in (net, again):
        model.train()(x)[-1].sum().backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(depth=51), 'depth 51'),
        (dict(num_stages=3), 'num_stages=3'),
        (dict(out_indices=(4,)), 'out_indices'),
        (dict(style='tensorflow'), 'tensorflow'),
        (dict(depth=18, dcn=dict(type='DCN')), 'deformable'),
        (dict(dcn=dict(type='DCN', fallback_on_stride=True), stage_with_dcn=(True,) * 4), 'fallback_on_stride'),
    ],
)
def test_impossible_networks_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(dict(type='ResNet', depth=50, base_channels=8), **change))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub cache, and no way to download."""
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path))
    monkeypatch.setattr(torch.hub, 'urlopen', lambda *_: (_ for _ in ()).throw(OSError('no network')))
    folder = tmp_path / 'checkpoints'
    folder.mkdir()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'file', 'model'),
    [
        ('torchvision://resnet18', 'resnet18-f37072fd.pth', dict(type='ResNet', depth=18)),
        ('torchvision://resnet50', 'resnet50-0676ba61.pth', dict(type='ResNet', depth=50)),
        ('torchvision://resnet50.imagenet1k_v2', 'resnet50-11ad3fa6.pth', dict(type='ResNet', depth=50)),
    ],
)
def test_torchvision_weights_come_from_the_hubs_cache(hub, name, file, model):
    weights = getattr(torchvision.models, f'resnet{model["depth"]}')().state_dict()
    torch.save(weights, hub / file)
    net = MODELS.build(dict(model, init_cfg=dict(type='Pretrained', checkpoint=name)))
    net.init_weights()
    for key, value in net.state_dict().items():
        assert torch.equal(value, weights[key]), key


def test_torchvision_weights_that_cannot_be_had(hub):
    def build(name):
        MODELS.build(dict(type='ResNet', depth=18, init_cfg=dict(type='Pretrained', checkpoint=name))).init_weights()

    with pytest.raises(CheckpointError, match='resnet19: torchvision has no such weights'):
        build('torchvision://resnet19')
    with pytest.raises(CheckpointError, match='no network.*put an intact file into'):
        build('torchvision://resnet18')
    (hub / 'resnet18-f37072fd.pth').write_bytes(b'half a file')
    with pytest.raises(CheckpointError, match='resnet18'):
        build('torchvision://resnet18')
    torch.save(nn.Linear(1, 1), hub / 'resnet18-f37072fd.pth')
    with pytest.raises(CheckpointError, match='resnet18'):
        build('torchvision://resnet18')
