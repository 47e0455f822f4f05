"""Losses, called as `loss(pred, target, weight=None, avg_factor=None)`."""
from .accuracy import accuracy
from .counted_loss import CountedLoss
from .cross_entropy_loss import CrossEntropyLoss
from .eql_loss import EQLLoss
from .eqlv2_loss import EQLV2Loss
from .federated_loss import FederatedLoss
from .focal_loss import FocalCustomLoss, FocalLoss
from .seesaw_loss import SeesawLoss
from .sigmoid_loss import SigmoidLoss
from .smooth_l1_loss import L1Loss, SmoothL1Loss

__all__ = [
    'CountedLoss',
    'CrossEntropyLoss',
    'EQLLoss',
    'EQLV2Loss',
    'FederatedLoss',
    'FocalCustomLoss',
    'FocalLoss',
    'L1Loss',
    'SeesawLoss',
    'SigmoidLoss',
    'SmoothL1Loss',
    'accuracy',
]
