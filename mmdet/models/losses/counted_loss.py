"""Losses that look at how often each class occurs in training."""
import torch
from torch import Tensor

from mmdet.errors import ConfigError
from mmdet.structures import ClassFrequency

from .sigmoid_loss import SigmoidLoss


class CountedLoss(SigmoidLoss):
    """A sigmoid loss that needs to know how many training images have each class.

    A training gives the counts to every module that has `set_class_frequency`, before its first step
    (`mmdet.apis.classes`). They are no part of the state dict: a test needs none, and a resumed training gives them
    anew.

    Args:
        use_sigmoid, loss_weight, prior_prob: see `SigmoidLoss`.
    """

    def __init__(self, use_sigmoid: bool, loss_weight: float, prior_prob: float) -> None:
        super().__init__(use_sigmoid, loss_weight, prior_prob)
        self.register_buffer('_image_count', torch.zeros(0), persistent=False)
        self.num_images = 0

    def set_class_frequency(self, frequency: ClassFrequency, num_images: int) -> None:
        """Take the counts of the training data: of its C classes, and of the images that show any of them."""
        self._image_count = torch.as_tensor(
            frequency.image_count, dtype=torch.float32, device=self._image_count.device
        )
        self.num_images = num_images

    @property
    def image_count(self) -> Tensor:
        """(C,) float32, training images of each class.

        Raises:
            ConfigError: nobody has counted them.
        """
        if not len(self._image_count):
            raise ConfigError(
                f'{type(self).__name__} does not know how often its classes occur: train with tools/train.py, or give '
                'it the counts with set_class_frequency'
            )
        return self._image_count
