"""Testing on several views of each image: what the config says of it, and what goes without saying."""
import copy

from mmengine import Config
from torch import nn

from mmdet.engine import config_errors, require_keys
from mmdet.errors import ConfigError
from mmdet.registry import MODELS

from .test_pipeline import data_sets, test_pipeline


def with_test_time_augmentation(cfg: Config) -> Config:
    """A copy of a config whose test data is seen as `tta_pipeline` says, and whose `tta_model` is not missing.

    A config without `tta_pipeline` gets what mmdetection gives it, the test pipeline's view and its mirror image; one
    without `tta_model` merges them by the `nms` and `max_per_img` of its `model.test_cfg.rcnn`.

    Raises:
        ConfigError: a `tta_pipeline` that makes no views.
    """
    require_keys(cfg, 'model.test_cfg.rcnn', 'test_dataloader.dataset')
    cfg = copy.deepcopy(cfg)
    datasets = list(data_sets(cfg.test_dataloader.dataset))
    rcnn = cfg.model.test_cfg.rcnn
    cfg.setdefault('tta_model', dict(type='DetTTAModel', tta_cfg=dict(nms=rcnn.nms, max_per_img=rcnn.max_per_img)))
    cfg.setdefault('tta_pipeline', [*_loading_and_resizing(test_pipeline(cfg)), _FLIP_AND_PACK])
    if not any(transform['type'] == 'TestTimeAug' for transform in cfg.tta_pipeline):
        raise ConfigError(f'{cfg.filename or "config"}: tta_pipeline has no TestTimeAug, which makes the views')
    for dataset in datasets:
        dataset.pipeline = cfg.tta_pipeline
    return cfg


def build_tta_model(cfg: Config, detector: nn.Module) -> nn.Module:
    """The config's `tta_model` around a detector.

    Raises:
        ConfigError: a `tta_model` that cannot be built.
    """
    with config_errors(cfg):
        return MODELS.build(dict(cfg.tta_model, module=detector))


_FLIP_AND_PACK = dict(
    type='TestTimeAug',
    transforms=[
        [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)],
        [dict(type='PackDetInputs')],
    ],
)


def _loading_and_resizing(pipeline: list[dict]) -> list[dict]:
    """A test pipeline without what is not seen: its annotations, and the packing of a single view."""
    return [transform for transform in pipeline if transform['type'] not in ('LoadAnnotations', 'PackDetInputs')]
