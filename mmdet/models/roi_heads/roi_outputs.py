"""What a box head makes of RoIs, each part computed once, when somebody asks for it."""
from functools import cached_property
from typing import Any, Protocol

from torch import Tensor, nn


class GivesLogits(Protocol):
    """What `RoIOutputs.logits_of` asks of a calibrator."""

    source: object

    def logits(self, outputs: 'RoIOutputs', stage: int = 0) -> Any:
        """Logits of the RoIs at a stage."""


class RoIOutputs:
    """R RoIs of one stage, as its box head sees them.

    Made from the RoI features, from which everything else follows, or from the input of the last layer alone.

    Attributes:
        head: the box head.
        roi_feats: (R, D, S, S) RoI features, the head's input; None where only `class_feats` are known.
        shared_feats: what the layers shared by classes and boxes make of them.
        class_feats: (R, D') the input of the last layer, `head.fc_cls`.
        logits: (R, C + 1), or as many as the head's loss defines: the head's own.
    """

    def __init__(self, head: nn.Module, roi_feats: Tensor | None = None, class_feats: Tensor | None = None):
        self.head = head
        self.roi_feats = roi_feats
        if class_feats is not None:
            self.class_feats = class_feats
        self._logits_of: dict[object, Any] = {}

    @cached_property
    def shared_feats(self) -> Tensor:
        """See above."""
        return self.head.shared(self.roi_feats)

    @cached_property
    def class_feats(self) -> Tensor:
        """See above."""
        return self.head.cls_branch(self.shared_feats)

    @cached_property
    def logits(self) -> Tensor:
        """See above."""
        return self.head.fc_cls(self.class_feats)

    def logits_of(self, calibrator: GivesLogits, stage: int) -> Any:
        """A calibrator's logits, computed once for all calibrators that are variants of one `source`."""
        if calibrator.source not in self._logits_of:
            self._logits_of[calibrator.source] = calibrator.logits(self, stage)
        return self._logits_of[calibrator.source]
