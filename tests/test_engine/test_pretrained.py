"""`init_cfg=dict(type='Pretrained')` reads files, addresses and OpenMMLab's names, and runs nothing they hold."""
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModule
from torch import nn

import mmdet.engine  # noqa: F401  (registers the readers)
from mmdet.errors import CheckpointError


class Net(BaseModule):
    def __init__(self, checkpoint: str) -> None:
        super().__init__(dict(type='Pretrained', checkpoint=checkpoint))
        self.layer = nn.Linear(2, 3)


class Trap:
    def __reduce__(self):
        return Path.touch, (Path('sprung'),)


@pytest.fixture()
def folder(tmp_path, monkeypatch):
    """The working directory, and torch's cache of downloads in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', lambda *_, **__: pytest.fail('downloads'))
    (tmp_path / 'checkpoints').mkdir()
    return tmp_path


@pytest.mark.parametrize(
    'checkpoint, file',
    [
        ('weights.pth', 'weights.pth'),
        ('https://example.org/some/net.pth', 'checkpoints/net.pth'),
        ('open-mmlab://detectron2/resnet50_caffe', 'checkpoints/resnet50_msra-5891d200.pth'),
        ('open-mmlab://resnet50_caffe', 'checkpoints/resnet50_caffe-788b5fa3.pth'),
    ],
)
def test_weights_are_read_and_traps_are_not_sprung(folder, checkpoint, file):
    weights = nn.Linear(2, 3).state_dict(prefix='layer.')
    torch.save(dict(state_dict=weights), folder / file)
    net = Net(checkpoint)
    net.init_weights()
    torch.testing.assert_close(net.state_dict(), dict(weights), rtol=0, atol=0)

    torch.save(dict(state_dict=weights, meta=Trap()), folder / file)
    with pytest.raises(CheckpointError, match=Path(file).name):
        Net(checkpoint).init_weights()
    assert not (folder / 'sprung').exists()


def test_a_name_nobody_published():
    with pytest.raises(CheckpointError, match='open-mmlab://resnet51: OpenMMLab has no such weights'):
        Net('open-mmlab://resnet51').init_weights()
