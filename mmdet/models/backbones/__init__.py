"""Backbones: an image in, feature maps of several strides out."""
from .resnet import ResNet, ResNetV1d, ResNeXt
from .timm_backbone import TIMMBackbone
from .torchvision_weights import load_torchvision_weights

__all__ = ['ResNeXt', 'ResNet', 'ResNetV1d', 'TIMMBackbone', 'load_torchvision_weights']
