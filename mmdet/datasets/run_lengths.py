"""COCO's run-length encodings, looked at before they are used."""
import numpy as np
from pycocotools import mask as coco_mask


def compressed_counts(rle: dict, height: int, width: int) -> bytes:
    """Check an RLE of a mask of `height` x `width` pixels, as JSON has it, compressed or not.

    Returns:
        Its compressed run lengths; b'' where it is not one of this size.
    """
    counts, size = rle.get('counts'), rle.get('size')
    if size != [height, width] or not counts or not isinstance(counts, list | str):
        return b''
    try:
        lengths = _run_lengths(counts) if isinstance(counts, str) else np.array(counts, dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        return b''
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != height * width:
        return b''
    if isinstance(counts, str):
        return counts.encode()
    return coco_mask.frPyObjects(dict(size=size, counts=lengths.tolist()), height, width)['counts']


def _run_lengths(compressed: str) -> np.ndarray:
    """Decode COCO's compressed run lengths, which pycocotools would decode without looking whether they fit.

    A number is written 5 bits a character, lowest first, in two's complement, the sixth bit saying that more
    follow; from the fourth on it is the difference from the length before the last.
    """
    bits = np.frombuffer(compressed.encode('ascii'), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(bits & 0x20 == 0) + 1
    if bits.min() < 0 or bits.max() > 63 or not len(ends) or ends[-1] != len(bits):
        raise ValueError('not run lengths')
    begins = np.concatenate([[0], ends[:-1]])
    digit = np.arange(len(bits)) - np.repeat(begins, ends - begins)
    lengths = np.add.reduceat((bits & 0x1F) << 5 * digit, begins)
    lengths -= np.where(bits[ends - 1] & 0x10, 1 << 5 * (ends - begins), 0)
    lengths[1::2] = np.cumsum(lengths[1::2])
    lengths[2::2] = np.cumsum(lengths[2::2])
    return lengths
