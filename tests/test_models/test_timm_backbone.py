"""Backbones of timm: their feature maps, in the order of axes the necks take, and messages where they do not fit."""
import re
import sys
from pathlib import Path

import pytest
import timm
import torch

from mmdet.engine import load_config
from mmdet.engine.checkpoint import load_weights
from mmdet.errors import CheckpointError, ConfigError
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
# The families' layers at a hundredth of their size.
CONVNEXT = dict(type='TIMMBackbone', model_name='convnext_atto', depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))
SWIN = dict(
    type='TIMMBackbone',
    model_name='swin_tiny_patch4_window7_224',
    embed_dim=12,
    depths=(1, 1, 2, 1),
    num_heads=(1, 2, 3, 4),
    strict_img_size=False,
)
CHANNELS = {'convnext': [8, 16, 24, 32], 'swin': [12, 24, 48, 96]}
BACKBONES = pytest.mark.parametrize('backbone', [CONVNEXT, SWIN], ids=['convnext', 'swin'])


def channels_of(backbone):
    return CHANNELS[backbone['model_name'].split('_')[0]]


@BACKBONES
def test_feature_maps_are_timms(backbone, device):
    torch.manual_seed(0)
    ours = MODELS.build(dict(backbone, features_only=True, out_indices=(1, 3))).to(device).eval()
    options = {key: value for key, value in backbone.items() if key != 'type'}
    theirs = timm.create_model(**options, features_only=True, out_indices=(1, 3)).to(device).eval()
    theirs.load_state_dict(ours.timm_model.state_dict())
    x = torch.randn(2, 3, 64, 96, device=device)
    with torch.no_grad():
        found, wanted = ours(x), theirs(x)
    channels = channels_of(backbone)
    assert [tuple(level.shape) for level in found] == [(2, channels[1], 8, 12), (2, channels[3], 2, 3)]
    assert ours.out_channels == [channels[1], channels[3]]
    for level, other in zip(found, wanted, strict=True):
        if backbone is SWIN:
            other = torch.stack([other[..., channel] for channel in range(other.shape[-1])], dim=1)
        assert torch.equal(level, other)


@BACKBONES
def test_the_last_map_alone(backbone):
    ours = MODELS.build(backbone).eval()
    (last,) = ours(torch.randn(1, 3, 64, 96))
    assert tuple(last.shape) == (1, channels_of(backbone)[-1], 2, 3) and ours.out_channels == [last.shape[1]]
    assert not any('head' in name and name.endswith('fc.weight') for name in ours.state_dict())


@BACKBONES
def test_a_detector_detects_and_learns_with_it(backbone):
    model = small_detector(backbone, channels_of(backbone))
    detector = MODELS.build(model)
    detector.init_weights()
    meta = dict(img_shape=(64, 96), ori_shape=(64, 96), scale_factor=(1, 1), pad_shape=(64, 96))
    inputs = torch.randn(1, 3, 64, 96)
    sum(level.sum() for level in detector.extract_feat(inputs)).backward()
    assert all(p.grad is not None for name, p in detector.backbone.named_parameters() if 'norm' not in name)
    with torch.no_grad():
        (sample,) = detector.eval().predict(inputs, [DetDataSample(metainfo=meta)])
    assert sample.pred_instances.bboxes.shape[1] == 4
    deeper = MODELS.build(small_detector(dict(backbone, depths=(1, 1, 3, 1)), channels_of(backbone)))
    with pytest.raises(CheckpointError, match='check model.backbone.model_name and out_indices'):
        load_weights(deeper, dict(state_dict=detector.state_dict()), 'a.pth')


def small_detector(backbone, in_channels):
    """The quickstart's detector on another backbone."""
    model = load_config(CONFIGS / 'quickstart/base.py').model
    model.backbone = dict(backbone, features_only=True)
    model.neck.in_channels = in_channels
    return model


def test_channels_of_another_backbone():
    message = r'model.neck.in_channels is [8, 16, 24], but model.backbone gives maps of [8, 16, 24, 32] channels'
    with pytest.raises(ConfigError, match=re.escape(message)):
        MODELS.build(small_detector(CONVNEXT, [8, 16, 24]))


def test_pretrained_weights_are_for_the_beginning_of_a_training(monkeypatch):
    """Building a detector for a checkpoint downloads nothing."""
    create, asked = timm.create_model, []

    def create_model(pretrained=False, **options):
        asked.append(pretrained)
        model = create(**options)
        if pretrained:
            torch.nn.init.constant_(model.stem_0.weight, 0.5)
        return model

    monkeypatch.setattr(timm, 'create_model', create_model)
    ours = MODELS.build(dict(CONVNEXT, features_only=True, pretrained=True))
    assert asked == [False]
    ours.init_weights()
    assert asked == [False, True] and (ours.timm_model.stem_0.weight == 0.5).all()


def test_what_cannot_be_built(monkeypatch):
    with pytest.raises(ConfigError, match=r"model_name: timm [\d.]+ has no 'convnext_huge_'; it has convnext"):
        MODELS.build(dict(CONVNEXT, model_name='convnext_huge_'))
    with pytest.raises(ConfigError, match='timm cannot build convnext_atto .*no_such_option'):
        MODELS.build(dict(CONVNEXT, no_such_option=1))
    with pytest.raises(ConfigError, match='not with features_only'):
        MODELS.build(dict(CONVNEXT, features_only=True, checkpoint_path='a.pth'))
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(ConfigError, match="needs timm, which cannot be imported .*: pip install 'timm>=1.0'"):
        MODELS.build(CONVNEXT)
