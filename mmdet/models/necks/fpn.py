"""Feature pyramid network (arXiv 1612.03144)."""
from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet.registry import MODELS

EXTRA_CONVS = {True: 'on_input', 'on_input': 'on_input', 'on_lateral': 'on_lateral', 'on_output': 'on_output'}


@MODELS.register_module()
class FPN(BaseModule):
    """A pyramid in which every level has the same channels and the context of all levels above.

    Args:
        in_channels: of the feature maps given.
        out_channels: of all levels.
        num_outs: levels; those beyond the feature maps are made from the last one.
        start_level, end_level: the first and last feature map used; -1: the last there is.
        add_extra_convs: further levels come by convolutions of stride 2 from the last feature map (`'on_input'` or
            True), from its 1x1 convolution (`'on_lateral'`) or from the last level (`'on_output'`); False: they are
            every second pixel.
        relu_before_extra_convs: apply a ReLU between two such convolutions.
        no_norm_on_lateral: no norm in the 1x1 convolutions.
        conv_cfg, norm_cfg, act_cfg: configs of the convolutions' layers; default: bare, with a bias.
        upsample_cfg: how a level is enlarged: arguments of `torch.nn.functional.interpolate`.
        init_cfg: how weights are made; default: Xavier, uniform.

    Raises:
        ValueError: levels that cannot be made.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int,
        start_level: int = 0,
        end_level: int = -1,
        add_extra_convs: bool | str = False,
        relu_before_extra_convs: bool = False,
        no_norm_on_lateral: bool = False,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        upsample_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg or dict(type='Xavier', layer='Conv2d', distribution='uniform'))
        if add_extra_convs and add_extra_convs not in EXTRA_CONVS:
            raise ValueError(f'add_extra_convs must be False or one of {list(EXTRA_CONVS)}, not {add_extra_convs!r}')
        end = len(in_channels) if end_level == -1 else end_level + 1
        if num_outs < end - start_level or end > len(in_channels):
            raise ValueError(f'num_outs={num_outs} from feature maps {start_level}..{end - 1} of {len(in_channels)}')
        self.in_channels = tuple(in_channels)
        self.used = slice(start_level, end)
        self.num_outs = num_outs
        self.extra_source = EXTRA_CONVS[add_extra_convs] if add_extra_convs else None
        self.relu_before_extra_convs = relu_before_extra_convs
        self.upsample_cfg = dict(upsample_cfg or dict(mode='nearest'))

        layers = dict(conv_cfg=conv_cfg, act_cfg=act_cfg, inplace=False)
        self.lateral_convs = nn.ModuleList(
            ConvModule(channels, out_channels, 1, norm_cfg=None if no_norm_on_lateral else norm_cfg, **layers)
            for channels in self.in_channels[self.used]
        )
        self.fpn_convs = nn.ModuleList(
            ConvModule(out_channels, out_channels, 3, padding=1, norm_cfg=norm_cfg, **layers)
            for _ in self.lateral_convs
        )
        if self.extra_source is not None:
            for i in range(num_outs - len(self.lateral_convs)):
                channels = self.in_channels[end - 1] if i == 0 and self.extra_source == 'on_input' else out_channels
                self.fpn_convs.append(
                    ConvModule(channels, out_channels, 3, stride=2, padding=1, norm_cfg=norm_cfg, **layers)
                )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Feature maps (B, C_i, H_i, W_i) -> `num_outs` levels (B, out_channels, ...), finest first.

        Raises:
            ValueError: another number of feature maps than of `in_channels`.
        """
        if len(inputs) != len(self.in_channels):
            raise ValueError(f'{len(inputs)} feature maps, but in_channels for {len(self.in_channels)}')
        inputs = inputs[self.used]
        # 1. To the same channels, then every level receives what is above it.
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, inputs, strict=True)]
        for i in reversed(range(1, len(laterals))):
            laterals[i - 1] = laterals[i - 1] + self._enlarge(laterals[i], laterals[i - 1].shape[-2:])
        # 2. A 3x3 convolution for each.
        count = len(laterals)
        outs = [conv(x) for conv, x in zip(self.fpn_convs[:count], laterals, strict=True)]
        # 3. Levels above the last.
        if self.extra_source is None:
            while len(outs) < self.num_outs:
                outs.append(F.max_pool2d(outs[-1], 1, stride=2))
            return tuple(outs)
        x = {'on_input': inputs[-1], 'on_lateral': laterals[-1], 'on_output': outs[-1]}[self.extra_source]
        for i, conv in enumerate(self.fpn_convs[count:]):
            x = conv(F.relu(x) if i > 0 and self.relu_before_extra_convs else x)
            outs.append(x)
        return tuple(outs)

    def _enlarge(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if 'scale_factor' in self.upsample_cfg:
            return F.interpolate(x, **self.upsample_cfg)
        return F.interpolate(x, size=size, **self.upsample_cfg)
