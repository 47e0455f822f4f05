"""Backbones: an image in, feature maps of several strides out."""
from .resnet import ResNet, ResNetV1d, ResNeXt
from .torchvision_weights import load_torchvision_weights

__all__ = ['ResNeXt', 'ResNet', 'ResNetV1d', 'load_torchvision_weights']
