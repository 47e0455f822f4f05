"""Calibrators made of others: a rule on somebody's scores, a choice between two."""
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mmdet.errors import ConfigError
from mmdet.models.roi_heads.roi_outputs import RoIOutputs
from mmdet.registry import CALIBRATORS
from mmdet.structures import ClassFrequency

from .calibrator import Calibrator, Logits
from .step_rois import StepRoIs
from .training_annotations import TrainingAnnotations

Part = Calibrator | Mapping[str, Any] | None


class ComposedCalibrator(Calibrator):
    """A calibrator that has others as its parts.

    At most one of the parts learns from training images, as the config has one sampler and one selector.

    Args:
        parts: by attribute name; a config, a calibrator, or None for the detector's own scores.

    Attributes:
        settings: for each part the score setting that is asked of it.
    """

    def __init__(self, settings: Mapping[str, str | None], **parts: Part):
        super().__init__()
        self.part_names = tuple(parts)
        self.settings = {}
        for name, part in parts.items():
            built = CALIBRATORS.build(dict(part)) if isinstance(part, Mapping) else part
            setattr(self, name, built)
            self.settings[name] = _setting(built, settings[name], name)
        learning = [type(part).__name__ for part in self.given_parts() if _learns(part)]
        if len(learning) > 1:
            raise ConfigError(
                f'calibration.calibrator: {" and ".join(learning)} learn from training images; a composition can have '
                'one that does'
            )

    def given_parts(self) -> list[Calibrator]:
        """The parts that are calibrators."""
        return [part for part in (getattr(self, name) for name in self.part_names) if part is not None]

    @property
    def source(self) -> object:
        """Of all parts together."""
        return tuple(part.source for part in self.given_parts())

    @property
    def learns_from(self) -> str:
        """The most that a part looks at."""
        return 'roi_feats' if any(part.learns_from == 'roi_feats' for part in self.given_parts()) else 'class_feats'

    def bind(self, base_heads: Sequence[nn.Module], frequency: ClassFrequency) -> 'Calibrator':
        """Bind the parts, then what is the composition's own."""
        for part in self.given_parts():
            part.bind(base_heads, frequency)
        return super().bind(base_heads, frequency)

    def prepare(self, annotations: TrainingAnnotations) -> None:
        """Prepare the parts."""
        for part in self.given_parts():
            part.prepare(annotations)

    @property
    def observes(self) -> bool:
        """Whether a part does."""
        return any(part.observes for part in self.given_parts())

    def observe(self, outputs: RoIOutputs, step: StepRoIs, stage: int = 0) -> None:
        """Show the step to the part that observes."""
        for part in self.given_parts():
            if part.observes:
                part.observe(outputs, step, stage)

    def logits(self, outputs: RoIOutputs, stage: int = 0) -> Logits:
        """The logits of every part."""
        return tuple(outputs.logits_of(part, stage) for part in self.given_parts())

    def loss(self, logits: Logits, step: StepRoIs, stage: int = 0) -> dict[str, Tensor]:
        """The loss of the part that learns."""
        losses = [
            part.loss(of_part, step, stage)
            for part, of_part in zip(self.given_parts(), logits, strict=True)
            if part.is_trained
        ]
        return losses[0]

    def scores(self, base_scores: Tensor, logits: Logits, setting: str = 'calibrated') -> Tensor:
        """(R, C + 1) base scores and the parts' logits -> (R, C + 1) float32 scores."""
        self.check_setting(setting)
        if setting == 'base':
            return base_scores
        of_given = iter(logits)
        of_parts = {}
        for name in self.part_names:
            part = getattr(self, name)
            own = base_scores if part is None else part.scores(base_scores, next(of_given), self.settings[name])
            of_parts[name] = own
        return self.composed(**of_parts)

    @abstractmethod
    def composed(self, **scores: Tensor) -> Tensor:
        """From the (R, C + 1) scores of every part to those of the composition."""


class ScoreRule(ComposedCalibrator):
    """A rule that makes scores from scores: the detector's, or those of another calibrator.

    Args:
        on: config of the other calibrator; None is the detector itself.
        on_scores: which of its score settings; None is its default.
    """

    def __init__(self, on: Part = None, on_scores: str | None = None):
        super().__init__(dict(on=on_scores), on=on)

    def composed(self, on: Tensor) -> Tensor:
        """The rule."""
        return self.adjusted(on)

    @abstractmethod
    def adjusted(self, scores: Tensor) -> Tensor:
        """(R, C + 1) scores, background last -> (R, C + 1) scores."""


def _setting(part: Calibrator | None, wanted: str | None, name: str) -> str:
    """The score setting asked of a part."""
    if part is None:
        if wanted not in (None, 'base'):
            raise ConfigError(f'calibration.calibrator.{name}_scores={wanted}: the detector itself has only `base`')
        return 'base'
    if wanted is not None and wanted not in ('base', *part.score_settings):
        raise ConfigError(
            f'calibration.calibrator.{name}_scores={wanted}: {type(part).__name__} knows '
            f'{", ".join(part.score_settings)}'
        )
    return wanted or part.score_settings[0]


def _learns(part: Calibrator) -> bool:
    """Whether a part, not bound yet, will learn from training images."""
    learns_by_loss = type(part).loss is not Calibrator.loss
    if isinstance(part, ComposedCalibrator):
        return any(_learns(inner) for inner in part.given_parts())
    return learns_by_loss or part.observes
