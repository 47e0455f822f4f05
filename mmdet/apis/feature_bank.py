"""Calibration from a feature bank: which views a run will see, and their extraction before its first step."""
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import barrier, get_rank, get_world_size
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mmdet.calibration import (
    BankedCalibrationModel,
    FeatureBank,
    RoISelector,
    View,
    Visit,
    pack,
    share_views,
    views_of_images,
)
from mmdet.calibration.kept_rois import FEATURES, KeptRoIs
from mmdet.datasets.samplers import Draw, StreamSampler
from mmdet.engine import ProgressDisplay, Runner, check_known_keys
from mmdet.errors import ConfigError
from mmdet.models.detectors import BaseDetector

from .bank_folder import BankFolder

_FORMAT = 2
_GIGABYTE = 1e9
_SEGMENT_BYTES = 128 << 20
_CONTAINER_BYTES = 64 << 10  # more than a segment's file has beside its tensors


@dataclass(frozen=True)
class BankSettings:
    """`calibration.feature_bank` of a config.

    Attributes:
        dir: the bank's folder; `feature_bank` in the working directory where it is None.
        draws: RoI draws kept of a view.
        visits_per_view: visits of an image that share a view, on average; see `share_views`.
        views_per_image: where given, in the place of `visits_per_view`: every image has so many views, the same for
            every calibrator and seed, so that one bank serves all; see `views_of_images`.
        features: kinds of features to keep beside those that the calibrator learns from, for other calibrators: for
            each of `FEATURES` of how many background RoIs of a view.
        max_size: of the folder, in GB (10^9 bytes).
    """

    dir: str | None = None
    draws: int = 2
    visits_per_view: int = 16
    views_per_image: int | None = None
    features: Mapping[str, int] = field(default_factory=dict)
    max_size: float = 20

    @classmethod
    def of(cls, cfg: Config) -> 'BankSettings':
        """Raises ConfigError where a key is not known or out of its range."""
        given = cfg.calibration.feature_bank
        where = f'{cfg.filename}: calibration.feature_bank'
        check_known_keys(given, cls.__dataclass_fields__, f'{where}: the key')
        settings = cls(**given)
        for name in ('draws', 'visits_per_view', 'views_per_image'):
            value = getattr(settings, name)
            if (name != 'views_per_image' or value is not None) and (not isinstance(value, int) or value < 1):
                raise ConfigError(f'{where}.{name}={value}: must be an integer from 1')
        for kind in settings.features:
            if kind not in FEATURES:
                raise ConfigError(f'{where}.features: {kind} is not known; there are {", ".join(FEATURES)}')
        if not isinstance(settings.max_size, int | float) or not settings.max_size >= 0:
            raise ConfigError(f'{where}.max_size={settings.max_size}: give a size in GB')
        return settings


@dataclass(frozen=True)
class BankPlan:
    """Which views a calibration sees, and where they are kept.

    Attributes:
        settings: of the config.
        folder: with the bank.
        visits: (N,) the view that each visit sees.
        views: all that are seen, those with the most visits first.
        uses: (V,) visits of each of them.
        most_backgrounds: for each stage the kinds of features that are kept, and of how many background RoIs of a view.
        note_bytes: at most, of a view beside its features.
        view_bytes: at most, of a view.
    """

    settings: BankSettings
    folder: BankFolder
    visits: list[View]
    views: list[View]
    uses: np.ndarray
    most_backgrounds: list[dict[str, int]]
    note_bytes: int
    view_bytes: int

    @property
    def missing(self) -> list[View]:
        """Views that the bank does not have yet."""
        return [view for view in self.views if view not in self.folder.bank]

    @property
    def room(self) -> int:
        """Bytes by which the folder may grow."""
        return max(int(self.settings.max_size * _GIGABYTE) - self.folder.num_bytes(), 0)

    @property
    def surely_fits(self) -> bool:
        """Whether no visit will need its image."""
        return not self.missing or _with_containers(len(self.missing) * self.view_bytes) <= self.room

    def statement(self) -> str:
        """What will be extracted and how large it can become."""
        missing, there = len(self.missing), self.folder.num_bytes()
        num_images = len({view.index for view in self.views})
        return (
            f'feature bank {self.folder.path}: {len(self.views):,} views of {num_images:,} images serve '
            f'{len(self.visits):,} visits; {there / _GIGABYTE:.2f} GB are there, {missing:,} views are to be '
            f'extracted, at most {missing * self.view_bytes / _GIGABYTE:.2f} GB'
        )

    def warning(self) -> str | None:
        """What becomes of views that may not fit; None where all of them do."""
        if self.surely_fits:
            return None
        kept = np.array([view in self.folder.bank for view in self.views])
        kept[np.flatnonzero(~kept)[: max(self.room - _CONTAINER_BYTES, 0) // self.view_bytes]] = True
        return (
            f'calibration.feature_bank.max_size={self.settings.max_size:g} GB may be too small: the views with the '
            f'most visits are kept first, at least {kept.sum():,} of {len(kept):,}, which serve '
            f'{self.uses[kept].sum() / self.uses.sum():.0%} of the visits; those that do not fit are computed at '
            'every visit'
        )


def plan_feature_bank(
    cfg: Config, detector: BaseDetector, selector: RoISelector, dataset: Any, sampler: StreamSampler, base: str
) -> BankPlan:
    """Foresee a calibration's visits and open the bank for them.

    Args:
        cfg: with `calibration.feature_bank`.
        detector: the base, with its calibrator.
        selector, sampler: the calibration's.
        dataset: of the training images.
        base: fingerprint of the base's weights.

    Raises:
        ConfigError: impossible settings, or a folder with the bank of something else.
    """
    settings = BankSettings.of(cfg)
    barrier()  # so that every process finds the same views there, and none that another has just extracted
    rois = detector.most_rois()
    most_backgrounds = [_most_backgrounds(settings, detector, selector, *of_stage) for of_stage in rois]
    made_from = {
        'format': _FORMAT,
        'base checkpoint': base,
        'model config': _digest(_without_detection(cfg.model.to_dict())),
        'training data or pipeline': _digest(cfg.train_dataloader.dataset.to_dict(), *_annotations(dataset)),
        'calibration.feature_bank.draws': settings.draws,
        'precision (--amp)': (cfg.calibration.get('optim_wrapper') or {}).get('type', 'OptimWrapper'),
    }
    folder = BankFolder(settings.dir or Path(cfg.work_dir) / 'feature_bank', made_from, most_backgrounds)
    num_visits = cfg.calibration.max_steps * sampler.images_per_step * get_world_size()
    _, images, _ = sampler.stream.draws(0, num_visits)
    seed = sampler.stream.seed
    if settings.views_per_image is None:
        visits = share_views(images, seed, settings.visits_per_view)
    else:
        visits = views_of_images(images, seed, len(dataset), settings.views_per_image)
    uses = Counter(visits)
    barrier()
    note_bytes = sum(_note_bytes(*of_stage, settings.draws) for of_stage in rois)
    feature_bytes = sum(
        _feature_bytes(head, kept, positives * settings.draws)
        for head, kept, (positives, _) in zip(detector.box_heads, folder.most_backgrounds, rois, strict=True)
    )
    return BankPlan(
        settings=settings,
        folder=folder,
        visits=visits,
        # Of as many visits the earlier ones first.
        views=[view for view, _ in uses.most_common()],
        uses=np.array([count for _, count in uses.most_common()]),
        most_backgrounds=folder.most_backgrounds,
        note_bytes=note_bytes,
        view_bytes=note_bytes + feature_bytes,
    )


class BankedVisits(Dataset):
    """A calibration's visits: only those whose view the bank does not keep load their image.

    Args:
        dataset: of the images.
        visits: (N,) the view that each visit sees.
        bank: what is kept.
    """

    def __init__(self, dataset: Any, visits: Sequence[View], bank: FeatureBank):
        self.dataset = dataset
        self.metainfo = dataset.metainfo
        self.visits = visits
        self.bank = bank

    def full_init(self) -> None:
        """Nothing is left to do; mmengine's runner calls this."""

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw) -> dict[str, Visit]:
        # Workers that load ahead reach beyond the last visit.
        foreseen = draw.number < len(self.visits)
        view = self.visits[draw.number] if foreseen else View(draw.index, draw.seed, draw.number)
        image = None if view in self.bank else self.dataset[Draw(*view)]
        return dict(visits=Visit(draw.seed, draw.number, draw.class_label, view, image))


def fill_feature_bank(plan: BankPlan, runner: Runner, dataset: Any, batch_size: int, num_workers: int) -> None:
    """Extract the missing views, shared by all processes, until the bank's size is reached.

    What is extracted is kept whatever happens afterwards; an interrupted extraction is continued.

    Args:
        plan: of the calibration.
        runner: its runner, with a `BankedCalibrationModel`.
        dataset: of the images.
        batch_size, num_workers: of the loader of images.

    Raises:
        UserError: the disk is full.
    """
    display = ProgressDisplay() if get_rank() == 0 else None
    _say(plan.statement(), runner, display)
    if plan.warning():
        runner.logger.warning(plan.warning())
    views = plan.missing[get_rank() :: get_world_size()]
    segments = _Segments(plan.folder, plan.note_bytes, plan.room // get_world_size())
    if segments.room < _CONTAINER_BYTES + plan.view_bytes:
        views = []
    if display and views:
        display.begin('extract', -(-len(views) // batch_size))
    for of_batch, kept in _extracted(views, runner, dataset, batch_size, num_workers):
        if not all(segments.add(view, stages) for view, stages in zip(of_batch, kept, strict=True)):
            break
        if display:
            display.advance('extract')
    segments.write()
    if display:
        display.close()
    barrier()
    had = len(plan.folder.bank)
    plan.folder.read_new_segments()
    if len(plan.folder.bank) > had:
        size = plan.folder.num_bytes() / _GIGABYTE
        _say(f'feature bank {plan.folder.path}: {len(plan.folder.bank):,} views, {size:.2f} GB', runner, display)


def _extracted(
    views: Sequence[View], runner: Runner, dataset: Any, batch_size: int, num_workers: int
) -> Iterator[tuple[Sequence[View], list[list[KeptRoIs]]]]:
    """Batch by batch the views and what is kept of them."""
    model: BankedCalibrationModel = getattr(runner.model, 'module', runner.model)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    draws = [Draw(*view) for view in views]
    loader = DataLoader(dataset, batch_size, sampler=draws, num_workers=num_workers, collate_fn=list)
    for i, images in enumerate(loader):
        with runner.optim_wrapper.optim_context(runner.model):
            kept = model.keep(images)
        yield views[i * batch_size : (i + 1) * batch_size], kept


class _Segments:
    """Writes views to a folder, a segment at a time, up to some size.

    Args:
        folder: of the bank.
        note_bytes: at most, of a view beside its features.
        room: bytes that may be written.
    """

    def __init__(self, folder: BankFolder, note_bytes: int, room: int):
        self.folder = folder
        self.note_bytes = note_bytes
        self.room = room
        self._begin()

    def add(self, view: View, stages: list[KeptRoIs]) -> bool:
        """Take a view in; False where there is no room for it."""
        size = sum(rois.num_bytes() for rois in stages) + self.note_bytes
        if self.size + size > self.room:
            return False
        self.views.append(view)
        self.rois.append(stages)
        self.size += size
        if self.size > _SEGMENT_BYTES:
            self.write()
        return True

    def write(self) -> None:
        """Write what has been taken in since the last time."""
        if self.views:
            self.folder.write(pack(self.views, self.rois))
            self.room -= self.size
            self._begin()

    def _begin(self) -> None:
        self.size = _CONTAINER_BYTES
        self.views: list[View] = []
        self.rois: list[list[KeptRoIs]] = []


def _say(line: str, runner: Runner, display: ProgressDisplay | None) -> None:
    """In the log file, and once on the terminal."""
    runner.logger.info(line)
    if display:
        display.say(line)


def _most_backgrounds(
    settings: BankSettings, detector: BaseDetector, selector: RoISelector, most_positives: int, num_rois: int
) -> dict[str, int]:
    """The kinds of features to keep of one stage, and of how many background RoIs of a view."""
    kept = dict(settings.features)
    own, needed = detector.calibrator.learns_from, selector.most_backgrounds(most_positives, num_rois)
    kept[own] = max(needed, kept.get(own, 0))
    return kept


def _feature_bytes(head: nn.Module, most_backgrounds: Mapping[str, int], most_positives: int) -> int:
    """What the features of one stage of a view occupy at most."""
    numbers = dict(roi_feats=head.in_channels * head.roi_feat_size**2, class_feats=head.fc_cls.in_features)
    return sum(
        (most_positives + backgrounds) * numbers[kind] * torch.half.itemsize
        for kind, backgrounds in most_backgrounds.items()
    )


def _note_bytes(most_positives: int, num_rois: int, draws: int) -> int:
    """What a segment has of one stage of a view beside its features, at most; see `pack`."""
    return 64 + 6 * draws * most_positives + 4 * num_rois


def _with_containers(num_bytes: int) -> int:
    """The size of files with so many bytes in segments."""
    return num_bytes + (num_bytes // _SEGMENT_BYTES + 1) * _CONTAINER_BYTES


def _digest(config: Any, *arrays: np.ndarray) -> str:
    """16 hexadecimal digits of the SHA-256 of a config and of arrays."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _without_detection(model: dict) -> dict:
    """A model's config without what only its detections depend on."""
    test_cfg = {key: value for key, value in (model.get('test_cfg') or {}).items() if key != 'rcnn'}
    return dict(model, test_cfg=test_cfg)


def _annotations(dataset: Any) -> Iterator[np.ndarray]:
    """The arrays that say which images there are and what is on them."""
    yield from dataset.images_to_learn_class()
    for inner in getattr(dataset, 'datasets', ()):
        yield from _annotations(inner)
    if hasattr(dataset, 'index'):
        index = dataset.index
        yield from (dataset.images, index.image_ids, index.image_sizes, index.image_names.text, index.first_instance)
        yield from (index.category, index.boxes, index.flags)
