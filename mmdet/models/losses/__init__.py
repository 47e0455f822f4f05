"""Losses, called as `loss(pred, target, weight=None, avg_factor=None)`."""
from .accuracy import accuracy
from .cross_entropy_loss import CrossEntropyLoss
from .seesaw_loss import SeesawLoss
from .smooth_l1_loss import L1Loss, SmoothL1Loss

__all__ = ['CrossEntropyLoss', 'L1Loss', 'SeesawLoss', 'SmoothL1Loss', 'accuracy']
