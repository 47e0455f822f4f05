"""Which visits of an image see it anew, and which see it as an earlier visit did.

The detector is frozen, so what it makes of an image changes from one visit to the next only by the random part of the
pipeline (the flip) and of the choice of RoIs. A *view* is what one visit saw; later visits may share it.
"""
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mmdet.utils.seeding import keyed_torch_rng, keyed_uniforms

_VIEW_STREAM = 2  # beside the bi-level sampler's streams of classes and of images
_REVISIT = (0, 1)  # sets a revisit's own choices apart from all RoI draws of the visit of that number


class View(NamedTuple):
    """An image as the pipeline and the RoI sampler make it at one draw, of which it is a pure function.

    Attributes:
        index: of the image in the data set.
        seed: of the stream of draws.
        number: of the draw in the stream.
    """

    index: int
    seed: int
    number: int


@dataclass(frozen=True)
class Visit:
    """One draw of the stream, and the view of its image that it sees.

    Attributes:
        number: of the draw.
        drawn_class: label the image was drawn for.
        view: what it sees; its own (of its own number), or that of an earlier visit.
        image: what the pipeline makes of the view, where no bank keeps it.
    """

    number: int
    drawn_class: int
    view: View
    image: dict | None = None

    @property
    def is_first(self) -> bool:
        """Whether the view is its own, so that everything is as it would be without a bank."""
        return self.view.number == self.number

    def own_choices(self) -> AbstractContextManager:
        """A context in which torch's CPU generator is this revisit's own."""
        return keyed_torch_rng(self.view.seed, self.number, *_REVISIT)


def share_views(images: np.ndarray, seed: int, visits_per_view: int) -> np.ndarray:
    """Let visits of the same image share their views.

    An image with v visits has ceil(v / visits_per_view) views. Its first visits see one each, their own; every other
    visit sees any of them, each as likely as another.

    Args:
        images: (N,) the image that each draw of the stream visits.
        seed: of the stream.
        visits_per_view: at least 1; with 1 every visit has its own view.

    Returns:
        (N,) int64, for each visit the number of the visit whose view it sees.
    """
    by_image = np.argsort(images, kind='stable')
    _, first, image, num_visits = np.unique(
        images[by_image], return_index=True, return_inverse=True, return_counts=True
    )
    ordinal = np.arange(len(images)) - first[image]
    num_views = -(-num_visits // visits_per_view)[image]
    chance = keyed_uniforms(np.arange(len(images)), seed, _VIEW_STREAM)[by_image]
    chosen = np.where(ordinal < num_views, ordinal, (chance * num_views).astype(int))
    views = np.empty(len(images), np.int64)
    views[by_image] = by_image[first[image] + chosen]
    return views
