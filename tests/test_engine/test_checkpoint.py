"""Checkpoints: written whole or not at all, read without running anything, loaded strictly."""
import os
import pickle
import resource
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from mmdet.engine import (
    fingerprint,
    latest_checkpoint,
    load_matching_weights,
    load_weights,
    read_checkpoint,
    save_checkpoint,
)
from mmdet.engine.checkpoint import plain
from mmdet.errors import CheckpointError, ConfigError
from mmdet.registry import MODELS

X32 = dict(groups=32, base_width=4)


class Runs:
    """What a malicious pickle holds: a call of anything."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


class Detector(nn.Module):
    """Parameters with a two-stage detector's names and nothing else."""

    def __init__(self, depth=50, classes=80, agnostic=False, stages=0, mask=True, channels=16):
        super().__init__()
        blocks = {50: (2, 3), 101: (2, 5), 18: (2, 2)}[depth]
        self.backbone = nn.ModuleDict({'conv1': nn.Conv2d(3, 4, 7, bias=False), 'bn1': nn.BatchNorm2d(4)})
        for i, number in enumerate(blocks, 1):
            kernel = 3 if depth == 18 else 1
            layer = nn.Sequential(*(nn.ModuleDict({'conv1': nn.Conv2d(4, 4, kernel)}) for _ in range(number)))
            self.backbone[f'layer{i}'] = layer
        self.neck = nn.ModuleDict({'fpn_convs': nn.ModuleList([nn.Conv2d(4, channels, 1)])})
        self.rpn_head = nn.ModuleDict({'rpn_cls': nn.Conv2d(channels, 3, 1)})
        box = [self.box_head(classes, agnostic) for _ in range(stages or 1)]
        masks = nn.ModuleDict({'conv_logits': nn.Conv2d(4, 1 if agnostic else classes, 1)})
        self.roi_head = nn.ModuleDict({'bbox_head': nn.ModuleList(box) if stages else box[0]})
        if mask:
            self.roi_head['mask_head'] = masks
        self.register_buffer('mean', torch.zeros(3), persistent=False)

    @staticmethod
    def box_head(classes, agnostic):
        return nn.ModuleDict({
            'fc_cls': nn.Linear(8, classes + 1),
            'fc_reg': nn.Linear(8, 4 if agnostic else 4 * classes),
            'shared_fcs': nn.ModuleList([nn.Linear(4, 8)]),
        })  # fmt: skip


def written(path, **contents):
    torch.save(contents, path)
    return path


def message_of(path):
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    assert '\n' not in str(error.value) and str(path) in str(error.value)
    return str(error.value)


def test_write_and_read_back(tmp_path):
    path = tmp_path / 'folder' / 'a.pth'
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    meta = dict(classes=('a', 'b'), score=np.float64(0.5), count=np.int64(3), none=None, flag=np.bool_(True))
    save_checkpoint(dict(state_dict=OrderedDict(w=torch.ones(2)), meta=meta, log=dict(loss=buffer)), path)
    assert os.listdir(path.parent) == ['a.pth']
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint['meta'] == dict(classes=('a', 'b'), score=0.5, count=3, none=None, flag=True)
    assert checkpoint['log']['loss']['log_history'].tolist() == [1, 2]
    assert read_checkpoint(path)['state_dict']['w'].tolist() == [1, 1]


def test_only_plain_data_is_written():
    with pytest.raises(TypeError, match='checkpoint.meta.1 is a Detector, which a checkpoint cannot hold'):
        plain(dict(meta=[1, Detector()]), 'checkpoint')


@pytest.mark.parametrize('existing', [True, False])
def test_full_disk_leaves_things_as_they_were(tmp_path, existing):
    path = tmp_path / 'a.pth'
    if existing:
        save_checkpoint(dict(state_dict=dict(w=torch.ones(2))), path)
    before = path.read_bytes() if existing else None
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r'a\.pth: could not be written \(File too large\); free some space'):
            save_checkpoint(dict(state_dict=dict(w=torch.ones(1_000_000))), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == (['a.pth'] if existing else [])
    assert not existing or path.read_bytes() == before


def test_disk_that_fills_up_within_a_tensor(tmp_path, monkeypatch):
    from mmdet.utils import files

    def write(self, data, write=files._WatchedFile.write):
        return write(self, data) if len(data) < 1000 else self._fail()

    def fail(self):
        self.failure = OSError(28, 'No space left on device')
        raise self.failure

    monkeypatch.setattr(files._WatchedFile, '_fail', fail, raising=False)
    monkeypatch.setattr(files._WatchedFile, 'write', write)
    with pytest.raises(CheckpointError, match='No space left on device'):
        save_checkpoint(dict(state_dict=dict(w=torch.ones(10_000))), tmp_path / 'a.pth')
    assert os.listdir(tmp_path) == []


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(CheckpointError, match='could not be written'):
        save_checkpoint(dict(state_dict={}), tmp_path / 'file' / 'a.pth')


def test_missing_file(tmp_path):
    assert message_of(tmp_path / 'none.pth').endswith('no such checkpoint file')


def test_file_cut_short(tmp_path):
    path = written(tmp_path / 'a.pth', state_dict=dict(w=torch.ones(100)), meta={})
    whole = path.read_bytes()
    for length in [0, 1, 2, 10, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert 'cut short' in message_of(path) or 'not a checkpoint' in message_of(path)


def test_older_format_cut_short(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict=dict(w=torch.ones(100))), path, _use_new_zipfile_serialization=False)
    assert read_checkpoint(path)['state_dict']['w'].sum() == 100
    whole = path.read_bytes()
    for length in range(0, len(whole), 50):
        path.write_bytes(whole[:length])
        message_of(path)


def test_other_files(tmp_path):
    path = tmp_path / 'a.pth'
    path.write_text('an image')
    assert 'of another kind' in message_of(path)
    torch.save([1, 2], path)
    assert 'holds a list instead of a dict' in message_of(path)
    torch.save(dict(epoch=3), path)
    assert 'no `state_dict` of named tensors' in message_of(path)


@pytest.mark.parametrize(
    'unsafe',
    [
        Runs(os.system, 'touch was_run'),
        Runs(eval, '1 + 1'),
        Runs(getattr, HistoryBuffer, '__init__'),
        Runs(getattr, 'a string', 'join'),
        Runs(exec, 'import os'),
        Runs(pickle.loads, b'N.'),
    ],
)
def test_nothing_is_run(tmp_path, monkeypatch, unsafe):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / 'a.pth', state_dict={}, meta=unsafe)
    assert 'refused' in message_of(path)
    assert os.listdir(tmp_path) == ['a.pth']


def test_mmengine_checkpoints_are_read(tmp_path):
    """What mmdetection 3's checkpoints hold beside weights: log buffers with their methods, and numpy data."""
    buffer = HistoryBuffer([1.0, 3.0], [1, 1])
    hub = dict(
        log_scalars=OrderedDict({'train/loss': buffer}), runtime_info=dict(score=np.float32(0.25), n=np.int64(3))
    )
    state = dict(weight=np.arange(3), names=np.array(['a', 'b']), flags=np.array([True]))
    path = written(tmp_path / 'a.pth', state_dict=dict(w=torch.ones(2)), message_hub=hub, meta=state)
    checkpoint = read_checkpoint(path)
    assert checkpoint['message_hub']['log_scalars']['train/loss'].mean() == 2
    assert checkpoint['message_hub']['runtime_info'] == dict(score=0.25, n=3)
    assert checkpoint['meta']['weight'].tolist() == [0, 1, 2]
    assert checkpoint['meta']['names'].tolist() == ['a', 'b']


def test_bare_state_dict(tmp_path):
    path = written(tmp_path / 'a.pth', w=torch.ones(2))
    checkpoint = read_checkpoint(path)
    assert (list(checkpoint['state_dict']), checkpoint['meta']) == (['w'], {})


def test_names_are_the_models_own_whatever_was_wrapped_around_it(tmp_path, soiled):
    weights = Detector().state_dict()
    for path in (
        written(tmp_path / 'ours.pth', state_dict=soiled(weights), meta={}),
        written(tmp_path / 'bare.pth', **soiled(weights)),
        written(tmp_path / 'theirs.pth', model=soiled(weights), epoch=1),
    ):
        found = read_checkpoint(path)['state_dict']
        assert list(found) == list(weights)
        assert all(torch.equal(found[name], weights[name]) for name in weights)
    model = Detector()
    load_weights(model, dict(state_dict=soiled(weights)), 'a.pth')
    assert fingerprint(model.state_dict()) == fingerprint(weights)
    assert load_matching_weights(model, dict(state_dict=soiled(weights)), 'a.pth') == []


def test_two_tensors_of_one_name_are_refused(tmp_path):
    twice = {'module.w': torch.ones(2), 'w': torch.ones(2)}
    assert list(read_checkpoint(written(tmp_path / 'a.pth', **twice))['state_dict']) == ['w']
    for other in (torch.zeros(2), torch.ones(3), torch.ones(2, dtype=torch.int64)):
        message = message_of(written(tmp_path / 'a.pth', **dict(twice, w=other)))
        assert 'holds `w` more than once' in message


def test_latest_checkpoint_is_found(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    (tmp_path / 'last_checkpoint').write_text('/gone/epoch_3.pth')
    assert latest_checkpoint(tmp_path) is None
    (tmp_path / 'epoch_3.pth').touch()
    assert latest_checkpoint(tmp_path) == tmp_path / 'epoch_3.pth'


def mismatch(model, other):
    with pytest.raises(CheckpointError) as error:
        load_weights(model, dict(state_dict=other.state_dict()), 'a.pth')
    assert '\n' not in str(error.value)
    return str(error.value)


def test_weights_are_loaded_strictly():
    model, other = Detector(), Detector()
    state = OrderedDict((f'module.{name}', tensor) for name, tensor in other.state_dict().items())
    del state['module.backbone.bn1.num_batches_tracked']
    load_weights(model, dict(state_dict=state), 'a.pth')
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ('model', 'other', 'parts'),
    [
        (dict(classes=1230), dict(), ['roi_head.bbox_head.fc_cls.weight', '(81, 8)', '(1231, 8)',
                                      'model.roi_head.bbox_head.num_classes (80 in the checkpoint)']),
        (dict(agnostic=True), dict(), ['roi_head.bbox_head.fc_reg.weight', '(320, 8)', '(4, 8)',
                                       'model.roi_head.bbox_head.reg_class_agnostic (False in the checkpoint)']),
        (dict(), dict(agnostic=True), ['reg_class_agnostic (True in the checkpoint)']),
        (dict(depth=101), dict(), ['`backbone.layer2.3.conv1.weight` of the model is missing', 'model.backbone.depth']),
        (dict(), dict(depth=101), ['`backbone.layer2.3.conv1.weight` of the checkpoint is not in the model',
                                   'model.backbone.depth']),
        (dict(), dict(depth=18), ['backbone.layer1.0.conv1.weight', '(4, 4, 3, 3)', 'model.backbone.depth']),
        (dict(stages=3), dict(stages=2), ['roi_head.bbox_head.2.fc_cls.weight', 'missing', 'roi_head.num_stages']),
        (dict(stages=3), dict(), ['roi_head.bbox_head.0.fc_cls.weight', 'num_stages (the checkpoint has one stage)']),
        (dict(), dict(stages=3), ['roi_head.bbox_head.fc_cls.weight', 'num_stages (the checkpoint has several']),
        (dict(stages=3, classes=3), dict(stages=3), ['roi_head.bbox_head.0.fc_cls.weight', 'bbox_head.num_classes']),
        (dict(), dict(mask=False), ['roi_head.mask_head.conv_logits.weight', 'missing', 'model.roi_head.mask_head']),
        (dict(channels=32), dict(), ['neck.fpn_convs.0.weight', 'model.neck (in_channels, out_channels']),
    ],
)  # fmt: skip
def test_mismatch_names_the_parameter_and_the_config_key(model, other, parts):
    message = mismatch(Detector(**model), Detector(**other))
    assert message.startswith('a.pth: ')
    assert all(part in message for part in parts), message


@pytest.mark.filterwarnings('ignore:.*is a no-op')
@pytest.mark.parametrize(
    ('model', 'other', 'key'),
    [
        (dict(), X32, 'type, groups and base_width (groups=32, base_width=4 in the checkpoint)'),
        (dict(groups=64, base_width=4), X32, 'type, groups and base_width (groups=32, base_width=4 in the checkpoint)'),
        (dict(groups=16, base_width=8), X32, 'type, groups and base_width (groups=32, base_width=4 in the checkpoint)'),
        (X32, dict(), 'type, groups and base_width (a ResNet in the checkpoint)'),
        (dict(), dict(dcn=dict(type='DCN')), 'dcn and stage_with_dcn'),
        (dict(dcn=dict(type='DCNv2')), dict(dcn=dict(type='DCN')), 'dcn and stage_with_dcn'),
        (dict(depth=101), dict(), 'depth'),
        (dict(depth=50), dict(depth=18), 'depth'),
    ],
)
def test_backbones_of_another_kind(model, other, key):
    def backbone(depth=50, **options):
        kind = 'ResNeXt' if 'groups' in options else 'ResNet'
        with torch.device('meta'):
            detector = nn.Module()
            stages = (False, True, True, True)
            detector.backbone = MODELS.build(dict(type=kind, depth=depth, stage_with_dcn=stages, **options))
        return detector

    message = mismatch(backbone(**model), backbone(**other))
    assert message.startswith('a.pth: `backbone.layer')
    assert f'check model.backbone.{key}' in message


def test_box_heads_of_another_loss():
    def head(num_classes, loss_cls):
        detector = nn.Module()
        detector.roi_head = nn.Module()
        options = dict(in_channels=1, roi_feat_size=1, num_classes=num_classes, loss_cls=loss_cls)
        detector.roi_head.bbox_head = MODELS.build(dict(type='BBoxHead', **options))
        return detector

    seesaw, softmax = dict(type='SeesawLoss', num_classes=5), dict(type='CrossEntropyLoss')
    key = 'check model.roi_head.bbox_head.loss_cls (the checkpoint was trained'
    assert f'{key} with SeesawLoss)' in mismatch(head(5, softmax), head(5, seesaw))
    assert f'{key} without SeesawLoss)' in mismatch(head(5, seesaw), head(5, softmax))
    eqlv2, eql = dict(type='EQLV2Loss', num_classes=5), dict(type='EQLLoss')
    assert f'{key} with EQLV2Loss)' in mismatch(head(5, softmax), head(5, eqlv2))
    assert f'{key} with SeesawLoss)' in mismatch(head(5, eqlv2), head(5, seesaw))
    assert f'{key} without EQLV2Loss)' in mismatch(head(5, eqlv2), head(5, softmax))
    of_background = 'check model.roi_head.bbox_head.num_classes and loss_cls, which may have no logit of background'
    assert f'{of_background} (5 in the checkpoint)' in mismatch(head(5, softmax), head(5, eql))
    assert f'{of_background} (6 in the checkpoint)' in mismatch(head(5, eql), head(5, softmax))
    other = mismatch(head(5, seesaw), head(7, dict(seesaw, num_classes=7)))
    assert 'check model.roi_head.bbox_head.num_classes and loss_cls.num_classes (7 in the checkpoint)' in other


def test_mask_head_of_another_kind():
    model, other = Detector(), Detector()
    model.roi_head['mask_head']['conv_logits'] = nn.Conv2d(4, 1, 1)
    assert 'model.roi_head.mask_head.class_agnostic (False in the checkpoint)' in mismatch(model, other)


def test_calibrator_on_one_side_only():
    model, other = Detector(), Detector()
    model.roi_head['calibrator'] = nn.Linear(2, 2)
    assert 'not calibrated; calibrate it with tools/calibrate.py' in mismatch(model, other)
    assert 'the model has no calibrator' in mismatch(other, model)


def test_checkpoint_of_something_else():
    message = mismatch(Detector(), nn.Linear(2, 2))
    assert 'is no checkpoint of this model' in message and '`weight`' in message and 'model.type' in message


def test_matching_weights_for_fine_tuning():
    model, other = Detector(classes=3), Detector(classes=80)
    kept = load_matching_weights(model, dict(state_dict=other.state_dict()), 'a.pth')
    assert torch.equal(model.backbone['conv1'].weight, other.backbone['conv1'].weight)
    assert kept[0] == 'roi_head.bbox_head.fc_cls.weight'
    with pytest.raises(CheckpointError, match='is no checkpoint of this model'):
        load_matching_weights(model, dict(state_dict=dict(a=torch.ones(1))), 'a.pth')


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm', 'mpi'])
def test_launcher_without_its_environment(launcher, monkeypatch):
    from mmdet.engine import start_processes

    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=f'--launcher {launcher}: RANK is not set; start the tool with'):
        start_processes(launcher)
