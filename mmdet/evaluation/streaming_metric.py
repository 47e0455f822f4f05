"""What the COCO and the LVIS metric share: detections are matched as they come, and then forgotten."""
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from hotcoco import StreamingEval
from mmengine.dist import broadcast_object_list, gather_object, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get_local_path

from mmdet.errors import AnnotationError, ConfigError
from mmdet.structures import ClassFrequency

from .detections import Detections
from .ground_truth import GroundTruth, read_ground_truth
from .matcher import Matcher
from .proposals import PROPOSAL, PROPOSAL_FIGURES, as_proposals, proposal_matcher
from .results_file import ResultsPart, join_parts
from .table_matcher import TableMatcher
from .training_instance_bins import average_precision_by_bin

IOU_TYPES = ('bbox', 'segm')
IMAGES_AT_A_TIME = 32  # hotcoco matches the images it is given together on all cores


class _Shard(NamedTuple):
    """What one process contributes to the figures."""

    seen: set[int]
    matchers: dict[str, Matcher | TableMatcher]
    parts: dict[str, str | None]


class StreamingMetric(BaseMetric):
    """AP and AR of detections that are matched with the ground truth a few dozen images at a time.

    Of a matched detection only a few bytes are kept (at which thresholds it matched), so memory hardly grows with
    their number. The figures are the official evaluator's, in one process or several, whatever the batch size. Every
    image of the annotation file counts, also one that is never tested; one that is tested twice counts once.

    Args:
        ann_file: ground truth, a `.json`, `.json.gz` or `.json.zip` file. None: the data set's own, of which only the
            images that are tested count; `Runner` gives it to `evaluate_on`.
        metric: `'bbox'`, `'segm'`, and what else the protocol knows; one of these or several.
        scores: which scores to evaluate where a detector gives several: `'dual'` reads `pred_instances_dual`; None
            reads `pred_instances`.
        bins: ascending lower edges of the training-instance bins AP1, AP2, ...
        class_frequency: training instances and images of each class, in label order; without it there are no bins.
            May be set as an attribute any time before `evaluate`.
        classwise: report every class's AP too, as `{bbox or segm}_{name}_precision`.
        format_only: write the detections to result files and compute nothing.
        outfile_prefix: result files are `{outfile_prefix}.bbox.json` and `{outfile_prefix}.segm.json`; None: none.
        backend_args: of the file backend that reads `ann_file`.
        collect_device: as of every mmengine metric.
        prefix: put before every figure's name, with a slash.

    Attributes:
        per_class: after `evaluate`, on every process, one dict per class in label order: `name`, `category_id`,
            `frequency` ('r', 'c', 'f' or None), `train_instances`, `train_images` (None without class frequencies)
            and `bbox_AP`, `segm_AP` as evaluated, in 0..1, NaN for a class without ground truth; these are not there
            where the protocol has no AP of one class.

    Raises:
        AnnotationError: an annotation file that cannot be read or lacks what the protocol needs.
        ConfigError: a combination of arguments that makes no sense.
    """

    lvis_style: bool
    """Whether an image is annotated for some of the categories only, as in LVIS."""

    counts_empty: bool
    """Whether a detection of zero area counts (as a false positive), or is left out."""

    figures: Mapping[str, str]
    """The names of the figures -> what a matcher calls them."""

    class_figures = True
    """Whether there is an AP of each class, and so AP by training instances."""

    metrics: Sequence[str] = IOU_TYPES
    """What `metric` may be."""

    aliases: Mapping[str, str] = {}
    """mmdetection's names of figures that are called otherwise here -> the names here."""

    def __init__(
        self,
        ann_file: str | None = None,
        metric: str | Sequence[str] = 'bbox',
        scores: str | None = None,
        bins: Sequence[int] = (1, 10, 100, 1000),
        class_frequency: ClassFrequency | None = None,
        classwise: bool = False,
        format_only: bool = False,
        outfile_prefix: str | None = None,
        backend_args: dict[str, Any] | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix)
        self.evaluated = [metric] if isinstance(metric, str) else list(metric)
        for each in self.evaluated:
            if each not in self.metrics:
                known = ', '.join(map(repr, self.metrics))
                raise ConfigError(f'metric {each!r} is not known to {type(self).__name__}; choose among {known}')
        self.iou_types = list(dict.fromkeys('bbox' if each == PROPOSAL else each for each in self.evaluated))
        if format_only and outfile_prefix is None:
            raise ConfigError('format_only=True needs outfile_prefix: where result files go and how their names begin')
        self.predictions = 'pred_instances' if scores is None else f'pred_instances_{scores}'
        self.bins = tuple(bins)
        self.class_frequency = class_frequency
        self.classwise = classwise
        self.format_only = format_only
        self.outfile_prefix = outfile_prefix
        self.per_class: list[dict[str, Any]] = []
        self.ground_truth: GroundTruth | None = None
        self.counts_untested = ann_file is not None
        self.dataset_meta = None
        if ann_file is not None:
            self.evaluate_on(ann_file, backend_args)

    def evaluate_on(self, ann_file: str, backend_args: dict[str, Any] | None = None) -> None:
        """Read the ground truth and start a new pass.

        Raises:
            AnnotationError: an annotation file that cannot be read or lacks what the protocol needs.
        """
        with get_local_path(ann_file, backend_args=backend_args) as local_file:
            self.ground_truth = read_ground_truth(local_file, with_masks='segm' in self.iou_types)
        self.check_ground_truth()
        self.dataset_meta = self._dataset_meta

    def figure_names(self) -> list[str]:
        """The names, without prefix, of what `evaluate` will report; only before anything is processed."""
        names = [] if self.format_only else list(self._figures()[0])
        self._start_pass()
        return names

    @property
    def dataset_meta(self) -> dict[str, Any] | None:
        """The data set's `metainfo`: its `category_ids` (label -> category id) are evaluated.

        Without any, all categories of the annotation file are, labelled in ascending order of their ids.
        """
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict[str, Any] | None) -> None:
        self._dataset_meta = dataset_meta
        if self.ground_truth is None:
            return
        known = self.ground_truth.categories
        category_ids = (dataset_meta or {}).get('category_ids', list(known))
        for category_id in category_ids:
            if category_id not in known:
                raise AnnotationError(
                    f'{self.ground_truth.path}: has no category {category_id}, which the data set lists; give the '
                    f'metric an annotation file with the same categories'
                )
        self.categories = {category_id: known[category_id] for category_id in category_ids}
        self._category_ids = np.array(category_ids)
        # A category without ground truth has no AP and takes no part in any mean, whatever is detected.
        self.evaluated_categories = self.categories.keys() & self.ground_truth.annotated_categories
        self._start_pass()

    # What a protocol says of itself.

    def check_ground_truth(self) -> None:
        """Raises AnnotationError where the annotation file lacks what the protocol needs."""

    def evaluated_target(self, annotation: dict[str, Any]) -> dict[str, Any] | None:
        """The annotation as hotcoco must see it to compute what the official evaluator does; None leaves it out."""
        return annotation

    def countable_detections(self, detections: Detections, targets: list[dict[str, Any]]) -> Detections:
        """Those of one image's detections that can make a difference to the figures, given the image's targets."""
        return detections.of_categories(self.evaluated_categories)

    def detections_of(self, image_id: int, instances: Mapping[str, Any]) -> Detections:
        """One image's detections, as the detector gives them, in the categories of the protocol."""
        return Detections.from_instances(image_id, instances, self._category_ids)

    def new_matcher(self, metric: str) -> Matcher | TableMatcher:
        """What matches the boxes or masks of one pass."""
        if metric == PROPOSAL:
            return proposal_matcher()
        categories = [
            {'id': category_id, 'name': str(category_id), 'frequency': self.categories[category_id].get('frequency')}
            for category_id in sorted(self.evaluated_categories)
        ]
        evaluator = StreamingEval(categories, iou_type=metric, lvis_style=self.lvis_style)
        return Matcher(evaluator, metric, self.counts_empty)

    # Batch by batch.

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Takes over one batch of detections, and matches those at hand once they are of enough images.

        Args:
            data_batch: not used.
            data_samples: mappings with `img_id` and `pred_instances` (or `pred_instances_<scores>`): `bboxes` (N, 4)
                xyxy in pixels of the original image, `scores` (N,), `labels` (N,) in 0..C-1, and for `'segm'`
                `masks`, a list of N COCO run-length encodings.

        Raises:
            AnnotationError: an image that is not in the annotation file.
            ConfigError: no ground truth, or a sample without the scores or masks that are to be evaluated.
            UserError: a result file that cannot be written.
        """
        if self.ground_truth is None:
            raise ConfigError(f'{type(self).__name__} needs the key `ann_file` where no data set gives it its own')
        unseen = {sample['img_id']: sample for sample in data_samples if sample['img_id'] not in self._seen}
        batch = [self._detections(sample) for sample in unseen.values()]
        self._seen.update(unseen)
        self._unmatched += batch
        if len(self._unmatched) >= IMAGES_AT_A_TIME:
            self._match_all()
        for iou_type, part in self._parts.items():
            for detections in batch:
                part.write(detections.image_id, detections.results(iou_type))

    def evaluate(self, size: int) -> dict[str, float]:
        """Joins what all processes matched, and starts a new pass.

        Args:
            size: not used; every image counts once, by its id.

        Returns:
            On every process: figures in 0..1 under `{prefix}/{bbox or segm}_{figure}`; -1 where the official
            evaluators say -1 (there is nothing of the kind), NaN for a bin without a class. Nothing if `format_only`.

        Raises:
            ConfigError: class frequencies of another number of classes.
            UserError: a result file that cannot be written.
        """
        if self.class_frequency is not None and len(self.class_frequency) != len(self.categories):
            raise ConfigError(
                f'the class frequencies are of {len(self.class_frequency)} classes, the data set has '
                f'{len(self.categories)}; take those of its own training set'
            )
        self._match_all()
        parts = {iou_type: part.flushed() for iou_type, part in self._parts.items()}
        shards = gather_object(_Shard(self._seen, self._matchers, parts))
        outcome = [self._conclude(shards) if is_main_process() else None]
        broadcast_object_list(outcome)
        for part in self._parts.values():
            part.close()
        self._start_pass()
        figures, self.per_class = outcome[0]
        return {f'{self.prefix}/{name}': figure for name, figure in figures.items()}

    def compute_metrics(self, results: list) -> dict:
        """Not used: no results are kept that could be computed on; `evaluate` does it all."""
        raise NotImplementedError

    def _start_pass(self) -> None:
        evaluated = [] if self.format_only else self.evaluated
        written = [] if self.outfile_prefix is None else self.iou_types
        self._seen: set[int] = set()
        self._unmatched: list[Detections] = []
        self._matchers = {each: self.new_matcher(each) for each in evaluated}
        self._parts = {t: ResultsPart(self._results_path(t)) for t in written}

    def _results_path(self, iou_type: str) -> str:
        return f'{self.outfile_prefix}.{iou_type}.json'

    def _detections(self, sample: Mapping[str, Any]) -> Detections:
        image_id = sample['img_id']
        if image_id not in self.ground_truth.images:
            raise AnnotationError(
                f'{self.ground_truth.path}: has no image {image_id}, which was tested; give data set and metric '
                f'the same ann_file'
            )
        if self.predictions not in sample:
            given = ', '.join(sorted(key for key in sample if key.startswith('pred_instances'))) or 'no detections'
            raise ConfigError(f'the metric is to read {self.predictions}, but the detector gives {given}')
        instances = sample[self.predictions]
        if 'segm' in self.iou_types and 'masks' not in instances:
            raise ConfigError("the metric is to evaluate 'segm', but the detector gives no masks; set metric='bbox'")
        return self.detections_of(image_id, instances)

    def _match_all(self) -> None:
        """Has the detections at hand matched."""
        self._match([detections.image_id for detections in self._unmatched], self._unmatched)
        self._unmatched = []

    def _match(self, image_ids: Sequence[int], batch: Sequence[Detections]) -> None:
        """Has a batch of detections matched with the ground truth of its images, which need not all have detections."""
        images = [self.ground_truth.images[image_id] for image_id in image_ids]
        targets_of = {image_id: self._targets(image_id) for image_id in image_ids}
        targets = [target for targets in targets_of.values() for target in targets]
        countable = [self.countable_detections(detections, targets_of[detections.image_id]) for detections in batch]
        for each, matcher in self._matchers.items():
            if each == PROPOSAL:
                everything = [target for image_id in image_ids for target in self.ground_truth.annotations(image_id)]
                matcher.match(images, *as_proposals(everything, batch))
            else:
                matcher.match(images, targets, countable)

    def _targets(self, image_id: int) -> list[dict[str, Any]]:
        targets = map(self.evaluated_target, self.ground_truth.annotations(image_id))
        return [t for t in targets if t is not None and t['category_id'] in self.evaluated_categories]

    def _conclude(self, shards: Sequence[_Shard]) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """The figures and the per-class table of all processes together; writes the result files."""
        for iou_type in self._parts:
            parts = [shard.parts[iou_type] for shard in shards]
            join_parts([part for part in parts if part is not None], self._results_path(iou_type))
        if self.format_only:
            return {}, []
        if len(shards) > 1:
            self._matchers = {
                iou_type: type(own).merged([shard.matchers[iou_type] for shard in shards])
                for iou_type, own in self._matchers.items()
            }
        expected = self.ground_truth.images.keys() if self.counts_untested else set()
        unseen = list(expected - set().union(*(shard.seen for shard in shards)))
        for first in range(0, len(unseen), IMAGES_AT_A_TIME):
            self._match(unseen[first : first + IMAGES_AT_A_TIME], [])
        return self._figures()

    def _figures(self) -> tuple[dict[str, float], list[dict[str, Any]]]:
        figures: dict[str, float] = {}
        class_ap: dict[str, list[float]] = {}
        for iou_type, matcher in self._matchers.items():
            official = matcher.figures()
            if iou_type == PROPOSAL:
                figures |= {name: official[theirs] for name, theirs in PROPOSAL_FIGURES.items()}
                continue
            own = {name: official[theirs] for name, theirs in self.figures.items()}
            if self.class_figures:
                class_ap[iou_type] = [official.get(f'AP/{category_id}', math.nan) for category_id in self.categories]
            if self.class_figures and self.class_frequency is not None:
                own |= average_precision_by_bin(class_ap[iou_type], self.class_frequency.instance_count, self.bins)
            if self.class_figures and self.classwise:
                names = (f'{category["name"]}_precision' for category in self.categories.values())
                own |= dict(zip(names, class_ap[iou_type], strict=True))
            figures |= {f'{iou_type}_{name}': figure for name, figure in own.items()}
        return figures, self._per_class(class_ap)

    def _per_class(self, class_ap: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
        frequency = self.class_frequency
        return [
            {
                'name': category['name'],
                'category_id': category_id,
                'frequency': category.get('frequency'),
                'train_instances': None if frequency is None else int(frequency.instance_count[label]),
                'train_images': None if frequency is None else int(frequency.image_count[label]),
            }
            | {f'{iou_type}_AP': ap[label] for iou_type, ap in class_ap.items()}
            for label, (category_id, category) in enumerate(self.categories.items())
        ]
