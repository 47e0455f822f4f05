"""What a sampler asks a data set for: an image, and what keys its random numbers."""
from typing import NamedTuple


class Draw(NamedTuple):
    """One draw of a sampler's stream; `dataset[draw]` is a pure function of it.

    Attributes:
        index: of the image in the data set.
        seed: of the stream.
        number: of the draw in the stream of all ranks, from 0; augmentation is keyed to (seed, number).
        class_label: the class the image was drawn for, in class-balanced sampling.
    """

    index: int
    seed: int
    number: int
    class_label: int | None = None
