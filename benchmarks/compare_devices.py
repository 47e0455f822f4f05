"""Train, calibrate and test the quickstart's detector for a few steps on two devices, and compare what comes out.

Both devices start each task from the same files, so that one's arithmetic is compared with the other's, and not what
many steps make of a last digit: the first losses of training and of calibration, and the detections of one
calibrated checkpoint. Exits with 1 where they differ by more than rounding does.
"""
import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as coco_mask

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever else is called mmdet

from mmdet.apis.quickstart import SETTINGS
from mmdet.datasets.generation import generate_glyph_lt
from mmdet.engine import latest_checkpoint

BASE, CALIBRATION = 'configs/quickstart/base.py', 'configs/quickstart/calibrate.py'
ROOT = Path(__file__).resolve().parents[1]
STEPS = 60
# Largest relative difference of a loss. Devices add in different orders, and every step feeds the difference back.
FIRST_LOSS_TOLERANCE = 1e-4
LOSSES_COMPARED, LOSS_TOLERANCE = 5, 0.02
# Share of either device's detections that the other must have too: same image, class and place, nearly the same score.
MATCHED = 0.99
SAME_IOU, SAME_SCORE = 0.99, 1e-3


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--devices', nargs=2, choices=['cpu', 'cuda'], default=['cpu', 'cuda'], metavar='DEVICE')
    parser.add_argument('--steps', type=int, default=STEPS, help='of training and of calibration')
    parser.add_argument('--work-dir', type=Path, help='kept afterwards; default: a temporary directory')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if 'cuda' in args.devices and not torch.cuda.is_available():
        print('error: PyTorch finds no CUDA device here', file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as temporary:
        work_dir = args.work_dir or Path(temporary)
        generate_glyph_lt(work_dir / 'data', train_images=96, val_images=48)
        checks = compare(work_dir, args.devices, args.steps)
    for text, agrees in checks:
        print(f'{"ok      " if agrees else "DIFFERS "}{text}')
    return 0 if all(agrees for _, agrees in checks) else 1


def compare(work_dir: Path, devices: list[str], steps: int) -> list[tuple[str, bool]]:
    """What was compared, in words, and whether it agrees."""
    folders = [work_dir / f'{place}_{device}' for place, device in enumerate(devices)]
    first = folders[0]
    for folder, device in zip(folders, devices, strict=True):
        run('train', [BASE], folder / 'base', work_dir / 'data', device, {'train_cfg.max_iters': steps})
    checkpoint = str(latest_checkpoint(first / 'base'))
    for folder, device in zip(folders, devices, strict=True):
        options = {'calibration.max_steps': steps}
        run('calibrate', [CALIBRATION, checkpoint], folder / 'calibrated', work_dir / 'data', device, options)
    calibrated = str(first / 'calibrated/calibrated.pth')
    for folder, device in zip(folders, devices, strict=True):
        outputs = ['--scores', ','.join(SETTINGS), '--out', str(folder / 'detections.pkl')]
        run('test', [CALIBRATION, calibrated, *outputs], folder / 'tested', work_dir / 'data', device, {})
    return [
        compare_losses('training', *(losses(folder / 'base') for folder in folders)),
        compare_losses('calibration', *(losses(folder / 'calibrated') for folder in folders)),
        *compare_detections(*(pickle.loads((folder / 'detections.pkl').read_bytes()) for folder in folders)),
    ]


def run(tool: str, arguments: list[str], work_dir: Path, data: Path, device: str, options: dict[str, int]) -> None:
    """Run one of the tools on a device, on the generated data, logging every step."""
    settings = options | {
        'train_dataloader.dataset.data_root': data,
        'test_dataloader.dataset.data_root': data,
        'test_evaluator.ann_file': data / 'annotations/glyph_lt_val.json',
        'default_hooks.logger.interval': 1,
        'log_processor.window_size': 1,
    }
    command = [sys.executable, f'tools/{tool}.py', *arguments, '--work-dir', str(work_dir), '--cfg-options']
    command += [f'{name}={value}' for name, value in settings.items()]
    # TF32 keeps three decimal digits of float32's seven; the comparison is of full precision.
    environment = dict(os.environ, NVIDIA_TF32_OVERRIDE='0')
    if device == 'cpu':
        environment['CUDA_VISIBLE_DEVICES'] = ''
    print(f'{tool} on {device}', flush=True)
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)


def losses(work_dir: Path) -> np.ndarray:
    """The total losses of the first steps, from the log."""
    log = next(work_dir.glob('*/vis_data/scalars.json'))
    records = [json.loads(line) for line in log.read_text().splitlines()]
    return np.array([record['loss'] for record in records if 'loss' in record][:LOSSES_COMPARED])


def compare_losses(what: str, ours: np.ndarray, theirs: np.ndarray) -> tuple[str, bool]:
    difference = np.abs(ours - theirs) / np.abs(ours)
    text = f'{what}: the first loss differs by {difference[0]:.1e}, {len(ours)} losses by {difference.max():.1e}'
    return text, difference[0] < FIRST_LOSS_TOLERANCE and difference.max() < LOSS_TOLERANCE


def compare_detections(ours: list[dict], theirs: list[dict]) -> list[tuple[str, bool]]:
    """One check for each score setting."""
    checks = []
    for setting in SETTINGS:
        name = f'pred_instances_{setting}'
        pairs = [(a[name], b[name]) for a, b in zip(ours, theirs, strict=True)]
        found = np.concatenate([is_found(a, b) for one, other in pairs for a, b in ((one, other), (other, one))])
        text = f'test, {setting}: {found.mean():.2%} of {len(found)} detections agree'
        checks.append((text, found.mean() >= MATCHED))
    return checks


def is_found(ours: dict, theirs: dict) -> np.ndarray:
    """(N,) bool: which of an image's detections the other device has too, boxes and masks alike."""
    same_class = ours['labels'][:, None] == theirs['labels']
    same_score = np.abs(ours['scores'][:, None] - theirs['scores']) < SAME_SCORE
    same_mask = coco_mask.iou(ours['masks'], theirs['masks'], [False] * len(theirs['masks'])) > SAME_IOU
    same_box = np.abs(ours['bboxes'][:, None] - theirs['bboxes']).max(axis=-1) < 0.5
    empty = same_box & (coco_mask.area(ours['masks'])[:, None] == 0) & (coco_mask.area(theirs['masks']) == 0)
    return (same_class & same_score & same_box & (same_mask | empty)).any(axis=1)


if __name__ == '__main__':
    sys.exit(main())
