"""A registered detector without a RoI head is trained and tested, and refused by calibration in one line."""
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import nn

from mmdet import apis
from mmdet.engine import latest_checkpoint
from mmdet.errors import ConfigError
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS

from . import tiny


class FindsTheMiddle(BaseModel):
    """One box in the middle of every image, of class 0, with a score that is learnt."""

    def __init__(self, data_preprocessor=None, init_cfg=None):
        super().__init__(MODELS.build(data_preprocessor), init_cfg)
        self.logit = nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'loss':
            return dict(loss_cls=(self.logit - inputs.mean().sigmoid()).square().sum())
        for sample in data_samples:
            height, width = sample.ori_shape
            box = torch.tensor([[width / 4, height / 4, 3 * width / 4, 3 * height / 4]])
            label = torch.zeros(1, dtype=torch.int64)
            sample.pred_instances = InstanceData(bboxes=box, scores=self.logit.sigmoid(), labels=label)
        return data_samples


@MODELS.register_module()
class PlainModel(FindsTheMiddle):
    """As mmengine knows models."""


@MODELS.register_module()
class DetectorWithoutBoxHeads(FindsTheMiddle, BaseDetector):
    """As this project knows detectors, with nothing to calibrate."""


def config_for(glyphs, work_dir, kind):
    config = tiny.tiny_config(glyphs, work_dir, 'quickstart/calibrate.py', test_evaluator__metric='bbox')
    config.model = dict(type=kind, data_preprocessor=config.model.data_preprocessor)
    return config


@pytest.mark.parametrize('kind', ['PlainModel', 'DetectorWithoutBoxHeads'])
def test_it_is_trained_and_tested(glyphs, tmp_path, kind):
    config = config_for(glyphs, tmp_path, kind)
    config.train_cfg.max_iters = config.default_hooks.checkpoint.interval = 1
    apis.train(config)
    figures = apis.test(config, latest_checkpoint(tmp_path))
    assert list(figures) == ['base'] and 'lvis/bbox_AP' in figures['base']


@pytest.mark.parametrize(
    ('kind', 'message'),
    [
        ('PlainModel', 'model.type=PlainModel is no BaseDetector .mmdet/models/detectors/base.py., so it cannot'),
        ('DetectorWithoutBoxHeads', 'model.type=DetectorWithoutBoxHeads has no box heads, so there is nothing to'),
    ],
)
def test_it_is_not_calibrated(glyphs, tmp_path, kind, message):
    config = config_for(glyphs, tmp_path, kind)
    model = MODELS.build(config.model)
    torch.save(dict(meta={}, state_dict=model.state_dict()), tmp_path / 'base.pth')
    with pytest.raises(ConfigError, match=message) as error:
        apis.calibrate(config, tmp_path / 'base.pth')
    assert '\n' not in str(error.value)
