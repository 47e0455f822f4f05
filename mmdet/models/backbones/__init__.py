"""Backbones: an image in, feature maps of several strides out."""
from .resnet import ResNet, ResNetV1d, ResNeXt

__all__ = ['ResNeXt', 'ResNet', 'ResNetV1d']
