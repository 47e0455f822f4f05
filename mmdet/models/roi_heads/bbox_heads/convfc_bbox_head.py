"""Box heads with convolutions and fully connected layers before the predictors."""
from mmcv.cnn import ConvModule
from torch import Tensor, nn

from mmdet.registry import MODELS

from .bbox_head import BBoxHead


@MODELS.register_module()
class ConvFCBBoxHead(BBoxHead):
    """Shared convolutions, shared fcs, then a branch of convolutions and fcs for classes and one for boxes.

    ```
                                /-> cls convs -> cls fcs -> fc_cls
    shared convs -> shared fcs
                                \\-> reg convs -> reg fcs -> fc_reg
    ```
    Maps are flattened before the first fully connected layer of each path.
    """

    def __init__(
        self,
        num_shared_convs: int = 0,
        num_shared_fcs: int = 0,
        num_cls_convs: int = 0,
        num_cls_fcs: int = 0,
        num_reg_convs: int = 0,
        num_reg_fcs: int = 0,
        conv_out_channels: int = 256,
        fc_out_channels: int = 1024,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        **bbox_head_kwargs,
    ):
        super().__init__(**bbox_head_kwargs)
        if num_shared_fcs and (num_cls_convs or num_reg_convs):
            raise ValueError('a branch cannot have convolutions behind shared fully connected layers')
        self.conv_out_channels = conv_out_channels
        self.fc_out_channels = fc_out_channels
        self.conv_cfg = conv_cfg
        self.norm_cfg = norm_cfg
        area = self.roi_feat_size**2

        self.shared_convs, channels = self._convs(num_shared_convs, self.in_channels)
        self.shared_fcs, shared_features = self._fcs(num_shared_fcs, channels * area)
        self.cls_convs, cls_channels = self._convs(num_cls_convs, channels)
        self.reg_convs, reg_channels = self._convs(num_reg_convs, channels)
        self.cls_fcs, cls_features = self._fcs(num_cls_fcs, shared_features if num_shared_fcs else cls_channels * area)
        self.reg_fcs, reg_features = self._fcs(num_reg_fcs, shared_features if num_shared_fcs else reg_channels * area)
        self._build_predictors(cls_features, reg_features)

    def default_init_cfg(self) -> list[dict]:
        """The predictors' initialisation and Xavier's for the layers before them."""
        fcs = [dict(name='shared_fcs'), dict(name='cls_fcs'), dict(name='reg_fcs')]
        return [*super().default_init_cfg(), dict(type='Xavier', distribution='uniform', override=fcs)]

    def _convs(self, depth: int, channels: int) -> tuple[nn.ModuleList, int]:
        """`depth` 3x3 convolutions on `channels`, and the channels they give."""
        convs = nn.ModuleList()
        for _ in range(depth):
            convs.append(
                ConvModule(
                    channels, self.conv_out_channels, 3, padding=1, conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg
                )
            )
            channels = self.conv_out_channels
        return convs, channels

    def _fcs(self, depth: int, features: int) -> tuple[nn.ModuleList, int]:
        """`depth` fully connected layers on `features`, and the features they give."""
        fcs = nn.ModuleList()
        for _ in range(depth):
            fcs.append(nn.Linear(features, self.fc_out_channels))
            features = self.fc_out_channels
        return fcs, features

    def shared(self, roi_feats: Tensor) -> Tensor:
        """(R, D, S, S) RoI features -> (R, fc_out_channels), or maps where there are no shared fcs."""
        return _through(roi_feats, self.shared_convs, self.shared_fcs)

    def cls_branch(self, shared_feats: Tensor) -> Tensor:
        """From the shared features to the input of `fc_cls`."""
        return _through(shared_feats, self.cls_convs, self.cls_fcs).flatten(1)

    def reg_branch(self, shared_feats: Tensor) -> Tensor:
        """From the shared features to the input of `fc_reg`."""
        return _through(shared_feats, self.reg_convs, self.reg_fcs).flatten(1)


def _through(feats: Tensor, convs: nn.ModuleList, fcs: nn.ModuleList) -> Tensor:
    """Through convolutions, then, flattened, through fully connected layers and ReLUs."""
    for conv in convs:
        feats = conv(feats)
    if len(fcs):
        feats = feats.flatten(1)
    for fc in fcs:
        feats = fc(feats).relu()
    return feats


@MODELS.register_module()
class Shared2FCBBoxHead(ConvFCBBoxHead):
    """Two shared fully connected layers: the box head of Faster, Mask and Cascade R-CNN."""

    def __init__(self, **kwargs):
        super().__init__(num_shared_fcs=2, **kwargs)


@MODELS.register_module()
class Shared4Conv1FCBBoxHead(ConvFCBBoxHead):
    """Four shared convolutions and one shared fully connected layer (Group Normalization, arXiv 1803.08494)."""

    def __init__(self, **kwargs):
        super().__init__(num_shared_convs=4, num_shared_fcs=1, **kwargs)
