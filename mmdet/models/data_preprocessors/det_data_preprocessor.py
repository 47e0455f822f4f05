"""From images as loaded to the network's input: moved to the device, normalised, padded to one size and stacked."""
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor
from mmengine.structures import PixelData
from torch import Tensor, nn

from mmdet.registry import MODELS
from mmdet.structures import DetDataSample


@MODELS.register_module()
class DetDataPreprocessor(BaseDataPreprocessor):
    """Makes one batch tensor of the images and tells the data samples of its size.

    Args:
        mean, std: of the channels, in the order they have after the conversion; both or neither.
        pad_size_divisor: the batch's height and width are multiples of this.
        pad_value: what lies right of and below an image, after normalisation.
        pad_mask: in training, pad the instance masks too.
        pad_seg, seg_pad_value: in training, pad the semantic map too, with this label.
        bgr_to_rgb, rgb_to_bgr: reverse the channels. Images are loaded as BGR.
        non_blocking: do not wait for the copy to the device.
        batch_augments: configs of modules (inputs, data samples) -> the same, applied in training.

    Raises:
        ValueError: `mean` without `std` or the other way, or both conversions.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        pad_size_divisor: int = 1,
        pad_value: float = 0,
        pad_mask: bool = False,
        pad_seg: bool = False,
        seg_pad_value: int = 255,
        bgr_to_rgb: bool = False,
        rgb_to_bgr: bool = False,
        non_blocking: bool = False,
        batch_augments: Sequence[dict] | None = None,
    ) -> None:
        super().__init__(non_blocking)
        if (mean is None) != (std is None):
            raise ValueError('give both mean and std, or neither')
        if bgr_to_rgb and rgb_to_bgr:
            raise ValueError('give either bgr_to_rgb or rgb_to_bgr')
        self.normalize = mean is not None
        if self.normalize:
            self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
            self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.pad_size_divisor = pad_size_divisor
        self.pad_value = pad_value
        self.pad_mask = pad_mask
        self.pad_seg = pad_seg
        self.seg_pad_value = seg_pad_value
        self.reverse_channels = bgr_to_rgb or rgb_to_bgr
        self.batch_augments = nn.ModuleList(MODELS.build(augment) for augment in batch_augments or ())

    def forward(self, data: dict, training: bool = False) -> dict:
        """One batch for the network.

        Args:
            data: `inputs`: list of images (C, H, W), or a tensor (B, C, H, W), uint8 or float; `data_samples`: one for
                each image, or None. Each is given `pad_shape`, the size to which its own image alone would be padded,
                and `batch_input_shape`, that of the batch, both (height, width).
            training: whether the batch is for training.

        Returns:
            `inputs`: (B, C, H, W) float32; `data_samples`: the same or None.
        """
        data = self.cast_data(data)
        images, data_samples = data['inputs'], data.get('data_samples')
        inputs = self._stack(images)
        if data_samples is not None:
            for image, sample in zip(images, data_samples, strict=True):
                sample.set_metainfo(
                    dict(batch_input_shape=tuple(inputs.shape[-2:]), pad_shape=self._padded_size([image]))
                )
                if training:
                    pad_targets(sample, self.pad_mask, self.pad_seg, self.seg_pad_value)
        if training:
            for augment in self.batch_augments:
                inputs, data_samples = augment(inputs, data_samples)
        return dict(inputs=inputs, data_samples=data_samples)

    def _padded_size(self, images: Sequence[Tensor] | Tensor) -> tuple[int, int]:
        """The (height, width) that holds all the images, in multiples of the divisor."""
        divisor = self.pad_size_divisor
        return tuple(max(math.ceil(image.shape[axis] / divisor) * divisor for image in images) for axis in (-2, -1))

    def _stack(self, images: Sequence[Tensor] | Tensor) -> Tensor:
        shape = (len(images), images[0].shape[0], *self._padded_size(images))
        batch = torch.full(shape, float(self.pad_value), dtype=torch.float32, device=images[0].device)
        for image, slot in zip(images, batch, strict=True):
            place = slot[:, : image.shape[1], : image.shape[2]]
            place.copy_(image.flip(0) if self.reverse_channels else image)
            if self.normalize:
                place.sub_(self.mean).div_(self.std)
        return batch


def pad_targets(sample: DetDataSample, pad_mask: bool, pad_seg: bool, seg_pad_value: int) -> None:
    """Let annotations that are pictures take the size of the batch, masks padded with 0."""
    size = sample.batch_input_shape
    if pad_mask and 'masks' in sample.gt_instances:
        sample.gt_instances.masks = sample.gt_instances.masks.pad(size)
    if pad_seg and 'gt_sem_seg' in sample:
        labels = sample.gt_sem_seg.sem_seg
        right, below = size[1] - labels.shape[-1], size[0] - labels.shape[-2]
        sample.gt_sem_seg = PixelData(sem_seg=F.pad(labels, (0, right, 0, below), value=seg_pad_value))
