"""The figures of LVIS's protocols, by the names that the official evaluators give them, from a table of matches."""
import numpy as np

from .class_groups import ClassGroups
from .greedy_matching import IOU_THRESHOLDS
from .match_table import MatchTable
from .training_instance_bins import mean_of_known

LETTERS = {'all': '', 'small': 's', 'medium': 'm', 'large': 'l'}
"""The names of area ranges -> what stands behind AP and AR."""

NOTHING_TO_AVERAGE = -1.0


def lvis_figures(table: MatchTable) -> dict[str, float]:
    """AP, AP50 to AP95, APr, APc, APf, and of each area range AP and AR: APs, ARs@300, APm, ...

    There is `AP/<category id>`, too, of every category with targets that count.

    Returns:
        Figures in 0..1, -1 where there is nothing to average.
    """
    counts = table.counts
    by_threshold = table.curves()[0]
    class_ap = by_threshold.mean(axis=1)
    figures = {
        f'AP{round(100 * threshold)}': mean_of_known(by_threshold[:, number])
        for number, threshold in enumerate(IOU_THRESHOLDS.tolist())
    }
    figures |= {name: float(mean) for name, mean in ClassGroups(counts.frequencies).means(class_ap).items()}
    limit = recall_limit(table.per_image, table.per_class)
    for area in counts.areas.tolist():
        precision, recall = table.curves(area=area)
        figures[f'AP{LETTERS[area]}'] = mean_of_known(precision.mean(axis=1))
        figures[f'AR{LETTERS[area]}@{limit}'] = mean_of_known(recall.mean(axis=1))
    known = np.flatnonzero(~np.isnan(class_ap))
    figures |= {f'AP/{counts.category_ids[label]}': float(class_ap[label]) for label in known.tolist()}
    return _with_absent(figures)


def pooled_figures(table: MatchTable) -> dict[str, float]:
    """`AP-pooled-all`, and `AP-pooled-r`, `AP-pooled-c`, `AP-pooled-f` of rare, common, frequent classes.

    Returns:
        Figures in 0..1, -1 where there is nothing to average.
    """
    return _with_absent({f'AP-pooled-{pool}': ap for pool, ap in table.pooled_average_precision().items()})


def recall_limit(per_image: int | None, per_class: int | None) -> str:
    """What stands behind the @ of AR: the limit of an image's detections, or of a category's."""
    # The official `/cat` would look like a metric's prefix.
    return str(per_image) if per_class is None else f'{per_class}cat'


def _with_absent(figures: dict[str, float]) -> dict[str, float]:
    return {name: NOTHING_TO_AVERAGE if np.isnan(figure) else figure for name, figure in figures.items()}
