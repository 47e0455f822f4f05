"""A detector beside its upper bound, on GlyphLT."""
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from mmdet.apis import props_gt
from mmdet.apis.test import test
from mmdet.engine import read_checkpoint, save_checkpoint
from mmdet.models.dense_heads import RPNHead

from . import tiny

TOOL = Path(__file__).resolve().parents[2] / 'tools/analysis_tools/props_gt.py'
run_test = test
del test  # pytest would take it for a test


def unmoved(checkpoint, path):
    """A copy of a checkpoint whose boxes stay where they are."""
    contents = read_checkpoint(checkpoint)
    for kind in ('weight', 'bias'):
        contents['state_dict'][f'roi_head.bbox_head.fc_reg.{kind}'].zero_()
    save_checkpoint(contents, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize('name', ['base', 'calibrated'])
def test_the_detectors_own_figures_stay(glyphs, checkpoints, tmp_path, name):
    settings = ['base'] if name == 'base' else ['base', 'dual']
    figures = props_gt(tiny.tiny_config(glyphs, tmp_path), checkpoints / f'{name}.pth')
    assert list(figures) == [*settings, 'props_gt']
    own = run_test(tiny.tiny_config(glyphs, tmp_path / 'own'), checkpoints / f'{name}.pth', scores=settings)
    for setting in settings:
        np.testing.assert_equal(figures[setting], own[setting])
    assert (tmp_path / 'test/props_gt.json').is_file()


@pytest.mark.slow
def test_perfect_proposals_have_perfect_boxes(glyphs, checkpoints, tmp_path, monkeypatch):
    def all_that_is_there(self, feats, data_samples):
        truth = [sample.gt_instances.bboxes for sample in data_samples]
        return [InstanceData(bboxes=boxes, scores=torch.full((len(boxes),), 0.9)) for boxes in truth]

    monkeypatch.setattr(RPNHead, 'predict', all_that_is_there)
    config = tiny.tiny_config(glyphs, tmp_path)
    figures = props_gt(config, unmoved(checkpoints / 'base.pth', tmp_path / 'unmoved.pth'))
    assert figures['props_gt']['lvis/bbox_AP'] > 0.99 > 0.5 > figures['base']['lvis/bbox_AP']


@pytest.mark.slow
def test_cocos_protocol(glyphs, checkpoints, tmp_path):
    config = tiny.tiny_config(glyphs, tmp_path)
    config.test_evaluator = dict(
        type='CocoMetric', ann_file=config.test_evaluator.ann_file, metric=['bbox', 'segm'], bins=(1, 20, 400, 8000)
    )
    figures = props_gt(config, checkpoints / 'base.pth')
    assert {'coco/bbox_AP', 'coco/segm_AP', 'coco/segm_AP4'} <= figures['props_gt'].keys() == figures['base'].keys()


@pytest.mark.slow
def test_the_tool(glyphs, checkpoints, tmp_path, monkeypatch, capsys):
    options = tiny.tiny_options(glyphs)
    changes = [f'{key}={value}' for key, value in options.items()]
    arguments = [str(tiny.CONFIGS / 'quickstart/calibrate.py'), str(checkpoints / 'calibrated.pth'), '--work-dir']
    arguments += [str(tmp_path), '--cfg-options', *changes]
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *arguments])
    runpy.run_path(str(TOOL), run_name='__main__')
    printed = capsys.readouterr().out
    assert all(word in printed for word in ('base', 'dual', 'props_gt', 'AP1', 'bAP', 'APr'))
    figures = json.loads((tmp_path / 'test/props_gt.json').read_text())
    assert {'lvis/bbox_AP', 'lvis/segm_AP1', 'lvis/segm_bAP'} <= figures.keys()
