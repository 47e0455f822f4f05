"""The calibrators that a comparison has: what each is made from, its training, and its variants."""
import copy
import hashlib
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict
from mmengine.dist import broadcast_object_list, is_main_process

from mmdet.calibration import Calibrator, TrainingAnnotations, build_calibrator
from mmdet.calibration.composition import ComposedCalibrator
from mmdet.engine import latest_checkpoint, load_config, read_checkpoint
from mmdet.errors import ConfigError
from mmdet.models.detectors import BaseDetector
from mmdet.registry import CALIBRATORS, ROI_SELECTORS
from mmdet.structures import ClassFrequency

from .calibrate import RESULT, calibrate, extract_features
from .stages import Stage

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/_base_/calibration'
_MOST_VARIANTS = 200
_VIEWS_PER_IMAGE = 2


class Entry(NamedTuple):
    """One calibrator of a comparison.

    Attributes:
        name: for the user.
        recipe: a config's `calibration`.
    """

    name: str
    recipe: ConfigDict

    @property
    def takes_steps(self) -> bool:
        """Whether it learns from training images, so that seeds differ."""
        return self.recipe.get('max_steps') is not None


def read_entries(cfg: Config, names: Sequence[str] | None) -> list[Entry]:
    """The calibrators to compare.

    Args:
        cfg: whose `compare.calibrators` are taken where no names are given.
        names: of files in `configs/_base_/calibration`, without `.py`, or paths of config files.

    Raises:
        ConfigError: a name that there is not, or a file without a `calibration`.
    """
    names = names or (cfg.get('compare') or {}).get('calibrators')
    if not names:
        raise ConfigError(
            f'{cfg.filename}: has no compare.calibrators; name calibrators with --calibrators, e.g. simcal,norcal'
        )
    entries = []
    for name in names:
        file = Path(name) if Path(name).suffix == '.py' else CONFIGS / f'{name}.py'
        if not file.is_file():
            known = sorted(str(found.relative_to(CONFIGS).with_suffix('')) for found in CONFIGS.glob('**/*.py'))
            raise ConfigError(f'--calibrators {name}: is not known; there are {", ".join(known)}, and paths of configs')
        config = load_config(file)
        if 'calibrator' not in config.get('calibration', {}):
            raise ConfigError(f'{file}: has no calibration.calibrator')
        entries.append(Entry(file.stem, config.calibration))
    repeated = {entry.name for entry in entries if [other.name for other in entries].count(entry.name) > 1}
    if repeated:
        raise ConfigError(f'--calibrators: {", ".join(sorted(repeated))} are named twice; give their files other names')
    return entries


class Made(NamedTuple):
    """A calibrator at hand.

    Attributes:
        calibrator: bound, with whatever it has learnt.
        seconds: of its training, a bank's extraction not included.
        parameters: how many numbers were trained.
    """

    calibrator: Calibrator
    seconds: float
    parameters: int


class Workshop:
    """Makes calibrators for one frozen detector, each training once however many entries build on it.

    Args:
        cfg: of the detector and its training data; `work_dir` takes all that is made.
        checkpoint: the detector.
        base: fingerprint of its weights.
        detector: the same, on its device.
        frequency: training counts.
        annotations: of the training set.
        entries: all that will be made, so that one feature bank serves them.
        bank_size: in GB.
    """

    def __init__(
        self,
        cfg: Config,
        checkpoint: str | Path,
        base: str,
        detector: BaseDetector,
        frequency: ClassFrequency,
        annotations: TrainingAnnotations,
        entries: Sequence[Entry],
        bank_size: float,
    ):
        self.cfg = cfg
        self.checkpoint = checkpoint
        self.base = base
        self.detector = detector
        self.frequency = frequency
        self.annotations = annotations
        self.bank = dict(
            dir=str(Path(cfg.work_dir) / 'feature_bank'),
            views_per_image=_VIEWS_PER_IMAGE,
            features=self._features(entries),
            max_size=bank_size,
        )

    def make(self, entry: Entry, seed: int, announce: Callable[[str], None]) -> Made:
        """Train what an entry has to learn, unless that is done, and put it together.

        Args:
            entry: what to make.
            seed: of its training.
            announce: called with a line before a training begins.
        """
        calibrator = build_calibrator(entry.recipe.calibrator, self.detector, self.frequency)
        calibrator.prepare(self.annotations)
        seconds, parameters = 0.0, 0
        if calibrator.takes_steps:
            path, learner = learning_part(calibrator)
            state, seconds = self._trained(entry, path, seed, announce)
            learner.load_state_dict(state)
            parameters = sum(parameter.numel() for parameter in learner.parameters())
        return Made(calibrator.to(next(self.detector.parameters()).device).eval(), seconds, parameters)

    def _trained(
        self, entry: Entry, path: Sequence[str], seed: int, announce: Callable[[str], None]
    ) -> tuple[dict[str, Any], float]:
        """The state of the part that learns, calibrated by itself, and the seconds that took."""
        cfg = copy.deepcopy(self.cfg)
        cfg.calibration = copy.deepcopy(entry.recipe)
        cfg.calibration.pop('choices', None)
        for part in path:
            cfg.calibration.calibrator = cfg.calibration.calibrator[part]
        cfg.calibration.feature_bank = dict(self.bank)
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)
        cfg.calibration.calibrator = _without_choices(cfg.calibration.calibrator)
        kind = cfg.calibration.calibrator.type
        depends_on = [Config(dict(calibration=cfg.calibration)).pretty_text, self.base, str(seed)]
        folder = Path(self.cfg.work_dir, 'calibrations', f'{kind}_{_digest(depends_on)}_seed_{seed}')
        # The first process says for all what is finished: a folder changes while others look.
        stage = Stage(kind, folder, depends_on, has_product=(folder / RESULT).is_file) if is_main_process() else None
        known = [stage and (stage.is_finished, latest_checkpoint(folder) is not None, stage.seconds)]
        broadcast_object_list(known)
        is_finished, is_begun, seconds = known[0]
        if not is_finished:
            announce(f'calibrate {entry.name}, seed {seed}, in {folder}')
            # Before the training, so that its time is the training's own.
            cfg.work_dir = str(Path(self.cfg.work_dir) / 'extraction')
            extract_features(cfg, self.checkpoint)
            cfg.work_dir, cfg.resume = str(folder), is_begun
            train = partial(calibrate, cfg, self.checkpoint)
            if stage is None:
                train()
            else:
                stage.run(train)
                seconds = stage.seconds
        state = read_checkpoint(folder / RESULT)['state_dict']
        learnt = {name.partition('calibrator.')[2]: value for name, value in state.items() if 'calibrator.' in name}
        return learnt, round(seconds, 1)  # as the record has it

    def _features(self, entries: Sequence[Entry]) -> dict[str, int]:
        """The kinds of features that the entries learn from, and of how many background RoIs of a view."""
        kept: dict[str, int] = {}
        for entry in entries:
            if entry.takes_steps:
                kind = CALIBRATORS.build(dict(entry.recipe.calibrator)).learns_from
                selector = ROI_SELECTORS.build(entry.recipe.selector)
                needed = max(selector.most_backgrounds(*of_stage) for of_stage in self.detector.most_rois())
                kept[kind] = max(kept.get(kind, 0), needed)
        return kept


def learning_part(calibrator: Calibrator) -> tuple[list[str], Calibrator]:
    """The part of a calibrator that looks at training images, and the names that lead to it."""
    if isinstance(calibrator, ComposedCalibrator):
        for name in calibrator.part_names:
            part = getattr(calibrator, name)
            if part is not None and part.takes_steps:
                path, learner = learning_part(part)
                return [name, *path], learner
    return [], calibrator


def variants(entry: Entry, calibrator: Calibrator, setting: str) -> Iterator[dict[str, Any]]:
    """All combinations of what an entry leaves to be chosen for a score setting, the published one first.

    What that is says `calibration.choices`, {dotted name: values}; without it the calibrator's own `choices` are taken,
    and nothing of its parts.

    Raises:
        ConfigError: a name that is no choice of the calibrator, or too many combinations.
    """
    known = calibrator.all_choices()
    wanted = entry.recipe.get('choices')
    wanted = dict(calibrator.choices) if wanted is None else dict(wanted)
    wanted = {name: values for name, values in wanted.items() if calibrator.depends_on(name, setting)}
    for name in wanted:
        if name not in known:
            raise ConfigError(
                f'{entry.name}: calibration.choices.{name} is nothing to choose of {type(calibrator).__name__}; '
                f'there are {", ".join(known) or "none"}'
            )
    published = {name: _current(calibrator, name) for name in wanted}
    values = [[published[name], *(value for value in wanted[name] if value != published[name])] for name in wanted]
    combinations = [dict(zip(wanted, combination, strict=True)) for combination in itertools.product(*values)]
    if len(combinations) > _MOST_VARIANTS:
        raise ConfigError(
            f'{entry.name}: calibration.choices make {len(combinations)} combinations, more than {_MOST_VARIANTS}; '
            'name fewer values'
        )
    yield from combinations


def with_choices(recipe: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A `calibration` whose calibrator has chosen values."""
    changed = copy.deepcopy(dict(recipe))
    changed.pop('choices', None)
    for name, value in values.items():
        *parts, key = name.split('.')
        place = changed['calibrator']
        for part in parts:
            place = place[part]
        place[key] = value
    return changed


def _without_choices(config: Mapping[str, Any]) -> ConfigDict:
    """A calibrator's config with all that its training depends on and no more; entries that agree in it share one."""
    kind = CALIBRATORS.get(config['type'])
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.default is not parameter.empty
    }
    given = defaults | dict(config)
    return ConfigDict({name: value for name, value in given.items() if name not in kind.choices})


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256('\n'.join(texts).encode()).hexdigest()[:8]


def _current(calibrator: Calibrator, name: str) -> Any:
    """The value that a calibrator has for one of its choices."""
    *parts, key = name.split('.')
    for part in parts:
        calibrator = getattr(calibrator, part)
    return getattr(calibrator, key)
