"""Pictures in files."""
from pathlib import Path

import cv2
import numpy as np

from mmdet.utils.files import written_whole


def write_picture(picture: np.ndarray, path: str | Path) -> None:
    """Write an (H, W, 3) uint8 RGB picture in the format its name says; a name that says none gets `.png` behind.

    Raises:
        UserError: the folder or the disk does not take it.
    """
    path = Path(path)
    if not cv2.haveImageWriter(path.name):
        path = path.with_name(f'{path.name}.png')
    encoded = cv2.imencode(path.suffix, picture[..., ::-1])[1]
    with written_whole(path) as file:
        file.write(encoded.tobytes())
