"""mmdetection 3's part of `whole_image.py`, for the Python of an environment of its own.

    PYTHON benchmarks/whole_image_mmdetection.py FOLDER ROUNDS

FOLDER holds `model.py` (the model config), `weights.pth` and `image.pth` (the network's input). Printed is a JSON
object: `seconds` of every round, `mb` that they add to the peak memory, and the detections.
"""
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from pycocotools import mask as coco_mask

from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules


def main(folder: Path, num_rounds: int) -> None:
    register_all_modules()
    model = MODELS.build(Config.fromfile(folder / 'model.py').model).eval()
    model.load_state_dict(torch.load(folder / 'weights.pth', weights_only=True))
    image = torch.load(folder / 'image.pth', weights_only=True)
    size = tuple(image.shape[2:])
    Path('/proc/self/clear_refs').write_text('5')  # the peak begins anew (Linux)
    before = peak_mb()
    seconds = []
    for _ in range(num_rounds):
        shapes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), size)
        sample = DetDataSample(metainfo=dict(shapes, scale_factor=(1.0, 1.0)))
        start = time.perf_counter()
        with torch.inference_mode():
            found = model.predict(image, [sample])[0].pred_instances
        for bitmap in found.masks.numpy():
            coco_mask.encode(np.asfortranarray(bitmap, dtype=np.uint8))
        seconds.append(time.perf_counter() - start)
    detections = {name: found[name].tolist() for name in ('bboxes', 'scores', 'labels')}
    print(json.dumps(dict(seconds=seconds, mb=peak_mb() - before, **detections)))


def peak_mb() -> float:
    """Peak resident memory of this process; `ru_maxrss` would begin with that of the process that started it."""
    peak = next(line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('VmHWM'))
    return int(peak.split()[1]) / 1024


if __name__ == '__main__':
    main(Path(sys.argv[1]), int(sys.argv[2]))
