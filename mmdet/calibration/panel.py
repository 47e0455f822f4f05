"""Many calibrators side by side on one detector."""
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmdet.models.roi_heads.roi_outputs import RoIOutputs

from .calibrator import Calibrator


class Panel(Calibrator):
    """A calibrator whose score settings are those of others, each under a name of its own.

    What several of them compute alike, as variants of one trained head do, is computed once.

    Args:
        members: by the name of a setting a calibrator, bound and on the detector's device, and its own setting.
    """

    def __init__(self, members: Mapping[str, tuple[Calibrator, str]]):
        super().__init__()
        self.members = dict(members)
        self.score_settings = tuple(members)
        distinct = {calibrator.source: calibrator for calibrator, _ in members.values()}
        self._distinct = list(distinct.values())
        self._place = {source: place for place, source in enumerate(distinct)}

    def logits(self, outputs: RoIOutputs, stage: int = 0) -> tuple[Any, ...]:
        """The logits of every distinct calibrator."""
        return tuple(outputs.logits_of(calibrator, stage) for calibrator in self._distinct)

    def scores(self, base_scores: Tensor, logits: tuple[Any, ...], setting: str) -> Tensor:
        """(R, C + 1) base scores and all logits -> (R, C + 1) float32 scores of one member."""
        calibrator, own_setting = self.members[setting]
        return calibrator.scores(base_scores, logits[self._place[calibrator.source]], own_setting)
