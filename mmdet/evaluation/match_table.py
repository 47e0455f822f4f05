"""A table of matched detections, filled image by image, from which all figures of LVIS's protocols can be computed."""
import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmdet.errors import UserError
from mmdet.utils.files import written_whole

from .federated_truth import TruthCounts
from .greedy_matching import EVERY_THRESHOLD
from .image_overlaps import Matches
from .ranked_matches import RankedMatches

DETECTIONS_PER_IMAGE = 300
FREQUENCIES = ('r', 'c', 'f')
POOLS = ('all', *FREQUENCIES)
ROWS_BEYOND_LIMIT = 1 << 20
"""So many rows more than its class limit allows a table takes before it looks which of them are the best."""

_NO_LIMIT = -1


class Rows(NamedTuple):
    """N detections; those of an image and class lie together, best first, equal ones as they were detected.

    Attributes:
        images: (N,) int32, the image's number.
        labels: (N,) int32.
        scores: (N,) float64.
        matched: (N, A) uint16, see `Matches`.
        ignored: (N, A) uint16, see `Matches`.
        places: (N,) int64, by which equal detections of a class are ordered at a class limit.
    """

    images: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    places: np.ndarray

    def select(self, index: np.ndarray) -> 'Rows':
        """Those at some positions or under a mask, (N,)."""
        return Rows(*(column[index] for column in self))

    @classmethod
    def joined(cls, parts: Sequence['Rows']) -> 'Rows':
        """The rows of all parts, in their order."""
        return cls(*map(np.concatenate, zip(*parts, strict=True)))


class MatchTable:
    """The matched detections of one score setting on the images of a set, under one protocol's limits.

    Both limits are applied before anything else: a detection that counts nowhere takes up a place, too. The official
    protocol has 300 an image; AP-fixed and AP-pool have 10,000 a class and no limit an image. Where both are given, the
    one of the image comes first. Equal scores at a limit go by the order in which they were detected, and over images
    by ascending image id.

    A row takes 24 + 4 A bytes, A being the number of area ranges. Without a class limit, detections that count nowhere
    have none. With one there are at most `per_class` rows of a class, and a million more while the table is filled.

    Papers: Gupta et al., "LVIS: A Dataset for Large Vocabulary Instance Segmentation", CVPR 2019; Dave et al.,
    "Evaluating Large-Vocabulary Object Detectors: The Devil is in the Details", 2021 (AP-fixed, AP-pool).

    Args:
        counts: of the ground truth, of all images, whether they are tested or not.
        per_image: detections that an image may have; None is no limit.
        per_class: detections that a class may have over the set; None is no limit.
    """

    def __init__(self, counts: TruthCounts, per_image: int | None = DETECTIONS_PER_IMAGE, per_class: int | None = None):
        self.counts = counts
        self.per_image = per_image
        self.per_class = per_class
        self._seen = np.zeros(len(counts.image_ids), bool)
        num_areas = len(counts.areas)
        self._parts = [_no_rows(num_areas)]
        # Of each class: how many rows there are, and the score below which a row cannot be among the best.
        self._rows_of_class = np.zeros(len(counts.category_ids), np.int64)
        self._floor = np.full(len(counts.category_ids), -np.inf)
        self._rankings: dict[str, RankedMatches] = {}

    def add(self, matches: Matches, places: np.ndarray | None = None) -> None:
        """Takes over the detections of one more image.

        Args:
            matches: of the image.
            places: (N,) the detections' places in a result file, by which equal ones are ordered at a class limit;
                None: those of a file with all images by ascending id.

        Raises:
            ValueError: an image that the table has already.
        """
        if self._seen[matches.image]:
            raise ValueError(f'image {self.counts.image_ids[matches.image]} is in the table already')
        self._seen[matches.image] = True
        self._rankings.clear()
        if places is None:
            places = (matches.image << 32) + matches.places
        else:
            places = places[matches.places]
        rows = Rows(
            np.full(len(matches.labels), matches.image, np.int32),
            matches.labels.astype(np.int32),
            matches.scores,
            matches.matched,
            matches.ignored,
            places,
        )
        if self.per_image is not None:
            rows = rows.select(np.s_[: self.per_image])
        if self.per_class is None:
            rows = rows.select((rows.ignored != EVERY_THRESHOLD).any(axis=1))
        else:
            rows = rows.select(rows.scores >= self._floor[rows.labels])
        self._parts.append(rows)
        if self.per_class is not None:
            self._rows_of_class += np.bincount(rows.labels, minlength=len(self._floor))
            if np.maximum(self._rows_of_class - self.per_class, 0).sum() > ROWS_BEYOND_LIMIT:
                self._apply_class_limit()

    @property
    def rows(self) -> Rows:
        """All detections within the limits."""
        if len(self._parts) > 1:
            self._parts = [Rows.joined(self._parts)]
        if self.per_class is not None and (self._rows_of_class > self.per_class).any():
            self._apply_class_limit()
        return self._parts[0]

    def average_precision(self, weights: np.ndarray | None = None, area: str = 'all') -> np.ndarray:
        """AP of each class, the mean over IoU thresholds 0.5:0.05:0.95 and 101 recalls.

        Args:
            weights: (I,) or (W, I) non-negative integers, how often each image counts, by the order of
                `counts.image_ids`; None is once for each. A class limit is not applied anew.
            area: the area range's name.

        Returns:
            (C,) or (W, C) float64 in 0..1, NaN of a class without targets that count.
        """
        if weights is not None and weights.ndim == 2:
            return np.array([self.average_precision(each, area) for each in weights])
        return self.curves(weights, area)[0].mean(axis=1)

    def curves(self, weights: np.ndarray | None = None, area: str = 'all') -> tuple[np.ndarray, np.ndarray]:
        """Average precision and highest recall of each class at each IoU threshold: two (C, T) float64.

        Args:
            weights: (I,), see `average_precision`.
            area: the area range's name.
        """
        number = self.counts.area_number(area)
        ranked = self._ranked(f'classes, {area}', number, self._by_class)
        return ranked.curves(self.counts.positives(number, weights), weights)

    def pooled_average_precision(self, weights: np.ndarray | None = None) -> dict[str, float]:
        """AP of all classes in one ranking, and of the rare, common and frequent ones: 'all', 'r', 'c', 'f'.

        A detection of a class without targets counts as wrong wherever its image is annotated for the class.

        Args:
            weights: (I,), see `average_precision`.

        Returns:
            0..1, NaN of a pool without targets that count.
        """
        number = self.counts.area_number('all')
        positives = self.counts.positives(number, weights)
        frequency = self._frequency_numbers()
        pools = {
            'all': (self._ranked('all', number, self._in_one_pool), positives.sum(keepdims=True)),
            'by frequency': (
                self._ranked('by frequency', number, self._by_frequency),
                np.bincount(frequency, positives, minlength=len(FREQUENCIES)),
            ),
        }
        pooled = np.concatenate([ranked.curves(count, weights)[0].mean(axis=1) for ranked, count in pools.values()])
        return dict(zip(POOLS, pooled.tolist(), strict=True))

    @classmethod
    def merged(cls, tables: Sequence['MatchTable']) -> 'MatchTable':
        """The detections of several tables of the same ground truth, as those of several processes.

        An image that several tables have counts once, as the first of them has it.
        """
        merged = cls(tables[0].counts, tables[0].per_image, tables[0].per_class)
        for table in tables:
            merged._parts.append(table.rows.select(~merged._seen[table.rows.images]))
            merged._seen |= table._seen
        merged._rows_of_class = np.bincount(Rows.joined(merged._parts).labels, minlength=len(merged._floor))
        return merged

    def __getstate__(self) -> dict:
        return self.__dict__ | {'_parts': [self.rows], '_rankings': {}}

    def save(self, path: str | Path) -> None:
        """Writes the table as a compressed `.npz` of plain arrays.

        Raises:
            UserError: the folder or the disk does not take it.
        """
        limits = [_NO_LIMIT if limit is None else limit for limit in (self.per_image, self.per_class)]
        packed = io.BytesIO()
        np.savez_compressed(
            packed,
            limits=limits,
            seen=self._seen,
            **{f'counts_{name}': array for name, array in self.counts._asdict().items()},
            **{f'rows_{name}': array for name, array in self.rows._asdict().items()},
        )
        with written_whole(path) as file:
            file.write(packed.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> 'MatchTable':
        """Reads a table that `save` has written.

        Raises:
            UserError: a file that cannot be read or is no such table.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                counts = TruthCounts(*(arrays[f'counts_{name}'] for name in TruthCounts._fields))
                rows = Rows(*(arrays[f'rows_{name}'] for name in Rows._fields))
                limits = [None if limit == _NO_LIMIT else limit for limit in arrays['limits'].tolist()]
                table = cls(counts, *limits)
                table._seen = arrays['seen']
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError) as error:
            raise UserError(f'{path}: no table of matched detections ({error}); make it anew') from error
        table._parts = [rows]
        table._rows_of_class = np.bincount(rows.labels, minlength=len(table._floor))
        return table

    def _apply_class_limit(self) -> None:
        """Keeps the best rows of each class that has more than it may."""
        rows = Rows.joined(self._parts)
        crowded = np.flatnonzero(self._rows_of_class[rows.labels] > self.per_class)
        order = crowded[np.lexsort((rows.places[crowded], -rows.scores[crowded], rows.labels[crowded]))]
        labels = rows.labels[order]
        rank = np.arange(len(order)) - np.searchsorted(labels, labels)
        last = order[rank == self.per_class - 1]
        self._floor[rows.labels[last]] = rows.scores[last]
        kept = np.ones(len(rows.labels), bool)
        kept[order[rank >= self.per_class]] = False
        self._parts = [rows.select(kept)]
        self._rows_of_class = np.minimum(self._rows_of_class, self.per_class)

    def _ranked(self, name: str, area: int, grouped: Callable[[Rows], tuple]) -> RankedMatches:
        """All rows in a ranking, sorted when it is first asked for."""
        if name not in self._rankings:
            rows = self.rows
            groups, num_groups, keys = grouped(rows)
            # Equal keys keep their order, which is that of detection.
            order = np.lexsort((*keys, -rows.scores, groups))
            self._rankings[name] = RankedMatches(
                groups[order], rows.images[order], rows.matched[order, area], rows.ignored[order, area], num_groups
            )
        return self._rankings[name]

    # The groups, their number, and the keys by which equal scores are ordered, the last one first.

    def _by_class(self, rows: Rows) -> tuple:
        return rows.labels, len(self.counts.category_ids), (rows.images,)

    def _in_one_pool(self, rows: Rows) -> tuple:
        return np.zeros(len(rows.labels), np.int64), 1, (self.counts.category_ids[rows.labels], rows.images)

    def _by_frequency(self, rows: Rows) -> tuple:
        groups = self._frequency_numbers()[rows.labels]
        return groups, len(FREQUENCIES), (self.counts.category_ids[rows.labels], rows.images)

    def _frequency_numbers(self) -> np.ndarray:
        """(C,) 0, 1, 2 of a rare, common, frequent class."""
        return np.array([FREQUENCIES.index(frequency) for frequency in self.counts.frequencies.tolist()], np.int64)


def _no_rows(num_areas: int) -> Rows:
    none = np.zeros(0, np.int64)
    bits = np.zeros((0, num_areas), np.uint16)
    return Rows(none.astype(np.int32), none.astype(np.int32), none.astype(np.float64), bits, bits, none)
