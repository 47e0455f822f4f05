"""Necks: between the backbone's feature maps and the heads."""
from .fpn import FPN

__all__ = ['FPN']
