"""Changes of a whole training batch, for `DetDataPreprocessor`'s `batch_augments`."""
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.registry import MODELS
from mmdet.structures import DetDataSample

from .det_data_preprocessor import pad_targets


@MODELS.register_module()
class BatchFixedSizePad(nn.Module):
    """Pads every batch to one size at least, so that all steps cost the same.

    Args:
        size: (height, width).
        img_pad_value: of the images, after normalisation.
        pad_mask: pad the instance masks too.
        pad_seg, seg_pad_value: pad the semantic map too, with this label.
    """

    def __init__(
        self,
        size: tuple[int, int],
        img_pad_value: float = 0,
        pad_mask: bool = False,
        pad_seg: bool = False,
        seg_pad_value: int = 255,
    ):
        super().__init__()
        self.size = size
        self.img_pad_value = img_pad_value
        self.pad_mask = pad_mask
        self.pad_seg = pad_seg
        self.seg_pad_value = seg_pad_value

    def forward(
        self, inputs: Tensor, data_samples: Sequence[DetDataSample] | None
    ) -> tuple[Tensor, Sequence[DetDataSample] | None]:
        """Pad (B, C, H, W) images at the right and lower edge, and tell their samples."""
        height, width = (max(length, least) for length, least in zip(inputs.shape[-2:], self.size, strict=True))
        inputs = F.pad(
            inputs, (0, width - inputs.shape[-1], 0, height - inputs.shape[-2]), value=float(self.img_pad_value)
        )
        for sample in data_samples or ():
            sample.set_metainfo(dict(batch_input_shape=(height, width), pad_shape=(height, width)))
            pad_targets(sample, self.pad_mask, self.pad_seg, self.seg_pad_value)
        return inputs, data_samples
