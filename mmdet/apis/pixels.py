"""Images in memory, in whatever form they come, as their files would have given them."""
import numpy as np

from mmdet.errors import ImageError


def bgr_pixels(image: np.ndarray, name: str) -> np.ndarray:
    """One image as (H, W, 3) BGR uint8.

    Args:
        image: (H, W, 3) BGR, (H, W, 4) BGR and alpha, which is dropped, or (H, W) or (H, W, 1) grey, with values from 0
            to 255 in any integer or float type. Fractions are rounded.
        name: of the image, for the message.

    Raises:
        ImageError: an array that is no such image, and what to do about it.
    """
    channels = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else 0
    if channels not in (1, 3, 4) or 0 in image.shape:
        raise ImageError(
            f'{name}: an array of shape {image.shape} is no image; give (height, width, 3) in BGR order, with an alpha '
            f'channel or not, or (height, width) of grey'
        )
    values = _as_bytes(image, name).reshape(*image.shape[:2], channels)
    return np.ascontiguousarray(values.repeat(3, axis=2) if channels == 1 else values[..., :3])


def _as_bytes(image: np.ndarray, name: str) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind not in 'iuf':
        raise ImageError(f'{name}: an array of {image.dtype} is no image; give values from 0 to 255')
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= 255):  # NaN is neither
        raise ImageError(f'{name}: has values from {low} to {high}; bring them to the range from 0 to 255')
    if image.dtype.kind == 'f' and high <= 1 and (image % 1 > 0).any():
        raise ImageError(f'{name}: has values from {low:g} to {high:g}; multiply by 255 what goes from 0 to 1')
    return np.rint(image).astype(np.uint8)
