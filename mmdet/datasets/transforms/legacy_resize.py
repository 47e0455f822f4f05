"""Resizing as mmdetection 1.x did it, for models that were trained and published with it."""
from mmdet.registry import TRANSFORMS

from .geometry import Resize, Scale


@TRANSFORMS.register_module()
class LegacyResize(Resize):
    """`Resize` with `keep_ratio` whose `scale_factor` is one number for both axes, from before sizes are rounded.

    An image of 481 x 640 that is scaled into 1333 x 800 becomes 800 x 1064: here the factor is 800 / 481 for both
    axes, and a box is given back in original pixels by dividing all of it by that.

    Args:
        scale: the longer and shorter side to fit into, in either order.
        options: further ones of `Resize`.
    """

    def __init__(self, scale: Scale, **options):
        super().__init__(scale=scale, **dict(options, keep_ratio=True))

    def resize(self, results: dict, scale: Scale) -> dict:
        """Resize one image to `scale`, whatever the constructor was given."""
        sides = results['img'].shape[:2]
        factor = min(max(scale) / max(sides), min(scale) / min(sides))
        results = super().resize(results, scale)
        return dict(results, scale_factor=(factor, factor))
