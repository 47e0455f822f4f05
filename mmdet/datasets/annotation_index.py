"""A COCO or LVIS annotation file as a few flat arrays, which all workers share."""
from dataclasses import dataclass

import numpy as np

CROWD = 1
"""Flag of a crowd (`iscrowd`): never a positive."""
NO_OBJECT = 2
"""Flag of an annotation whose box is not usable: counted in the class frequencies, otherwise left out."""
NO_MASK = 4
"""Flag of an annotation without a usable segmentation."""
LEFT_OUT = 8
"""Flag of an annotation marked `ignore`: never a positive, and not counted where crowds are."""
IGNORED = CROWD | LEFT_OUT
"""Either of the flags that make an annotation an ignored one."""
HUNDREDTHS = 100
"""Points stored as integers are in this many parts of a pixel."""


class Strings:
    """N strings in two arrays.

    Args:
        text: (B,) uint8, UTF-8.
        start: (N + 1,) int64; string i is `text[start[i] : start[i + 1]]`.
    """

    def __init__(self, text: np.ndarray, start: np.ndarray):
        self.text = text
        self.start = start

    @classmethod
    def pack(cls, strings: list[str]) -> 'Strings':
        """From a list of strings."""
        encoded = [string.encode() for string in strings]
        return cls(np.frombuffer(b''.join(encoded), np.uint8), starts([len(string) for string in encoded]))

    def __len__(self) -> int:
        return len(self.start) - 1

    def __getitem__(self, i: int) -> str:
        return self.text[self.start[i] : self.start[i + 1]].tobytes().decode()


@dataclass(frozen=True)
class AnnotationIndex:
    """Images and instances of one annotation file, without a Python object for any of them.

    N images in the file's order; M instances ordered by image and within an image as in the file; C categories by
    ascending id.

    Attributes:
        warning: one line about annotations that were left out; '' where none were.
        category_names: of the C categories.
        category_ids: (C,) int64.
        image_ids: (N,) int64.
        image_sizes: (N, 2) int32, height and width in pixels.
        image_names, image_urls: `file_name` and `coco_url` of each image, '' where the file has none.
        first_instance: (N + 1,) int64; image i has the instances `first_instance[i]` to `first_instance[i + 1]`.
        category: (M,) int32, position among the categories.
        boxes: (M, 4) float32 xyxy in pixels.
        flags: (M,) uint8, of CROWD, NO_OBJECT, NO_MASK and LEFT_OUT.
        parts: (M, 2) int64, the first of an instance's polygons and the one behind its last.
        first_point: (P + 1,) int64; polygon p has the points `first_point[p]` to `first_point[p + 1]`.
        points: (Q, 2) x, y: int32 in hundredths of a pixel where every coordinate is a whole number of them (as in
            COCO and LVIS), else float64 in pixels.
        rle_bytes: (M, 2) int64, the first byte of an instance's compressed run lengths and the one behind its last.
        rles: (B,) uint8.
    """

    warning: str
    category_names: Strings
    category_ids: np.ndarray
    image_ids: np.ndarray
    image_sizes: np.ndarray
    image_names: Strings
    image_urls: Strings
    first_instance: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    flags: np.ndarray
    parts: np.ndarray
    first_point: np.ndarray
    points: np.ndarray
    rle_bytes: np.ndarray
    rles: np.ndarray

    @property
    def num_images(self) -> int:
        """N."""
        return len(self.image_ids)

    def image_of_instance(self) -> np.ndarray:
        """(M,) int64, which image each instance is in."""
        return np.repeat(np.arange(self.num_images), np.diff(self.first_instance))

    def instances_of(self, image: int) -> slice:
        """Where the instances of an image are."""
        return slice(int(self.first_instance[image]), int(self.first_instance[image + 1]))

    def masks_of(self, image: int) -> list[list[np.ndarray] | dict | None]:
        """The segmentation of each instance of an image.

        Returns:
            For each polygons [(k, 2) float64] in pixels, or a compressed RLE, or None.
        """
        here = self.instances_of(image)
        size = self.image_sizes[image].tolist()
        masks = []
        for parts, rle_bytes in zip(self.parts[here].tolist(), self.rle_bytes[here].tolist(), strict=True):
            if rle_bytes[0] < rle_bytes[1]:
                masks.append(dict(size=size, counts=self.rles[slice(*rle_bytes)].tobytes()))
            else:
                masks.append(self._polygons(*parts) or None)
        return masks

    def _polygons(self, first: int, last: int) -> list[np.ndarray]:
        bounds = self.first_point[first : last + 1].tolist()
        # Division, not multiplication by 0.01: it gives the very float64 that the decimal in the file stands for.
        unit = HUNDREDTHS if self.points.dtype == np.int32 else 1.0
        return [self.points[begin:end] / unit for begin, end in zip(bounds, bounds[1:], strict=False)]


def starts(lengths) -> np.ndarray:
    """Where each of several runs begins in their concatenation, and where the last ends: int64."""
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))])
