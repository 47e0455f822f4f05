"""Do our metrics give the figures of the implementations that define them?

    python benchmarks/metric_parity.py --oracle ../shared/oracle/metrics
    python benchmarks/metric_parity.py --oracle FOLDER [FOLDER ...] [--annotations FILE]

Each folder, or each one inside the folder given, holds detections in the official result format
(`detections_*.json.gz`) and, in `expected.json`, the figures that other implementations made of them, with their
settings: AP, AP-fixed, AP-pool and boundary AP. Ours come from `LVISMetric`, where it has such a protocol, and from a
`MatchTable`. For each setting the worst difference is printed, and that of the classes' AP where `per_class_ap.json.gz`
has them. Exit status 1 where any is beyond 1e-9, 2 where a folder cannot be compared.
"""
import argparse
import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from common import print_table
from hotcoco import mask as rle

from mmdet.errors import UserError
from mmdet.evaluation import LVISMetric
from mmdet.evaluation.detections import Detections
from mmdet.evaluation.federated_truth import AREA_RANGES, FederatedTruth
from mmdet.evaluation.ground_truth import GroundTruth, read_ground_truth
from mmdet.evaluation.image_overlaps import ImageOverlaps
from mmdet.evaluation.lvis_protocols import PROTOCOLS, Protocol
from mmdet.evaluation.match_table import MatchTable
from mmdet.evaluation.table_figures import lvis_figures, pooled_figures

CLOSE = 1e-9
ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--oracle', type=Path, nargs='+', required=True, help='folders, or folders of folders')
    parser.add_argument(
        '--annotations', type=Path, help='ground truth; default: as expected.json names it, there or in a data above'
    )
    args = parser.parse_args()
    return max(report(folder, args.annotations) for path in args.oracle for folder in reference_folders(path))


def report(path: Path, annotations: Path | None) -> int:
    """Compare and print one folder: 0 where it agrees, 1 where it does not, 2 where it cannot be compared."""
    try:
        differences = compare(path, annotations)
    except (FileNotFoundError, KeyError, UserError) as error:
        print(f'\n{path}: CANNOT BE COMPARED: {error}', flush=True)
        return 2
    agrees = all(each.passed for each in differences)
    print(f'\n{path}: {"agrees" if agrees else "DISAGREES"}')
    rows = [[it.figure, it.by, f'{it.worst:.1e}', it.where, 'ok' if it.passed else 'NO'] for it in differences]
    print_table(['', 'computed by', 'worst', 'of', ''], rows)
    sys.stdout.flush()
    return 0 if agrees else 1


def reference_folders(path: Path) -> list[Path]:
    """The folder itself if it holds figures of detections, else those in it that do; itself where there are none."""
    marker = 'detections_*.json.gz'
    if list(path.glob(marker)):
        return [path]
    return sorted({file.parent for file in path.glob(f'*/{marker}')}) or [path]


@dataclass(frozen=True)
class Difference:
    """The worst difference of one setting's figures, or of its classes' AP.

    Attributes:
        figure: the setting's name.
        by: who computed ours.
        worst: the greatest absolute difference; NaN where a figure is missing.
        where: the figure that it is of, or the number of classes.
        passed: whether it is close enough.
    """

    figure: str
    by: str
    worst: float
    where: str

    @property
    def passed(self) -> bool:
        return self.worst <= CLOSE


def compare(path: Path, annotations: Path | None = None) -> list[Difference]:
    """Every setting of a folder, each by all of ours that can have it.

    Raises:
        FileNotFoundError: a file that the folder should hold.
        UserError: annotations that cannot be used.
    """
    folder = ReferenceFolder(path, annotations)
    differences = []
    for figure, entry in folder.expected['figures'].items():
        setting = Setting.of(entry['settings'])
        ways = {'LVISMetric': by_metric, 'MatchTable': by_table} if setting.protocol_name else {'MatchTable': by_table}
        for by, compute in ways.items():
            ours = compute(setting, folder)
            differences.append(_worst(figure, by, ours, entry['values']))
            if figure in folder.class_ap:
                class_ap = {name.removeprefix('AP/'): ap for name, ap in ours.items() if name.startswith('AP/')}
                differences.append(_worst_class(figure, by, class_ap, folder.class_ap[figure]))
    return differences


def _worst(figure: str, by: str, ours: Mapping[str, float], expected: Mapping[str, float]) -> Difference:
    # What stands behind the @ is a label only, of the same limit.
    by_name = {name.split('@')[0]: value for name, value in ours.items()}
    errors = {name: abs(by_name.get(name.split('@')[0], np.nan) - value) for name, value in expected.items()}
    where = max(errors, key=lambda name: (np.isnan(errors[name]), errors[name]))
    return Difference(figure, by, errors[where], where)


def _worst_class(figure: str, by: str, ours: Mapping[str, float], expected: Mapping[str, float]) -> Difference:
    errors = [abs(ours.get(id, np.nan) - expected.get(id, np.nan)) for id in ours.keys() | expected.keys()]
    return Difference(figure, by, max(errors, key=lambda error: (np.isnan(error), error)), f'{len(errors)} classes')


@dataclass(frozen=True)
class Setting:
    """How a figure is computed.

    Attributes:
        protocol: limits, and whether classes are pooled and masks compared at their boundaries.
        shape: `'bbox'` or `'segm'`.
        area_of_box: whether a detected mask's area is that of its box.
        open_ranges: whether the upper end of an area range is outside it.
    """

    protocol: Protocol
    shape: str
    area_of_box: bool
    open_ranges: bool

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> 'Setting':
        """What a folder's `expected.json` says of a figure."""
        boundary = settings['iou_type'] == 'boundary'
        shape = 'segm' if boundary else settings['iou_type']
        limits = settings['max_dets_per_image'], settings['max_dets_per_class']
        return cls(
            Protocol(*limits, pooled='pools' in settings, boundary=boundary),
            shape,
            area_of_box=shape == 'segm' and settings.get('area_of_detection', '').startswith('box'),
            open_ranges=settings.get('area_range', '').endswith('area < upper'),
        )

    @property
    def overlap(self) -> str:
        return 'boundary' if self.protocol.boundary else self.shape

    @property
    def protocol_name(self) -> str | None:
        """What `LVISMetric` calls the protocol, whatever its class limit; None where it has no such one."""
        if self.area_of_box or self.open_ranges:
            return None
        for name, protocol in PROTOCOLS.items():
            if (protocol.per_class is None) == (self.protocol.per_class is None):
                if protocol._replace(per_class=self.protocol.per_class) == self.protocol:
                    return name
        return None


class ReferenceFolder:
    """A folder of detections and figures.

    Args:
        path: of the folder.
        annotations: the ground truth; None: the file that the folder names, in it or in a `data` folder above.
    """

    def __init__(self, path: Path, annotations: Path | None = None):
        self.path = path
        self._annotations = annotations
        self._detections: dict[str, list[Detections]] = {}

    @cached_property
    def expected(self) -> dict[str, Any]:
        return json.loads((self.path / 'expected.json').read_text())

    @cached_property
    def class_ap(self) -> dict[str, dict[str, float]]:
        """Setting -> category id -> AP, of those settings that have it."""
        path = self.path / 'per_class_ap.json.gz'
        return _read(path) if path.is_file() else {}

    @cached_property
    def ground_truth(self) -> GroundTruth:
        return read_ground_truth(self.annotations, with_masks=True)

    @cached_property
    def annotations(self) -> Path:
        if self._annotations is not None:
            return self._annotations
        name = self.expected['about']['ground_truth'].split()[0]
        folders = [self.path, *(above / 'data' for above in self.path.resolve().parents), ROOT.parent / 'shared/data']
        for folder in folders:
            for file in (folder / name, folder / f'{name}.gz'):
                if file.is_file():
                    return file
        raise FileNotFoundError(f'no {name} there or in a data folder above; give --annotations')

    def detections(self, shape: str) -> list[Detections]:
        """The boxes or masks of each image, in the file's order."""
        if shape not in self._detections:
            lines = defaultdict(list)
            for place, result in enumerate(_read(self.path / f'detections_{shape}.json.gz')):
                lines[result['image_id']].append((place, result))
            self._detections[shape] = [_of_image(image_id, of_image, shape) for image_id, of_image in lines.items()]
        return self._detections[shape]


def _read(path: Path) -> Any:
    with gzip.open(path) as file:
        return json.load(file)


def _of_image(image_id: int, lines: list[tuple[int, dict[str, Any]]], shape: str) -> Detections:
    places, results = zip(*lines, strict=True)
    masks = [result['segmentation'] for result in results] if shape == 'segm' else None
    boxes = [result['bbox'] for result in results] if masks is None else rle.toBbox(masks)
    return Detections(
        image_id,
        boxes=np.array(boxes, np.float64),
        scores=np.array([result['score'] for result in results], np.float64),
        category_ids=np.array([result['category_id'] for result in results], np.int64),
        masks=masks,
        places=np.array(places, np.int64),
    )


class MetricOfResults(LVISMetric):
    """Takes detections as a result file has them."""

    def detections_of(self, image_id: int, instances: Mapping[str, Any]) -> Detections:
        """The detections, which no model has given."""
        return instances['detections']


def by_metric(setting: Setting, folder: ReferenceFolder) -> dict[str, float]:
    """The figures of `LVISMetric`, and `AP/<category id>`."""
    limit = setting.protocol.per_class
    metric = MetricOfResults(
        folder.annotations, metric=setting.shape, protocol=setting.protocol_name, dets_per_class=limit
    )
    for detections in folder.detections(setting.shape):
        instances = {'detections': detections, 'masks': detections.masks}
        metric.process(None, [{'img_id': detections.image_id, 'pred_instances': instances}])
    figures = metric.evaluate(0)
    ours = {name.removeprefix(f'{metric.prefix}/{setting.shape}_'): figure for name, figure in figures.items()}
    class_ap = {f'AP/{row["category_id"]}': row.get(f'{setting.shape}_AP', np.nan) for row in metric.per_class}
    return ours | {name: ap for name, ap in class_ap.items() if not np.isnan(ap)}


def by_table(setting: Setting, folder: ReferenceFolder) -> dict[str, float]:
    """The figures of a `MatchTable`, and `AP/<category id>`."""
    ranges = AREA_RANGES
    if setting.open_ranges:
        ranges = {name: (lowest, np.nextafter(highest, lowest)) for name, (lowest, highest) in ranges.items()}
    truth = FederatedTruth(folder.ground_truth, area_ranges=ranges)
    table = MatchTable(truth.counts, setting.protocol.per_image, setting.protocol.per_class)
    label_of = {category_id: label for label, category_id in enumerate(truth.category_ids.tolist())}
    for detections in folder.detections(setting.shape):
        areas = detections.boxes[:, 2] * detections.boxes[:, 3] if setting.area_of_box else None
        overlaps = ImageOverlaps(
            truth.targets(detections.image_id), setting.overlap, detections.boxes, detections.masks, areas
        )
        labels = np.array([label_of[category_id] for category_id in detections.category_ids.tolist()])
        table.add(overlaps.match(np.arange(len(labels)), labels, detections.scores), detections.places)
    return pooled_figures(table) if setting.protocol.pooled else lvis_figures(table)


if __name__ == '__main__':
    sys.exit(main())
