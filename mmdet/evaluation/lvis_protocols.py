"""What LVIS's protocols differ in: how a mask's overlap is measured, how many detections count, what is averaged."""
from typing import NamedTuple

from .match_table import DETECTIONS_PER_IMAGE
from .table_figures import recall_limit

DETECTIONS_PER_CLASS = 10_000
PRECISIONS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'APr', 'APc', 'APf')
RECALLS = ('AR', 'ARs', 'ARm', 'ARl')
POOLED_FIGURES = ('AP-pooled-all', 'AP-pooled-r', 'AP-pooled-c', 'AP-pooled-f')


class Protocol(NamedTuple):
    """One protocol.

    Attributes:
        per_image: detections that an image may have; None is no limit.
        per_class: detections that a class may have over the set; None is no limit.
        pooled: whether all classes are in one ranking.
        boundary: whether masks must overlap near their contours, too.
    """

    per_image: int | None = None
    per_class: int | None = None
    pooled: bool = False
    boundary: bool = False

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of the protocol's figures."""
        if self.pooled:
            return POOLED_FIGURES
        limit = recall_limit(self.per_image, self.per_class)
        return PRECISIONS + tuple(f'{recall}@{limit}' for recall in RECALLS)


PROTOCOLS = {
    'default': Protocol(per_image=DETECTIONS_PER_IMAGE),
    'fixed': Protocol(per_class=DETECTIONS_PER_CLASS),
    'pool': Protocol(per_class=DETECTIONS_PER_CLASS, pooled=True),
    'boundary': Protocol(per_image=DETECTIONS_PER_IMAGE, boundary=True),
    'challenge2021': Protocol(per_class=DETECTIONS_PER_CLASS, boundary=True),
}
