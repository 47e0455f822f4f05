"""`init_cfg=dict(type='Pretrained')` reads files, addresses and OpenMMLab's names, and runs nothing they hold."""
import hashlib
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.runner.checkpoint import get_external_models
from torch import nn

from mmdet.engine import read_checkpoint
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


@pytest.fixture()
def web(folder, monkeypatch):
    """What lies at each address, and the addresses that were downloaded."""
    pages, downloaded = {}, []

    def download(url: str, path: str, progress: bool) -> None:
        downloaded.append(url)
        torch.save(pages[url], path)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    return pages, downloaded


def test_each_address_has_its_own_place_in_the_cache(web):
    pages, downloaded = web
    addresses = [
        *(f'https://example.org/{run}/latest.pth' for run in ('a', 'b')),
        *(f'https://example.org/download?name={run}.pth' for run in ('a', 'b')),
        'https://example.net/a/latest.pth',
    ]
    pages.update({url: {'layer': torch.tensor([float(number)])} for number, url in enumerate(addresses)})
    for _ in range(2):
        assert [read_checkpoint(url)['state_dict']['layer'].item() for url in addresses] == [0, 1, 2, 3, 4]
    assert downloaded == addresses


@pytest.mark.parametrize(
    ('name', 'is_taken'),
    [('net-{hash}.pth', True), ('net_20200131-{hash}.pth', True), ('net-01234567.pth', False), ('net.pth', False)],
)
def test_a_file_of_another_program_is_taken_where_its_name_says_its_content(folder, web, name, is_taken):
    pages, downloaded = web
    torch.save({'layer': torch.tensor([1.0])}, folder / 'old.pth')
    name = name.format(hash=hashlib.sha256((folder / 'old.pth').read_bytes()).hexdigest()[:8])
    (folder / 'old.pth').rename(folder / 'checkpoints' / name)
    url = f'https://example.org/{name}'
    pages[url] = {'layer': torch.tensor([2.0])}
    assert read_checkpoint(url)['state_dict']['layer'].item() == (1 if is_taken else 2)
    assert downloaded == ([] if is_taken else [url])


def cached(url: str, name: str) -> str:
    """Where the file of an address lies in the cache."""
    return f'checkpoints/{name}-{hashlib.sha256(url.encode()).hexdigest()[:16]}.pth'


@pytest.mark.parametrize(
    'checkpoint, file',
    [
        ('weights.pth', 'weights.pth'),
        ('https://example.org/some/net.pth', cached('https://example.org/some/net.pth', 'net')),
        *(
            (f'open-mmlab://{name}', cached(get_external_models()[published], file))
            for name, published, file in (
                ('detectron2/resnet50_caffe', 'detectron2/resnet50_caffe', 'resnet50_msra-5891d200'),
                ('resnet50_caffe', 'detectron/resnet50_caffe', 'resnet50_caffe-788b5fa3'),
            )
        ),
    ],
)
def test_weights_are_read_and_traps_are_not_sprung(folder, checkpoint, file):
    weights = nn.Linear(2, 3).state_dict(prefix='layer.')
    torch.save(dict(state_dict=weights), folder / file)
    net = Net(checkpoint)
    net.init_weights()
    torch.testing.assert_close(net.state_dict(), dict(weights), rtol=0, atol=0)

    torch.save(dict(state_dict=weights, meta=Trap()), folder / file)
    with pytest.raises(CheckpointError, match='holds `pathlib.Path`, which is not data'):
        Net(checkpoint).init_weights()
    assert not (folder / 'sprung').exists()


def test_a_name_nobody_published():
    with pytest.raises(CheckpointError, match='open-mmlab://resnet51: OpenMMLab has no such weights'):
        Net('open-mmlab://resnet51').init_weights()
