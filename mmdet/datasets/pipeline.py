"""A pipeline: transforms, one after another, on the dictionary of one image."""
from collections.abc import Callable, Sequence

from mmdet.registry import TRANSFORMS


class Pipeline:
    """Transforms applied in turn.

    Args:
        transforms: configs, or callables from dict to dict.
    """

    def __init__(self, transforms: Sequence[dict | Callable[[dict], dict]]):
        self.transforms = [TRANSFORMS.build(each) if isinstance(each, dict) else each for each in transforms]

    def __call__(self, results: dict) -> dict:
        """What the last transform returns."""
        for transform in self.transforms:
            results = transform(results)
        return results
