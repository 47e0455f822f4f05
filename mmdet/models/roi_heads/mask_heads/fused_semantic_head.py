"""Semantic segmentation of the whole image from all pyramid levels (Hybrid Task Cascade, arXiv 1901.07518)."""
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet.registry import MODELS


@MODELS.register_module()
class FusedSemanticHead(BaseModule):
    """Sums the levels at the size of one of them, and goes on with convolutions to logits and to features.

    Args:
        num_ins: levels of the pyramid.
        fusion_level: the level at whose size they are summed.
        seg_scale_factor: from the size of the network input to that level's.
        num_convs: 3x3 convolutions behind the sum.
        in_channels: of the levels.
        conv_out_channels: of the convolutions and of the features given.
        num_classes: of the semantic maps.
        conv_cfg, norm_cfg: of the convolutions.
        loss_seg: config of the loss; its `ignore_index` is the label of pixels without one.
        init_cfg: how weights are made; default: Kaiming for the logits.
    """

    def __init__(
        self,
        num_ins: int,
        fusion_level: int,
        seg_scale_factor: float = 1 / 8,
        num_convs: int = 4,
        in_channels: int = 256,
        conv_out_channels: int = 256,
        num_classes: int = 183,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        loss_seg: dict | None = None,
        init_cfg: dict | list | None = None,
    ):
        super().__init__(init_cfg or dict(type='Kaiming', override=dict(name='conv_logits')))
        self.fusion_level = fusion_level
        self.seg_scale_factor = seg_scale_factor
        layers = dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg)
        self.lateral_convs = nn.ModuleList(
            ConvModule(in_channels, in_channels, 1, inplace=False, **layers) for _ in range(num_ins)
        )
        self.convs = nn.ModuleList(
            ConvModule(conv_out_channels if i else in_channels, conv_out_channels, 3, padding=1, **layers)
            for i in range(num_convs)
        )
        self.conv_embedding = ConvModule(conv_out_channels, conv_out_channels, 1, **layers)
        self.conv_logits = nn.Conv2d(conv_out_channels, num_classes, 1)
        self.criterion = MODELS.build(
            loss_seg or dict(type='CrossEntropyLoss', ignore_index=255, loss_weight=0.2)
        )

    def forward(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Pyramid of `num_ins` (B, D, H_l, W_l) -> logits (B, num_classes, H, W), features (B, D', H, W).

        H, W are those of the fusion level.
        """
        size = feats[self.fusion_level].shape[-2:]
        fused = 0
        for level, (lateral_conv, feat) in enumerate(zip(self.lateral_convs, feats, strict=True)):
            if level != self.fusion_level:
                feat = F.interpolate(feat, size=size, mode='bilinear', align_corners=True)
            fused = fused + lateral_conv(feat)
        for conv in self.convs:
            fused = conv(fused)
        return self.conv_logits(fused), self.conv_embedding(fused)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy over pixels.

        Args:
            logits: (B, num_classes, H, W).
            labels: (B, 1, H', W') of the pixels of the network input.
        """
        labels = F.interpolate(labels.float(), scale_factor=self.seg_scale_factor, mode='nearest')
        return self.criterion(logits, labels.squeeze(1).long())
