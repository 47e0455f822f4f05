"""Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017)."""
from torch import Tensor

from mmdet.registry import CALIBRATORS

from ..calibrator import check_range
from ..composition import Part, ScoreRule
from .norcal import normalised


@CALIBRATORS.register_module()
class Temperature(ScoreRule):
    """Logits are divided by a temperature: above 1 scores come closer to each other, below 1 further apart.

    On probabilities p that is p ** (1 / temperature), with every RoI's row made to sum to 1 again.

    Args:
        temperature: above 0.
        on, on_scores: see `ScoreRule`.
    """

    choices = {'temperature': (1.0, 0.5, 0.75, 1.5, 2.0)}

    def __init__(self, temperature: float = 1.0, on: Part = None, on_scores: str | None = None):
        super().__init__(on, on_scores)
        self.temperature = temperature

    def choose(self, **values: float) -> None:
        """Set the temperature.

        Raises:
            ConfigError: one that is not above 0.
        """
        super().choose(**values)
        check_range('temperature', self.temperature, self.temperature > 0, 'a number above 0')

    def adjusted(self, scores: Tensor) -> Tensor:
        """(R, C + 1) scores -> (R, C + 1) scores whose rows sum to 1."""
        return normalised(scores ** (1 / self.temperature))
