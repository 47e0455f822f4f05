"""The interface between a detector and whatever corrects its classification."""
from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from mmdet.errors import ConfigError
from mmdet.structures import ClassFrequency


class Calibrator(nn.Module, ABC):
    """Gives RoIs their class scores in the place of a detector's own classifier.

    A RoI head that has a calibrator asks it for `logits` once, and for `scores` once for every score setting
    it detects under. The detector knows no more of it than that.

    Attributes:
        score_settings: the settings `scores` understands, its default first.
        uses_base_outputs: whether `logits` looks at anything but the RoI features; if not, the base head, which is
            frozen, is not run in calibration.
    """

    score_settings: tuple[str, ...] = ()
    uses_base_outputs: bool = True

    @abstractmethod
    def bind(self, base_heads: Sequence[nn.Module], frequency: ClassFrequency) -> 'Calibrator':
        """Build what is learnt, for a detector with these box heads (one a stage) and training counts."""

    @abstractmethod
    def logits(
        self, roi_feats: Tensor, shared_feats: Tensor | None, base_logits: Tensor | None, stage: int = 0
    ) -> Tensor:
        """Logits of R RoIs at one stage, as wide as the calibrator likes.

        Args:
            roi_feats: (R, D, S, S) RoI features, the box head's input.
            shared_feats: (R, D') what the box head's shared layers make of them.
            base_logits: (R, C + 1) the box head's own. Both may be None unless `uses_base_outputs`.
            stage: of a cascade.
        """

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor, num_rois: float, stage: int = 0) -> dict[str, Tensor]:
        """Losses of R RoIs.

        Args:
            logits: from `logits`.
            labels: (R,) int64, C for background.
            num_rois: what sums are divided by: the step's RoIs, averaged over ranks where several share the step.
            stage: of a cascade.
        """

    @abstractmethod
    def scores(self, base_scores: Tensor, logits: Tensor, setting: str) -> Tensor:
        """The (R, C + 1) float32 scores given to non-maximum suppression, background last.

        Args:
            base_scores: (R, C + 1) the detector's own.
            logits: from `logits`, averaged over the stages of a cascade.
            setting: one of `score_settings`, or `'base'` for the base scores as they are.
        """

    def check_setting(self, setting: str) -> None:
        """Raise ConfigError unless `setting` is one of `score_settings` or `'base'`."""
        if setting != 'base' and setting not in self.score_settings:
            known = ', '.join(['base', *self.score_settings])
            raise ConfigError(f'--scores {setting}: {type(self).__name__} knows {known}')
