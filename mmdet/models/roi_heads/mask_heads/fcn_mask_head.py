"""The fully convolutional mask head of Mask R-CNN (arXiv 1703.06870), at a cost that does not grow with the classes."""
import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from mmdet.registry import MODELS

# In inference RoIs go through the head a few at a time, whose maps stay in a processor's cache.
ROIS_AT_A_TIME = 32


@MODELS.register_module()
class FCNMaskHead(BaseModule):
    """Convolutions, an upsampling, and a 1x1 predictor with one mask for each class (or one for all).

    Of the C masks of a RoI only one is ever looked at: its ground-truth class's in training, its detected
    class's in testing. `forward` computes only that one.

    Args:
        num_convs: 3x3 convolutions before the upsampling.
        roi_feat_size: side of the RoI feature map, in cells.
        in_channels: its channels.
        conv_kernel_size: of the convolutions.
        conv_out_channels: of the convolutions and of the upsampling.
        num_classes: C, without background.
        class_agnostic: one mask for all classes.
        upsample_cfg: `dict(type='deconv', scale_factor=2)`, or `type=None` for no upsampling.
        conv_cfg, norm_cfg: of the convolutions.
        predictor_cfg: config of the 1x1 predictor layer.
        loss_mask: config of the loss.
    """

    def __init__(
        self,
        num_convs: int = 4,
        roi_feat_size: int = 14,
        in_channels: int = 256,
        conv_kernel_size: int = 3,
        conv_out_channels: int = 256,
        num_classes: int = 80,
        class_agnostic: bool = False,
        upsample_cfg: dict | None = None,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        predictor_cfg: dict | None = None,
        loss_mask: dict | None = None,
    ):
        super().__init__()
        upsample_cfg = upsample_cfg or dict(type='deconv', scale_factor=2)
        if upsample_cfg['type'] not in ('deconv', None):
            raise TypeError(f"FCNMaskHead upsamples by 'deconv' or not at all (None), not by {upsample_cfg['type']!r}")
        self.roi_feat_size = roi_feat_size
        self.num_classes = num_classes
        self.class_agnostic = class_agnostic
        self.in_channels = in_channels
        self.conv_out_channels = conv_out_channels
        self.conv_cfg = conv_cfg
        self.norm_cfg = norm_cfg
        self.loss_mask = MODELS.build(loss_mask or dict(type='CrossEntropyLoss', use_mask=True))

        self.convs = ModuleList()
        channels = in_channels
        for _ in range(num_convs):
            self.convs.append(
                ConvModule(
                    channels,
                    conv_out_channels,
                    conv_kernel_size,
                    padding=(conv_kernel_size - 1) // 2,
                    conv_cfg=conv_cfg,
                    norm_cfg=norm_cfg,
                )
            )
            channels = conv_out_channels
        self.upsample = None
        if upsample_cfg['type'] == 'deconv':
            scale = upsample_cfg['scale_factor']
            self.upsample = nn.ConvTranspose2d(channels, conv_out_channels, scale, stride=scale)
            channels = conv_out_channels
        self.conv_logits = MODELS.build(
            dict(
                predictor_cfg or dict(type='Conv'),
                in_channels=channels,
                out_channels=1 if class_agnostic else num_classes,
                kernel_size=1,
            )
        )

    def init_weights(self) -> None:
        """Kaiming initialisation of the upsampling and the predictor, as a normal distribution over the fan out."""
        super().init_weights()
        for layer in (self.upsample, self.conv_logits):
            if hasattr(layer, 'weight'):
                nn.init.kaiming_normal_(layer.weight, mode='fan_out', nonlinearity='relu')
            if getattr(layer, 'bias', None) is not None:
                nn.init.zeros_(layer.bias)

    @property
    def mask_size(self) -> int:
        """Side of the predicted masks, in cells."""
        return self.roi_feat_size * (self.upsample.stride[0] if self.upsample is not None else 1)

    def forward(self, roi_feats: Tensor, labels: Tensor) -> Tensor:
        """Mask logits of one class for each RoI.

        Args:
            roi_feats: (R, D, S, S).
            labels: (R,) int64, the class whose mask is wanted.

        Returns:
            (R, M, M) logits, M = `mask_size`.
        """
        if not torch.is_inference_mode_enabled():
            return self.predict(self.hidden(roi_feats), labels)
        parts = zip(roi_feats.split(ROIS_AT_A_TIME), labels.split(ROIS_AT_A_TIME), strict=True)
        return torch.cat([self.predict(self.hidden(feats), of_feats) for feats, of_feats in parts])

    def hidden(self, roi_feats: Tensor) -> Tensor:
        """(R, D, S, S) RoI features -> (R, conv_out_channels, S, S), through the convolutions."""
        for conv in self.convs:
            roi_feats = conv(roi_feats)
        return roi_feats

    def predict(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """From the convolutions' output to the mask logits of one class for each RoI, (R, M, M)."""
        if torch.is_inference_mode_enabled() and self.upsample is not None and _is_linear(self.conv_logits):
            channels = torch.zeros_like(labels) if self.class_agnostic else labels
            return upsampled_logits_of_class(hidden, self.upsample, self.conv_logits, channels)
        if self.upsample is not None:
            hidden = upsample_without_overlap(hidden, self.upsample).relu()
        if self.class_agnostic:
            return self.conv_logits(hidden).squeeze(1)
        return logits_of_class(hidden, self.conv_logits, labels)

    def loss(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Mean binary cross-entropy over RoIs and cells.

        Args:
            logits: (R, M, M), of each RoI's ground-truth class.
            targets: (R, M, M) float32 in {0, 1}.
        """
        if not len(targets):
            return dict(loss_mask=logits.sum() * 0)
        return dict(loss_mask=self.loss_mask(logits, targets))


def upsample_without_overlap(feats: Tensor, deconv: nn.ConvTranspose2d) -> Tensor:
    """A transposed convolution whose kernel is as wide as its stride, as the matrix product it then is.

    (R, D, S, S) -> (R, D', k * S, k * S).
    """
    num_rois, _, height, width = feats.shape
    scale = deconv.stride[0]
    blocks = _upsampled_blocks(feats, deconv)
    upsampled = blocks.permute(0, 1, 3, 2, 4, 5).reshape(num_rois, scale * height, scale * width, deconv.out_channels)
    return upsampled.permute(0, 3, 1, 2)


def upsampled_logits_of_class(
    feats: Tensor, deconv: nn.ConvTranspose2d, predictor: nn.Conv2d, labels: Tensor
) -> Tensor:
    """`logits_of_class(upsample_without_overlap(feats, deconv).relu(), predictor, labels)`, no gradient.

    The cells of a block find their places when each has become one number.
    """
    num_rois, _, height, width = feats.shape
    scale = deconv.stride[0]
    cells = _upsampled_blocks(feats, deconv).relu_().flatten(1, 4)
    logits = torch.baddbmm(predictor.bias[labels].view(-1, 1, 1), cells, predictor.weight[labels].flatten(2))
    blocks = logits.view(num_rois, height, width, scale, scale)
    return blocks.permute(0, 1, 3, 2, 4).reshape(num_rois, scale * height, scale * width)


def _upsampled_blocks(feats: Tensor, deconv: nn.ConvTranspose2d) -> Tensor:
    """(R, D, H, W) -> (R, H, W, k, k, D'): what each cell becomes."""
    num_rois, _, height, width = feats.shape
    scale = deconv.stride[0]
    cells = feats.permute(0, 2, 3, 1).reshape(-1, deconv.in_channels)
    weight = deconv.weight.permute(0, 2, 3, 1).reshape(deconv.in_channels, -1)
    blocks = torch.addmm(deconv.bias.repeat(scale * scale), cells, weight)
    return blocks.view(num_rois, height, width, scale, scale, deconv.out_channels)


def logits_of_class(feats: Tensor, predictor: nn.Module, labels: Tensor) -> Tensor:
    """A 1x1 predictor's output channel `labels[r]` for each RoI r: (R, D, M, M) -> (R, M, M)."""
    if _is_linear(predictor):
        weight = predictor.weight[labels].flatten(1)
        maps = torch.einsum('rdhw,rd->rhw', feats, weight.to(feats.dtype))
        return maps + predictor.bias[labels].view(-1, 1, 1)
    return predictor(feats)[torch.arange(len(labels), device=labels.device), labels]


def _is_linear(predictor: nn.Module) -> bool:
    """Whether it computes `weight * x + bias` (a normed predictor does not)."""
    return isinstance(predictor, nn.Conv2d) and type(predictor).forward is nn.Conv2d.forward


MODELS.register_module('Conv', module=nn.Conv2d)
