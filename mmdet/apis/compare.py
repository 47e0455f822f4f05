"""Every calibrator on one frozen detector, in one table, with what a user chooses chosen without test labels."""
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, gather_object, is_main_process

from mmdet.calibration import Calibrator, Panel, TrainingAnnotations
from mmdet.engine import ProgressDisplay, config_errors, fingerprint, require_keys
from mmdet.engine.runner import class_frequency
from mmdet.errors import ConfigError
from mmdet.evaluation import LVISMetric
from mmdet.evaluation.class_groups import ClassGroups
from mmdet.evaluation.federated_truth import FederatedTruth, ImageTargets
from mmdet.evaluation.image_overlaps import ImageOverlaps, Matches
from mmdet.evaluation.match_table import DETECTIONS_PER_IMAGE, MatchTable
from mmdet.models import optimize_for_inference
from mmdet.models.detectors import BaseDetector
from mmdet.registry import DATASETS, METRICS
from mmdet.utils.seeding import keyed_generator

from .calibrate import trained_detector
from .comparison import Entry, Made, Workshop, read_entries, variants, with_choices
from .comparison_report import FIXED, Compared, Contender, Judged, Winner, report
from .detected_objects import DetectedObjects, detect_objects
from .seen_images import SeenImages, key_of_images
from .train import prepare_run

BASE = 'base'
BEST = 'best of all'
PUBLISHED, CHOSEN = 'published', 'chosen'
PER_CLASS = 10_000
"""Detections of a class over the whole data set that count for AP-fixed and AP-pool."""
_BYTES_OF_TABLES = 4e9
_BYTES_OF_A_DETECTION = 40
_HALVES_STREAM = 4  # sets the choice of halves apart from other random numbers keyed to the seed 0


class Candidate(NamedTuple):
    """One way to score: a calibrator's score setting, with one combination of what there is to choose.

    Attributes:
        entry: name of the calibrator; `BASE` of the detector itself.
        setting: the score setting.
        values: what is chosen.
        seed: of the training; None where nothing is trained.
        calibrator: with these values; None of the detector itself.
    """

    entry: str
    setting: str
    values: Mapping[str, Any]
    seed: int | None
    calibrator: Calibrator | None

    @property
    def way(self) -> tuple:
        """The same for all seeds."""
        return self.entry, self.setting, tuple(self.values.items())


class TestedImages(NamedTuple):
    """Test images and their ground truth.

    Attributes:
        images: as the detector sees them.
        truth: what is on them.
        overlaps: `'segm'`, `'bbox'` or both, the one that choices are made by first.
        bins: lower edges of the bins of training instances.
    """

    images: SeenImages
    truth: FederatedTruth
    overlaps: Sequence[str]
    bins: Sequence[int]


def compare(
    cfg: Config,
    checkpoint: str | Path,
    calibrators: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    choose_on: str | None = None,
    detections: int = 1000,
    max_size: float = 20,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train, score and judge calibrators on one frozen detector under LVIS's protocol.

    Training images are looked at once, for a feature bank that serves all calibrators and seeds, and test images once,
    for what is kept of them (`SeenImages`). What a calibrator leaves to a user (`calibration.choices`) is chosen by the
    mean AP (of masks, where there are any), and never by labels that it is then judged on:

    * on the data of `choose_on`, another part of the config, or
    * by cross-fitting: on one half of the test images, to score the other, and the reverse. Where the halves choose
      differently, two sets of scores cannot be ranked together, and a figure is the detector's own on all images plus
      the mean of the two gains over it, each on the half that was not chosen on.

    Args:
        cfg: of the detector, with training data and a `test_evaluator` that is an `LVISMetric`; everything goes below
            its `work_dir`. `compare.calibrators` names what is compared, unless `calibrators` does.
        checkpoint: the detector; a calibrator that it has is left aside.
        calibrators: names of files in `configs/_base_/calibration`, or paths of configs with a `calibration`.
        seeds: of the trainings; figures are means over them.
        choose_on: prefix of the config's `{choose_on}_dataloader` and `{choose_on}_evaluator`, e.g. `val`.
        detections: of an image that AP-fixed and AP-pool, which have no limit for an image, look at.
        max_size: GB (10^9 bytes) that the feature bank, and what is kept of test images, may each take.
        say: called with lines that tell how far it has come.

    Returns:
        The folder with `table.md` and its cells, `table.csv`, `figures.csv`, `comparison.json`, `pareto.png` and
        `winner.py`, the config of the calibrator that came out best.

    Raises:
        UserError: as of `calibrate` and `test`; a name that there is not, or a metric that is not LVIS's.
    """
    require_keys(cfg, 'model', 'train_dataloader', 'test_dataloader', 'test_evaluator', 'work_dir')
    if detections < DETECTIONS_PER_IMAGE:
        raise ConfigError(f'--detections {detections}: LVIS\'s protocol looks at {DETECTIONS_PER_IMAGE}; give no fewer')
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f'--seeds {",".join(map(str, seeds))}: name different seeds, e.g. 0,1,2')
    prepare_run(cfg)
    with config_errors(cfg):
        entries = read_entries(cfg, calibrators)
        training = DATASETS.build(cfg.train_dataloader.dataset)
        frequency = class_frequency(training)
        detector = trained_detector(cfg, checkpoint, training.metainfo)
        base = fingerprint(detector.state_dict())
        detector = optimize_for_inference(detector.to('cuda' if torch.cuda.is_available() else 'cpu'))
        tested = _tested_images(cfg, 'test', detector, base, max_size)
        choosing = tested if choose_on is None else _tested_images(cfg, choose_on, detector, base, max_size)
        workshop = Workshop(
            cfg, checkpoint, base, detector, frequency, TrainingAnnotations(training), entries, max_size
        )
        made = {
            (entry.name, seed): workshop.make(entry, seed, say)
            for entry in entries
            for seed in (seeds if entry.takes_steps else (None,))
        }
        candidates = _candidates(entries, made)
        folds = _folds(len(tested.truth.counts.image_ids)) if choose_on is None else None
        say(f'choose among {len(candidates)} ways to score')
        precisions = _precisions(detector, candidates, choosing, folds)
        contenders = _contenders(entries, candidates, precisions, made, seeds)
        say(f'judge {len(contenders)} of them')
        judged = _judge(detector, candidates, contenders, tested, detections)
    folder = Path(cfg.work_dir) / 'compare'
    if is_main_process():
        comparison = Compared(
            config=cfg,
            checkpoint=str(checkpoint),
            base_sha256=base,
            contenders=contenders,
            judged=judged,
            folds=folds,
            groups=ClassGroups(tested.truth.counts.frequencies, frequency.instance_count, tested.bins),
            seeds=tuple(seeds),
            chosen_on='halves of the test images' if choose_on is None else f'{choose_on}_dataloader',
            detections=detections,
            num_candidates=len(candidates),
            winner=_winner(entries, candidates, precisions),
        )
        report(comparison, folder)
    return folder


def _tested_images(cfg: Config, part: str, detector: BaseDetector, base: str, max_size: float) -> TestedImages:
    """The data of a part of the config, `test` or another."""
    require_keys(cfg, f'{part}_dataloader', f'{part}_evaluator')
    evaluator, loader = cfg[f'{part}_evaluator'], cfg[f'{part}_dataloader']
    if isinstance(evaluator, (list, tuple)) or METRICS.get(evaluator.type) is not LVISMetric:
        raise ConfigError(
            f'{cfg.filename}: {part}_evaluator is to be one LVISMetric: its protocol is the one of comparisons; '
            'convert COCO annotations with tools/dataset_converters/coco2lvis.py'
        )
    metric, dataset = METRICS.build(evaluator), DATASETS.build(loader.dataset)
    overlaps = sorted(metric.iou_types, reverse=True)  # masks first
    if not detector.with_mask and 'segm' in overlaps:
        raise ConfigError(f"{cfg.filename}: the detector has no masks; set {part}_evaluator.metric='bbox'")
    images = SeenImages(
        detector,
        dataset,
        loader.get('batch_size', 1),
        loader.get('num_workers', 0),
        Path(cfg.work_dir) / 'seen_images',
        key_of_images(cfg, part, base),
        max_size,
    )
    truth = FederatedTruth(metric.ground_truth, dataset.metainfo['category_ids'])
    return TestedImages(images, truth, overlaps, metric.bins)


def _candidates(entries: Sequence[Entry], made: Mapping[tuple[str, int | None], Made]) -> list[Candidate]:
    """All ways to score; the first is the detector's own, and of every calibrator's the published one comes first."""
    candidates = [Candidate(BASE, BASE, {}, None, None)]
    for entry in entries:
        for (name, seed), (calibrator, *_) in made.items():
            if name == entry.name:
                candidates += [
                    Candidate(name, setting, values, seed, calibrator.variant(values))
                    for setting in calibrator.score_settings
                    for values in variants(entry, calibrator, setting)
                ]
    return candidates


def _folds(num_images: int) -> np.ndarray:
    """(I,) 0 or 1: which half of the images each one is in."""
    return keyed_generator(0, _HALVES_STREAM).permutation(num_images) % 2


def _detections(
    detector: BaseDetector, candidates: Mapping[int, Candidate], tested: TestedImages, what: str
) -> Iterator[tuple[DetectedObjects, ImageTargets]]:
    """Image by image what is detected under each candidate, by its number as the name of a setting."""
    members = {
        str(number): (candidate.calibrator, candidate.setting)
        for number, candidate in candidates.items()
        if candidate.calibrator is not None
    }
    detector.set_calibrator(Panel(members))
    detector.score_settings = [str(number) if candidates[number].calibrator else BASE for number in candidates]
    display = ProgressDisplay() if is_main_process() else None
    if display:
        display.begin(what, len(tested.images))
    try:
        with torch.inference_mode():
            for seen, samples in tested.images:
                for image in detect_objects(detector, seen, samples):
                    yield image, tested.truth.targets(image.image_id)
                if display:
                    display.advance(what)
    finally:
        if display:
            display.close()


class _ImageMatches:
    """Matches of one image's detections, of each candidate and overlap once."""

    def __init__(self, image: DetectedObjects, targets: ImageTargets, overlaps: Sequence[str]):
        self._by_setting = image.by_setting
        self._overlaps = {
            overlap: ImageOverlaps(targets, overlap, image.boxes, image.masks) for overlap in overlaps
        }
        self._known: dict[tuple[int, str], Matches] = {}

    def of(self, number: int, candidate: Candidate, overlap: str) -> Matches:
        """Those of a candidate."""
        if (number, overlap) not in self._known:
            setting = BASE if candidate.calibrator is None else str(number)
            self._known[number, overlap] = self._overlaps[overlap].match(*self._by_setting[setting])
        return self._known[number, overlap]


def _precisions(
    detector: BaseDetector, candidates: Sequence[Candidate], tested: TestedImages, folds: np.ndarray | None
) -> np.ndarray:
    """Mean AP of every candidate: (N, 1) on all images, or (N, 3) on each half and on all."""
    counts, overlap = tested.truth.counts, tested.overlaps[0]
    num_images = len(counts.image_ids)
    everywhere = np.ones(num_images, np.int64)
    weights = everywhere[None] if folds is None else np.stack([folds == 0, folds == 1, everywhere]).astype(np.int64)
    at_a_time = max(int(_BYTES_OF_TABLES / (num_images * DETECTIONS_PER_IMAGE * _BYTES_OF_A_DETECTION)), 1)
    precisions = []
    for first in range(0, len(candidates), at_a_time):
        group = dict(enumerate(candidates[first : first + at_a_time], start=first))
        tables = {number: MatchTable(counts) for number in group}
        for image, targets in _detections(detector, group, tested, 'choose'):
            matches = _ImageMatches(image, targets, [overlap])
            for number, candidate in group.items():
                tables[number].add(matches.of(number, candidate, overlap))
        for table in _of_all_ranks(tables).values():
            precisions.append(np.nanmean(table.average_precision(weights), axis=1))
    outcome = [np.array(precisions)]
    broadcast_object_list(outcome)
    return outcome[0]


def _of_all_ranks(tables: Mapping[Any, MatchTable]) -> dict[Any, MatchTable]:
    """The tables of all ranks together, in the first process; elsewhere this rank's own."""
    shares = gather_object(dict(tables))
    if not is_main_process() or len(shares) == 1:
        return dict(tables)
    return {key: MatchTable.merged([share[key] for share in shares]) for key in tables}


def _contenders(
    entries: Sequence[Entry],
    candidates: Sequence[Candidate],
    precisions: np.ndarray,
    made: Mapping[tuple[str, int | None], Made],
    seeds: Sequence[int],
) -> list[Contender]:
    """The lines of the table: the detector, every calibrator as published and as chosen, and the best of all."""
    contenders = [Contender(BASE, BASE, '', {None: (0, 0)}, 0, 0.0)]
    for entry in entries:
        own = [number for number, candidate in enumerate(candidates) if candidate.entry == entry.name]
        costs = [cost for (name, _), cost in made.items() if name == entry.name]
        seconds = float(np.mean([cost.seconds for cost in costs]))
        for setting in dict.fromkeys(candidates[number].setting for number in own):
            by_seed: dict[int | None, list[int]] = {}
            for number in own:
                if candidates[number].setting == setting:
                    by_seed.setdefault(candidates[number].seed, []).append(number)
            published = {seed: (numbers[0], numbers[0]) for seed, numbers in by_seed.items()}
            contenders.append(Contender(entry.name, setting, PUBLISHED, published, costs[0].parameters, seconds))
            if max(map(len, by_seed.values())) > 1:
                chosen = {seed: _chosen(numbers, precisions) for seed, numbers in by_seed.items()}
                contenders.append(Contender(entry.name, setting, CHOSEN, chosen, costs[0].parameters, seconds))
    best = {}
    for seed in seeds:
        of_seed = [number for number, candidate in enumerate(candidates) if candidate.seed in (None, seed)]
        best[seed] = _chosen(of_seed, precisions)
    contenders.append(Contender(BEST, '', CHOSEN, best, None, None))
    return contenders


def _chosen(numbers: Sequence[int], precisions: np.ndarray) -> tuple[int, int]:
    """What scores the images of each half: the best of some candidates on the other; one for both without halves."""
    own = precisions[numbers]
    if own.shape[1] == 1:
        best = numbers[int(own[:, 0].argmax())]
        return best, best
    return numbers[int(own[:, 1].argmax())], numbers[int(own[:, 0].argmax())]


def _judge(
    detector: BaseDetector,
    candidates: Sequence[Candidate],
    contenders: Sequence[Contender],
    tested: TestedImages,
    detections: int,
) -> dict[int, Judged]:
    """The tables of matched detections of every candidate that a line needs, by the candidate's number."""
    counts = tested.truth.counts
    needed = sorted({number for contender in contenders for pair in contender.by_seed.values() for number in pair})
    tables = {}
    for number in needed:
        for overlap in tested.overlaps:
            tables[number, overlap] = MatchTable(counts)
        tables[number, FIXED] = MatchTable(counts, per_image=None, per_class=PER_CLASS)
    usual = detector.max_per_img
    detector.set_max_per_img(detections)
    for image, targets in _detections(detector, {n: candidates[n] for n in needed}, tested, 'judge'):
        matches = _ImageMatches(image, targets, tested.overlaps)
        for number in needed:
            for overlap in tested.overlaps:
                tables[number, overlap].add(matches.of(number, candidates[number], overlap))
            tables[number, FIXED].add(matches.of(number, candidates[number], tested.overlaps[0]))
    detector.set_max_per_img(usual)
    together = _of_all_ranks(tables)
    return {
        number: Judged(
            *candidates[number][:3], {kind: together[number, kind] for kind in (*tested.overlaps, FIXED)}
        )
        for number in needed
    }


def _winner(entries: Sequence[Entry], candidates: Sequence[Candidate], precisions: np.ndarray) -> Winner | None:
    """What has the highest AP on all images that choices were made on, the mean over seeds; None if it is the base."""
    by_way: dict[tuple, list[int]] = {}
    for number, candidate in enumerate(candidates):
        by_way.setdefault(candidate.way, []).append(number)
    best = max(by_way.values(), key=lambda numbers: precisions[numbers, -1].mean())
    candidate = candidates[best[0]]
    recipes = {entry.name: entry.recipe for entry in entries}
    if candidate.entry == BASE:
        return None
    return Winner(candidate.entry, candidate.setting, with_choices(recipes[candidate.entry], candidate.values))
