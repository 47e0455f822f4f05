"""The interface between a detector and whatever corrects its classification."""
import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmdet.errors import ConfigError
from mmdet.models.roi_heads.roi_outputs import RoIOutputs
from mmdet.structures import ClassFrequency

from .step_rois import StepRoIs
from .training_annotations import TrainingAnnotations

Logits = Tensor | tuple[Any, ...]


class Calibrator(nn.Module, ABC):
    """Gives RoIs their class scores in the place of a detector's own classifier.

    A method says only what it is:

    * `bind` builds what it has for a detector and its training counts; this happens in calibration and in testing
    alike.
    * In calibration, `prepare` computes what it needs of the training annotations. A method with parameters then learns
      them by `loss`, step by step; one that overrides `observe` sees every step's RoIs without a gradient. A method
      that does neither takes no steps, and its config has nothing but the calibrator.
    * In testing, `logits` is asked for once a stage and, with the mean of the stages' logits, `scores` once for every
      score setting.

    What the methods compute depends on a RoI alone, never on the others beside it.

    Attributes:
        score_settings: the settings that `scores` understands, its default first.
        compared_settings: those a test shows side by side where nobody names any.
        learns_from: `'class_feats'` where `logits` looks at no more of a RoI than the input of the last layer (1,024
            numbers), `'roi_feats'` where it looks at the RoI features (12,544); a feature bank keeps only these.
        choices: for each argument that a user chooses and no training depends on, its usual values, in falling order of
            how often they are right.
        has_base: whether the detector's own scores are known, as they are unless its checkpoint lacks its classifier.
    """

    score_settings: tuple[str, ...] = ('calibrated',)
    compared_settings: tuple[str, ...] = ('base', 'calibrated')
    learns_from = 'class_feats'
    choices: Mapping[str, Sequence[Any]] = {}
    has_base = True

    def __init__(self) -> None:
        super().__init__()
        self._source: object = object()

    @property
    def source(self) -> object:
        """The same for all calibrators whose `logits` are the same."""
        return self._source

    # For this detector and these counts

    def bind(self, base_heads: Sequence[nn.Module], frequency: ClassFrequency) -> 'Calibrator':
        """Build what is learnt or counted, on the device of the base heads.

        Args:
            base_heads: the detector's box heads, one a stage.
            frequency: training counts of its C classes.

        Raises:
            ConfigError: a detector that the method cannot calibrate.
        """
        self.choose()
        return self

    def prepare(self, annotations: TrainingAnnotations) -> None:
        """In calibration only: compute what the state dict keeps of the training annotations."""

    def choose(self, **values: Any) -> None:
        """Set arguments that are among `choices`, and compute what follows from them.

        Raises:
            ConfigError: a value out of its range.
        """
        for name, value in values.items():
            setattr(self, name, value)

    # Learning

    @property
    def is_trained(self) -> bool:
        """Whether there is anything to learn by gradients."""
        return any(parameter.requires_grad for parameter in self.parameters())

    @property
    def takes_steps(self) -> bool:
        """Whether a calibration looks at training images."""
        return self.is_trained or self.observes

    @property
    def observes(self) -> bool:
        """Whether every step's RoIs are to be shown to `observe`."""
        return type(self).observe is not Calibrator.observe

    def observe(self, outputs: RoIOutputs, step: StepRoIs, stage: int = 0) -> None:
        """See the RoIs of a step at one stage; called without gradients."""

    def loss(self, logits: Logits, step: StepRoIs, stage: int = 0) -> dict[str, Tensor]:
        """Losses of the R RoIs of a step.

        Args:
            logits: from `logits`.
            step: their labels, and what the whole step has.
            stage: of a cascade.
        """
        raise NotImplementedError(f'{type(self).__name__} has parameters and no loss')

    # Scoring

    @abstractmethod
    def logits(self, outputs: RoIOutputs, stage: int = 0) -> Logits:
        """What `scores` and `loss` need to know of R RoIs at one stage.

        Returns:
            A (R, any width) tensor, or a tuple of such.
        """

    @abstractmethod
    def scores(self, base_scores: Tensor, logits: Logits, setting: str) -> Tensor:
        """The (R, C + 1) float32 scores given to non-maximum suppression, background last.

        Args:
            base_scores: (R, C + 1) the detector's own.
            logits: from `logits`, averaged over the stages of a cascade, float32.
            setting: one of `score_settings`, or `'base'` for the base scores as they are.
        """

    def check_setting(self, setting: str) -> None:
        """Raise ConfigError unless `setting` is one of `score_settings` or, of a detector that has it, `'base'`."""
        if setting == 'base' and not self.has_base:
            raise ConfigError(
                "--scores base: the checkpoint does not hold the base's classifier; convert it again with --base, or "
                f'ask for {", ".join(self.score_settings)}'
            )
        if setting != 'base' and setting not in self.score_settings:
            known = ', '.join(['base', *self.score_settings])
            raise ConfigError(f'--scores {setting}: {type(self).__name__} knows {known}')

    # Variants

    def depends_on(self, choice: str, setting: str) -> bool:
        """Whether the scores of a setting change with one of `all_choices`."""
        return True

    def all_choices(self) -> dict[str, Sequence[Any]]:
        """`choices` of this calibrator and, under dotted names (`on.gamma`), of those it is made of."""
        own = {name: values for name, values in self.choices.items()}
        for part, calibrator in self.named_children():
            if isinstance(calibrator, Calibrator):
                own |= {f'{part}.{name}': values for name, values in calibrator.all_choices().items()}
        return own

    def variant(self, values: Mapping[str, Any]) -> 'Calibrator':
        """This calibrator with other values of some of `all_choices`, and with the same parameters, not copies.

        Args:
            values: by dotted name.

        Raises:
            ConfigError: a value out of its range.
        """
        changed = copy.copy(self)
        # A shallow copy of a module shares the dicts that hold its parts.
        changed.__dict__.update({kind: dict(self.__dict__[kind]) for kind in ('_parameters', '_buffers', '_modules')})
        own = {name: value for name, value in values.items() if '.' not in name}
        of_parts: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            part, _, rest = name.partition('.')
            if rest:
                of_parts.setdefault(part, {})[rest] = value
        for part, part_values in of_parts.items():
            setattr(changed, part, getattr(self, part).variant(part_values))
        changed.choose(**own)
        return changed


def device_of(base_heads: Sequence[nn.Module]) -> torch.device:
    """Where a detector's box heads are."""
    return base_heads[0].fc_cls.weight.device


def check_range(name: str, value: Any, is_right: bool, wanted: str) -> None:
    """Raise ConfigError for an argument of a calibrator that is not what it must be."""
    if not is_right:
        raise ConfigError(f'calibration.calibrator.{name}={value}: must be {wanted}')
