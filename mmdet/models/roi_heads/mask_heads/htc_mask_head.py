"""The mask head of Hybrid Task Cascade (arXiv 1901.07518)."""
from mmcv.cnn import ConvModule
from torch import Tensor

from mmdet.errors import ConfigError
from mmdet.registry import MODELS

from .fcn_mask_head import FCNMaskHead


@MODELS.register_module()
class HTCMaskHead(FCNMaskHead):
    """A mask head that also sees what the head of the stage before it made of the RoIs.

    Args:
        with_conv_res: whether it does; the first stage has none before it.
        mask_head_kwargs: arguments of `FCNMaskHead`.

    Raises:
        ConfigError: with `with_conv_res`, features that cannot be added to RoI features.
    """

    def __init__(self, with_conv_res: bool = True, **mask_head_kwargs):
        super().__init__(**mask_head_kwargs)
        if with_conv_res:
            if self.conv_out_channels != self.in_channels:
                raise ConfigError(
                    f'HTCMaskHead: in_channels={self.in_channels} and conv_out_channels={self.conv_out_channels}, but '
                    f"the previous stage's features are added to the RoI's: make them equal"
                )
            self.conv_res = ConvModule(
                self.conv_out_channels,
                self.conv_out_channels,
                1,
                conv_cfg=self.conv_cfg,
                norm_cfg=self.norm_cfg,
            )

    def hidden(self, roi_feats: Tensor, previous: Tensor | None = None) -> Tensor:
        """(R, D, S, S) RoI features, and the previous stage's hidden ones -> (R, D', S, S)."""
        if previous is not None:
            roi_feats = roi_feats + self.conv_res(previous)
        return super().hidden(roi_feats)
