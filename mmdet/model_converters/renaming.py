"""New names for parameters, by rules."""
import re
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from mmdet.errors import CheckpointError

# A pattern for the beginning of a name, and what takes its place (None: the parameter is not needed).
Rule = tuple[str, str | Callable[[re.Match], str] | None]


def renamed(weights: Mapping[str, Tensor], rules: Sequence[Rule], path: str, source: str) -> dict[str, Tensor]:
    """Every parameter under its new name, by the first rule whose pattern its name begins with.

    Args:
        weights: by their names.
        rules: patterns and replacements.
        path: of the file, for the message.
        source: what the names should be, for the message, e.g. 'torchvision Mask or Faster R-CNN'.

    Raises:
        CheckpointError: naming the first parameter that no rule is for.
    """
    new = {}
    for name, tensor in weights.items():
        for pattern, replacement in rules:
            if match := re.match(pattern, name):
                if replacement is not None:
                    beginning = replacement(match) if callable(replacement) else match.expand(replacement)
                    new[beginning + name[match.end() :]] = tensor
                break
        else:
            raise CheckpointError(f'{path}: `{name}` is no parameter of a {source}; give the file of such a detector')
    return new
