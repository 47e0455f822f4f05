"""ResNet (arXiv 1512.03385) and ResNeXt (arXiv 1611.05431), with the parameter names of torchvision and mmdetection."""
from collections.abc import Sequence

import torch.utils.checkpoint
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule, Sequential
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet.registry import MODELS


class ResidualBlock(BaseModule):
    """Convolutions `conv1, conv2, ...`, each followed by its norm (`bn1` or `gn1`, ...), and a shortcut around them.

    Args:
        convs: the convolutions.
        norm_cfg: config of the norms.
        downsample: the shortcut where shapes differ; default: the input itself.
        with_cp: compute the block again in the backward pass instead of keeping what is inside.
    """

    expansion: int  # output channels of the block in units of `channels`

    def __init__(
        self, convs: Sequence[nn.Module], norm_cfg: dict, downsample: nn.Module | None = None, with_cp: bool = False
    ) -> None:
        super().__init__()
        self.layer_names = []
        for i, conv in enumerate(convs, start=1):
            norm_name, norm = build_norm_layer(norm_cfg, conv.out_channels, postfix=i)
            self.add_module(f'conv{i}', conv)
            self.add_module(norm_name, norm)
            self.layer_names.append((f'conv{i}', norm_name))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.with_cp = with_cp

    @property
    def last_norm(self) -> nn.Module:
        """The norm before the sum; with its weight at 0 the block is its shortcut."""
        return getattr(self, self.layer_names[-1][1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, channels * expansion, H / stride, W / stride)."""
        if self.with_cp and x.requires_grad:
            x = torch.utils.checkpoint.checkpoint(self._sum, x, use_reentrant=False)
        else:
            x = self._sum(x)
        return self.relu(x)

    def _sum(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        for conv_name, norm_name in self.layer_names[:-1]:
            x = self.relu(getattr(self, norm_name)(getattr(self, conv_name)(x)))
        x = self.last_norm(getattr(self, self.layer_names[-1][0])(x))
        x += shortcut
        return x


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (ResNet-18 and -34); the first has the stride and the dilation."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        dilation: int = 1,
        conv_cfg: dict | None = None,
        **common: dict | nn.Module | bool | None,
    ) -> None:
        convs = [
            _conv(conv_cfg, in_channels, channels, 3, stride, dilation),
            _conv(conv_cfg, channels, channels, 3),
        ]
        super().__init__(convs, **common)


class Bottleneck(ResidualBlock):
    """A 3x3 convolution of `width` channels between two 1x1 ones (ResNet-50 and deeper; in groups: ResNeXt).

    The 3x3 convolution has the dilation, the groups and, where `dcn` is given, offsets. It also has the stride in the
    style `'pytorch'`; in the style `'caffe'` the first 1x1 has it.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        dilation: int = 1,
        conv_cfg: dict | None = None,
        *,
        width: int,
        groups: int = 1,
        style: str = 'pytorch',
        dcn: dict | None = None,
        **common: dict | nn.Module | bool | None,
    ) -> None:
        stride1, stride2 = (stride, 1) if style == 'caffe' else (1, stride)
        convs = [
            _conv(conv_cfg, in_channels, width, 1, stride1),
            _conv(dcn or conv_cfg, width, width, 3, stride2, dilation, groups),
            _conv(conv_cfg, width, channels * self.expansion, 1),
        ]
        super().__init__(convs, **common)


@MODELS.register_module()
class ResNet(BaseModule):
    """ResNet-18, -34, -50, -101 or -152.

    Args:
        depth: one of these.
        in_channels: of the image.
        stem_channels: of the first convolution; default: `base_channels`.
        base_channels: of the first stage's 3x3 convolutions; each stage doubles them.
        num_stages: at most 4.
        strides, dilations: of the stages.
        out_indices: stages whose output is wanted.
        style: `'pytorch'`, or `'caffe'` with the stride of a bottleneck in its first convolution.
        deep_stem: three 3x3 convolutions instead of the 7x7.
        avg_down: shortcuts average before their 1x1 convolution instead of striding in it.
        frozen_stages: the stem and so many stages learn nothing; 0: the stem alone; -1: all learn.
        conv_cfg, norm_cfg: configs of the layers; `requires_grad=False` in the latter fixes the norms' weights.
        norm_eval: batch norms use (and keep) their running statistics in training too.
        dcn: config of the 3x3 convolutions of `stage_with_dcn`, e.g. `dict(type='DCNv2', deform_groups=1)`.
        stage_with_dcn: for each stage, whether they are deformable.
        with_cp: compute blocks again in the backward pass instead of keeping what is inside: slower, less memory.
        zero_init_residual: without `init_cfg`, blocks start as their shortcuts.
        init_cfg: how weights are made; default: at random (He et al.).

    Raises:
        ValueError: an unknown depth or style, or lists that do not fit `num_stages`.
    """

    arch_settings = {
        18: (BasicBlock, (2, 2, 2, 2)),
        34: (BasicBlock, (3, 4, 6, 3)),
        50: (Bottleneck, (3, 4, 6, 3)),
        101: (Bottleneck, (3, 4, 23, 3)),
        152: (Bottleneck, (3, 8, 36, 3)),
    }

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        stem_channels: int | None = None,
        base_channels: int = 64,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        style: str = 'pytorch',
        deep_stem: bool = False,
        avg_down: bool = False,
        frozen_stages: int = -1,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        norm_eval: bool = True,
        dcn: dict | None = None,
        stage_with_dcn: Sequence[bool] = (False, False, False, False),
        with_cp: bool = False,
        zero_init_residual: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        self._check(depth, num_stages, strides, dilations, out_indices, style, dcn)
        random_init = [
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
        ]
        super().__init__(init_cfg or random_init)
        self.zero_init_residual = zero_init_residual and init_cfg is None
        self.block, blocks_of_stage = self.arch_settings[depth]
        self.style = style
        self.avg_down = avg_down
        self.conv_cfg = conv_cfg
        self.norm_cfg = norm_cfg or dict(type='BN')
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages

        in_channels, stem_in = stem_channels or base_channels, in_channels
        self._build_stem(stem_in, in_channels, deep_stem)
        self.stage_names = [f'layer{i + 1}' for i in range(num_stages)]
        for i, name in enumerate(self.stage_names):
            channels = base_channels * 2**i
            stage_dcn = _layer_config(dcn) if dcn is not None and stage_with_dcn[i] else None
            self.add_module(
                name, self._build_stage(in_channels, channels, blocks_of_stage[i], strides[i], dilations[i], stage_dcn)
            )
            in_channels = channels * self.block.expansion
        self._freeze_stages()

    def init_weights(self) -> None:
        """Weights as `init_cfg` says."""
        super().init_weights()
        if self.zero_init_residual:
            for block in self.modules():
                if isinstance(block, ResidualBlock):
                    nn.init.zeros_(block.last_norm.weight)

    def train(self, mode: bool = True) -> 'ResNet':
        """As of `torch.nn.Module`, except that what is frozen stays in evaluation mode."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> for each stage of `out_indices` (B, C, H / stride, W / stride)."""
        for layer in self._stem():
            x = layer(x)
        outs = []
        for i, name in enumerate(self.stage_names):
            x = getattr(self, name)(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def _check(
        self,
        depth: int,
        num_stages: int,
        strides: Sequence[int],
        dilations: Sequence[int],
        out_indices: Sequence[int],
        style: str,
        dcn: dict | None,
    ) -> None:
        if depth not in self.arch_settings:
            raise ValueError(f'no {type(self).__name__} of depth {depth}; there are {list(self.arch_settings)}')
        if not 1 <= num_stages <= 4 or len(strides) != num_stages or len(dilations) != num_stages:
            raise ValueError(f'num_stages={num_stages} does not fit strides={strides} and dilations={dilations}')
        if max(out_indices) >= num_stages:
            raise ValueError(f'out_indices={out_indices} does not fit num_stages={num_stages}')
        if style not in ('pytorch', 'caffe'):
            raise ValueError(f"style must be 'pytorch' or 'caffe', not {style!r}")
        if dcn is not None and self.arch_settings[depth][0] is not Bottleneck:
            raise ValueError(f'deformable convolutions are for bottlenecks (depth 50 and more), not for depth {depth}')

    def _build_stem(self, in_channels: int, channels: int, deep_stem: bool) -> None:
        if deep_stem:
            layers = []
            for out_channels, stride in ((channels // 2, 2), (channels // 2, 1), (channels, 1)):
                layers += [
                    _conv(self.conv_cfg, in_channels, out_channels, 3, stride),
                    build_norm_layer(self.norm_cfg, out_channels)[1],
                    nn.ReLU(inplace=True),
                ]
                in_channels = out_channels
            self.stem = nn.Sequential(*layers)
            self.stem_names = ['stem']
        else:
            norm_name, norm = build_norm_layer(self.norm_cfg, channels, postfix=1)
            self.conv1 = _conv(self.conv_cfg, in_channels, channels, 7, stride=2)
            self.add_module(norm_name, norm)
            self.relu = nn.ReLU(inplace=True)
            self.stem_names = ['conv1', norm_name, 'relu']
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    def _stem(self) -> list[nn.Module]:
        return [getattr(self, name) for name in (*self.stem_names, 'maxpool')]

    def _build_stage(
        self, in_channels: int, channels: int, num_blocks: int, stride: int, dilation: int, dcn: dict | None
    ) -> Sequential:
        options = dict(dilation=dilation, conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg, with_cp=self.with_cp)
        if self.block is Bottleneck:
            options.update(width=self._width(channels), groups=self._groups(), style=self.style, dcn=dcn)
        out_channels = channels * self.block.expansion
        downsample = None
        if stride != 1 or in_channels != out_channels:
            downsample = self._shortcut(in_channels, out_channels, stride)
        blocks = [self.block(in_channels, channels, stride, downsample=downsample, **options)]
        blocks += [self.block(out_channels, channels, **options) for _ in range(1, num_blocks)]
        return Sequential(*blocks)

    def _shortcut(self, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
        layers = []
        if self.avg_down:
            layers.append(nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False))
            stride = 1
        layers.append(_conv(self.conv_cfg, in_channels, out_channels, 1, stride))
        layers.append(build_norm_layer(self.norm_cfg, out_channels)[1])
        return nn.Sequential(*layers)

    def _width(self, channels: int) -> int:
        """Channels of a bottleneck's 3x3 convolution."""
        return channels

    def _groups(self) -> int:
        """Groups of a bottleneck's 3x3 convolution."""
        return 1

    def _freeze_stages(self) -> None:
        if self.frozen_stages < 0:
            return
        for frozen in self._stem() + [getattr(self, name) for name in self.stage_names[: self.frozen_stages]]:
            frozen.eval()
            frozen.requires_grad_(False)


@MODELS.register_module()
class ResNetV1d(ResNet):
    """ResNet-D (arXiv 1812.01187): a deep stem, and shortcuts that average."""

    def __init__(self, **options) -> None:
        super().__init__(deep_stem=True, avg_down=True, **options)


@MODELS.register_module()
class ResNeXt(ResNet):
    """ResNeXt-50, -101 or -152.

    Args:
        groups: of the 3x3 convolutions ("cardinality"): 32 in 32x4d.
        base_width: channels of each group in a stage of `base_channels`: 4 in 32x4d.
        options: those of `ResNet`.
    """

    arch_settings = {depth: blocks for depth, blocks in ResNet.arch_settings.items() if blocks[0] is Bottleneck}

    def __init__(self, groups: int = 1, base_width: int = 4, base_channels: int = 64, **options) -> None:
        self.groups = groups
        self.width_ratio = base_width / base_channels
        super().__init__(base_channels=base_channels, **options)

    def _width(self, channels: int) -> int:
        return int(channels * self.width_ratio) * self.groups

    def _groups(self) -> int:
        return self.groups


def _conv(
    cfg: dict | None,
    in_channels: int,
    out_channels: int,
    size: int,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> nn.Module:
    """A convolution without bias that keeps the size of its input but for the stride."""
    options = dict(stride=stride, padding=size // 2 * dilation, dilation=dilation, groups=groups, bias=False)
    cfg = dict(cfg or dict(type='Conv2d'))
    return MODELS.get(cfg.pop('type'))(in_channels, out_channels, size, **options, **cfg)


def _layer_config(dcn: dict) -> dict:
    """`dcn` without `fallback_on_stride`, which is False in all of mmdetection's configs.

    Raises:
        ValueError: it is True.
    """
    dcn = dict(dcn)
    if dcn.pop('fallback_on_stride', False):
        raise ValueError('dcn: fallback_on_stride=True is not supported')
    return dcn
