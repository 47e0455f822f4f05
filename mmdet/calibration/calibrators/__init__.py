"""The published calibrators, one file each; `docs/calibrators.md` says what each does and what it reaches."""
from .acsl import ACSL
from .bags import BAGS
from .crt import CRT, FineTuned
from .disalign import DisAlign
from .dual_head import DualHead, MeanScores
from .fracal import FRACAL
from .logit_adjustment import LogitAdjustment
from .logn import LogN
from .lws import LWS
from .ncm import NCM
from .norcal import NorCal
from .reweighting import ReWeighting, TailFineTune
from .simcal import SimCal
from .tau_norm import TauNorm
from .temperature import Temperature

__all__ = [
    'ACSL',
    'BAGS',
    'CRT',
    'DisAlign',
    'DualHead',
    'FRACAL',
    'FineTuned',
    'LWS',
    'LogN',
    'LogitAdjustment',
    'MeanScores',
    'NCM',
    'NorCal',
    'ReWeighting',
    'SimCal',
    'TailFineTune',
    'TauNorm',
    'Temperature',
]
