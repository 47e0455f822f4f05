"""An account of annotations that cannot be used."""
from collections import Counter

from mmdet.errors import AnnotationError

_TOLERATED_SHARE = 0.01


class Complaints:
    """What cannot be used, by kind, and the first item of all."""

    def __init__(self):
        self.count: Counter[str] = Counter()
        self.first = ''

    def add(self, kind: str, item: str) -> None:
        """Complain of one annotation, once for all that is wrong with it."""
        self.first = self.first or f'{item} ({kind})'
        self.count[kind] += 1

    def summary(self, num_records: int) -> str:
        """One line for a warning; '' where there is nothing to complain of.

        Raises:
            AnnotationError: with that line, where more than 1 % of the annotations cannot be used.
        """
        if not self.count:
            return ''
        bad = self.count.total()
        kinds = ', '.join(f'{count} {kind}' for kind, count in self.count.most_common())
        summary = f'{bad} of {num_records} annotations cannot be used as they are: {kinds}; first: {self.first}'
        if bad > _TOLERATED_SHARE * num_records:
            raise AnnotationError(summary)
        return f'{summary}; what cannot be used is left out'
