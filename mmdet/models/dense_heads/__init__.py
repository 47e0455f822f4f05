"""Heads that predict at every pixel of a feature pyramid."""
from .rpn_head import RPNHead

__all__ = ['RPNHead']
