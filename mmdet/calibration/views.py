"""Which visits of an image see it anew, and which see it as another visit did.

The detector is frozen, so what it makes of an image changes from one visit to the next only by the random part of the
pipeline (the flip) and of the choice of RoIs. A *view* is what one visit saw; later visits may share it.
"""
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mmdet.utils.seeding import keyed_torch_rng, keyed_uniforms

_VIEW_STREAM = 2  # beside the streams of classes and of images that samplers draw from
_FIXED_SEED = 0  # of views that belong to an image and not to a run
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
        seed: of the stream.
        number: of the draw.
        drawn_class: label the image was drawn for, if it was drawn for one.
        view: what it sees; its own (of its own number), or another.
        image: what the pipeline makes of the view, where no bank keeps it.
    """

    seed: int
    number: int
    drawn_class: int | None
    view: View
    image: dict | None = None

    @property
    def is_first(self) -> bool:
        """Whether the view is its own, so that everything is as it would be without a bank."""
        return (self.view.seed, self.view.number) == (self.seed, self.number)

    def own_choices(self) -> AbstractContextManager:
        """A context in which torch's CPU generator is this revisit's own."""
        return keyed_torch_rng(self.seed, self.number, *_REVISIT)


def views_of_images(images: np.ndarray, seed: int, num_images: int, views_per_image: int) -> list[View]:
    """Let every image have a few views, the same for all runs.

    Args:
        images: (N,) the image that each draw of the stream visits.
        seed: of the stream, by which each visit chooses among its image's views.
        num_images: of the data set.
        views_per_image: at least 1.

    Returns:
        The view of each visit.
    """
    chance = keyed_uniforms(np.arange(len(images)), seed, _VIEW_STREAM)
    numbers = (chance * views_per_image).astype(np.int64) * num_images + images
    return [View(image, _FIXED_SEED, number) for image, number in zip(images.tolist(), numbers.tolist(), strict=True)]


def share_views(images: np.ndarray, seed: int, visits_per_view: int) -> list[View]:
    """Let visits of the same image share their views.

    An image with v visits has ceil(v / visits_per_view) views. Its first visits see one each, their own; every other
    visit sees any of them, each as likely as another.

    Args:
        images: (N,) the image that each draw of the stream visits.
        seed: of the stream.
        visits_per_view: at least 1; with 1 every visit has its own view.

    Returns:
        The view of each visit, named by the number of the visit that sees it first.
    """
    by_image = np.argsort(images, kind='stable')
    _, first, image, num_visits = np.unique(
        images[by_image], return_index=True, return_inverse=True, return_counts=True
    )
    ordinal = np.arange(len(images)) - first[image]
    num_views = -(-num_visits // visits_per_view)[image]
    chance = keyed_uniforms(np.arange(len(images)), seed, _VIEW_STREAM)[by_image]
    chosen = np.where(ordinal < num_views, ordinal, (chance * num_views).astype(int))
    numbers = np.empty(len(images), np.int64)
    numbers[by_image] = by_image[first[image] + chosen]
    return [View(image, seed, number) for image, number in zip(images.tolist(), numbers.tolist(), strict=True)]
