"""Figures under other names than their own: mmdetection's, and without the metric's prefix."""
from collections.abc import Iterable, Mapping
from typing import Any


class NamedFigures(dict):
    """Figures by their own names, which are found by others too; these are not among its keys.

    Args:
        figures: name -> figure.
        other_names: another name -> the name.
    """

    def __init__(self, figures: Mapping[str, float], other_names: Mapping[str, str]):
        super().__init__(figures)
        self._other_names = other_names

    def __missing__(self, name: str) -> float:
        return super().__getitem__(self._other_names[name])

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or super().__contains__(self._other_names.get(name))

    def get(self, name: str, default: Any = None) -> Any:
        """The figure of any of its names."""
        return self[name] if name in self else default


def other_names(prefix: str, names: Iterable[str], aliases: Mapping[str, str]) -> dict[str, str]:
    """What figures may be called as well, with and without their metric's prefix.

    Args:
        prefix: put before every figure's name, with a slash.
        names: of the figures, without prefix: `bbox_AP`, `segm_cat_precision`.
        aliases: mmdetection's name of a figure -> ours, without `bbox_` or `segm_`.

    Returns:
        Another name -> the name with its prefix. mmdetection does not tell the precisions of a class's boxes and of its
        masks apart, and gives the last.
    """
    found = {}
    for name in names:
        iou_type, _, figure = name.partition('_')
        others = [name, *(f'{iou_type}_{theirs}' for theirs, ours in aliases.items() if ours == figure)]
        if figure.endswith('_precision'):
            others.append(figure)
        for other in others:
            found[other] = found[f'{prefix}/{other}'] = f'{prefix}/{name}'
    return found
