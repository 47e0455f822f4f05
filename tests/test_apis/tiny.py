"""The quickstart's detector on a GlyphLT of a few images, for tests that go the whole road."""
from pathlib import Path

from mmengine import Config

from mmdet.engine import load_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
NUM_CLASSES = 8


def tiny_options(data: Path, **changes) -> dict:
    """`--cfg-options` that make a quickstart config small; `a__b` in `changes` stands for `a.b`."""
    options = {
        'train_dataloader.batch_size': 2,
        'train_dataloader.num_workers': 0,
        'test_dataloader.num_workers': 0,
        'test_dataloader.batch_size': 2,
        'model.roi_head.bbox_head.num_classes': NUM_CLASSES,
        'model.roi_head.mask_head.num_classes': NUM_CLASSES,
        'model.test_cfg.rpn.max_per_img': 40,
        'model.test_cfg.rcnn.max_per_img': 20,
        'train_cfg.max_iters': 2,
        'val_dataloader': None,
        'val_evaluator': None,
        'val_cfg': None,
        'calibration.max_steps': 2,
        'calibration.num_workers': 0,
        'test_evaluator.ann_file': str(data / 'annotations/glyph_lt_val.json'),
    }
    for split in ('train', 'test'):
        options[f'{split}_dataloader.dataset.data_root'] = str(data)
    return options | {key.replace('__', '.'): value for key, value in changes.items()}


def tiny_config(data: Path, work_dir: Path, name: str = 'quickstart/base.py', **changes) -> Config:
    """A quickstart config made small."""
    config = load_config(CONFIGS / name, tiny_options(data, **changes))
    config.work_dir = str(work_dir)
    return config
