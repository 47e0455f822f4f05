"""Several views of one image, for test-time augmentation."""
import copy
from collections.abc import Sequence
from itertools import product

from mmcv.transforms import BaseTransform

from mmdet.datasets.pipeline import Pipeline
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class TestTimeAug(BaseTransform):
    """Every combination of one transform of each list, in order, makes a view: two scales and two flips make four.

    Where the last list packs, the result is `inputs` and `data_samples`, each a list with one for every view.

    Args:
        transforms: lists of configs of transforms.
    """

    __test__ = False  # whatever its name says to pytest

    def __init__(self, transforms: Sequence[Sequence[dict]]):
        self.views = [Pipeline(combination) for combination in product(*transforms)]

    def transform(self, results: dict) -> dict[str, list]:
        """All views of one image, `flip` being False where none of a view's transforms decides on it."""
        views = [view(dict(copy.deepcopy(results), flip=False, flip_direction=None)) for view in self.views]
        return {key: [view[key] for view in views] for key in views[0]}
