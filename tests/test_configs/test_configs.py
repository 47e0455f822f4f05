"""Every config: reads, names components and keys that exist, builds, and says what the papers say."""
import inspect
import re
from pathlib import Path

import pytest
import torch
from mmengine import Config
from mmengine import registry as root

from mmdet import registry as own
from mmdet.calibration import build_calibrator
from mmdet.engine import load_config
from mmdet.models.roi_heads.roi_outputs import RoIOutputs
from mmdet.registry import MODELS
from mmdet.structures import ClassFrequency

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
NAMES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.glob('[!_]*/**/*.py'))
REGISTRIES = [value for module in (own, root) for value in vars(module).values() if isinstance(value, root.Registry)]
HTC = 'htc/htc_x101-64x4d-dconv-c3-c5_fpn_ms-400-1400-16xb1-20e_lvis-v0.5.py'
MMDETECTIONS = [name for name in NAMES if name.startswith('lvis/') and re.search('[-_]ms-[12]x', name)]
# Losses with logits of their own: how many they have beside one for each class.
FURTHER_LOGITS = dict(SeesawLoss=2, EQLLoss=0, EQLV2Loss=1, FederatedLoss=0, FocalCustomLoss=0)
CALIBRATIONS = {
    'simcal/simcal_mask-rcnn_r50_fpn_lvis-v0.5.py': 'lvis/mask-rcnn_r50_fpn_1x_lvis-v0.5.py',
    'simcal/simcal_mask-rcnn_r50-ag_fpn_lvis-v0.5.py': 'lvis/mask-rcnn_r50-ag_fpn_1x_lvis-v0.5.py',
    'simcal/simcal-2fc-rand_mask-rcnn_r50-ag_fpn_lvis-v0.5.py': 'lvis/mask-rcnn_r50-ag_fpn_1x_lvis-v0.5.py',
    'simcal/simcal-3fc-rand_mask-rcnn_r50-ag_fpn_lvis-v0.5.py': 'lvis/mask-rcnn_r50-ag_fpn_1x_lvis-v0.5.py',
    'simcal/simcal_mask-rcnn_r50_fpn_lvis-v1.py': 'lvis/mask-rcnn_r50_fpn_1x_lvis-v1.py',
    'simcal/simcal_mask-rcnn_r50-ag_fpn_lvis-v1.py': 'lvis/mask-rcnn_r50-ag_fpn_1x_lvis-v1.py',
    'simcal/simcal_mask-rcnn_r50_fpn_coco-lt.py': 'coco_lt/mask-rcnn_r50_fpn_1x_coco-lt.py',
    'simcal/simcal_mask-rcnn_r50-ag_fpn_coco-lt.py': 'coco_lt/mask-rcnn_r50-ag_fpn_1x_coco-lt.py',
    'simcal/simcal_htc_x101-64x4d-dconv-c3-c5_fpn_lvis-v0.5.py': HTC,
    'glyph_lt/simcal.py': 'glyph_lt/mask-rcnn_r18-ag_fpn_glyph-lt.py',
    'glyph_lt/simcal_cascade-mask-rcnn_r18_fpn_glyph-lt.py': 'glyph_lt/cascade-mask-rcnn_r18_fpn_glyph-lt.py',
    'glyph_lt400/simcal.py': 'glyph_lt400/mask-rcnn_r18-ag_fpn_glyph-lt400.py',
    'quickstart/calibrate.py': 'quickstart/base.py',
    'quickstart/smoke_calibrate.py': 'quickstart/smoke_base.py',
    'real_photos/calibrate.py': 'real_photos/base.py',
}


@pytest.fixture(scope='module')
def load():
    """Configs by their names, each read once."""
    loaded = {}

    def load_once(name: str) -> Config:
        if name not in loaded:
            loaded[name] = load_config(CONFIGS / name)
        return loaded[name]

    return load_once


def components(node, path=''):
    """Every part of a config that a registry builds from its `type`, with its place."""
    if isinstance(node, dict):
        if isinstance(node.get('type'), str) and not path.endswith(('.nms', '.norm_cfg')):
            yield path, node
        for key, child in node.items():
            yield from components(child, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, child in enumerate(node):
            yield from components(child, f'{path}[{i}]')


def accepts(component, keys) -> bool:
    """Whether a class (or one of its bases, as far as it passes keywords on) or a function takes the keys."""
    unknown = set(keys)
    for cls in component.__mro__ if inspect.isclass(component) else [component]:
        function = vars(cls).get('__init__') if inspect.isclass(cls) else cls
        if function is None:
            continue
        parameters = inspect.signature(function).parameters
        unknown -= parameters.keys()
        if 'resize_type' in parameters:  # the rest of its keywords are that component's
            resize = own.TRANSFORMS.get(parameters['resize_type'].default)
            unknown -= inspect.signature(resize).parameters.keys()
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    return not unknown


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_components_and_their_keys_exist(load, name):
    for path, part in components(load(name)._cfg_dict.to_dict()):
        found = {registry.get(part['type']) for registry in REGISTRIES} - {None}
        assert found, f'{path}: no component {part["type"]}'
        keys = part.keys() - {'type', '_scope_'}
        assert any(accepts(component, keys) for component in found), f'{path}: {part["type"]} does not take {keys}'


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_model_builds(load, name):
    config = load(name)
    with torch.device('meta'):
        detector = MODELS.build(config.model)
        box_heads = detector.roi_head.bbox_heads
        (num_classes,) = {head.num_classes for head in box_heads}
        assert all(head.num_classes == num_classes for head in box_heads)
        for head in box_heads:
            assert head.fc_cls.out_features == num_classes + FURTHER_LOGITS.get(type(head.loss_cls).__name__, 1)
        mask_head = detector.roi_head.mask_head if detector.roi_head.with_mask else []
        mask_heads = mask_head if isinstance(mask_head, (torch.nn.ModuleList, list)) else [mask_head]
        assert all(head.num_classes == num_classes for head in mask_heads)
        assert detector.roi_head.with_mask or config.model.type == 'FasterRCNN'
        if 'calibration' in config:
            frequency = ClassFrequency([str(i) for i in range(num_classes)], [1] * num_classes, [1] * num_classes)
            calibrator = build_calibrator(config.calibration.calibrator, detector, frequency)
            for stage, head in enumerate(box_heads):
                feats = torch.empty(2, head.in_channels, 7, 7)
                assert calibrator.logits(RoIOutputs(head, feats), stage).shape == (2, num_classes + 1)


def test_every_calibration_config_has_its_base(load):
    assert CALIBRATIONS.keys() == {name for name in NAMES if 'calibration' in load(name)}


@pytest.mark.parametrize(('name', 'base'), CALIBRATIONS.items())
def test_calibration_adds_to_its_base_and_changes_nothing(load, name, base):
    calibrated, base = load(name)._cfg_dict.to_dict(), load(base)._cfg_dict.to_dict()
    calibrated.pop('calibration')
    assert calibrated == base


@pytest.mark.parametrize(
    'name', [name for name in NAMES if name.startswith(('lvis/', 'coco_lt/')) and name not in MMDETECTIONS]
)
def test_base_training_is_the_papers(load, name):
    config = load(name)
    assert config.optim_wrapper.optimizer == dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)
    assert config.optim_wrapper.clip_grad.max_norm == 35
    assert config.train_cfg.max_epochs == 12
    warmup, steps = config.param_scheduler
    assert (warmup.start_factor, warmup.end, steps.milestones) == (1 / 3, 500, [8, 11])
    assert config.model.train_cfg.rpn_proposal == dict(
        nms_pre=2000, max_per_img=2000, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0
    )
    assert config.model.test_cfg.rpn.max_per_img == 1000
    rcnn = config.model.test_cfg.rcnn
    assert (rcnn.score_thr, rcnn.max_per_img) == ((0.05, 100) if name.startswith('coco_lt/') else (0.0, 300))
    agnostic = 'r50-ag' in name
    assert config.model.roi_head.bbox_head.reg_class_agnostic is agnostic
    assert config.model.roi_head.mask_head.get('class_agnostic', False) is agnostic


@pytest.mark.parametrize('name', [name for name in NAMES if name.startswith(('glyph_lt', 'quickstart/'))])
def test_glyph_lt_is_tested_as_lvis_is(load, name):
    config = load(name)
    assert (config.model.test_cfg.rcnn.score_thr, config.model.test_cfg.rcnn.max_per_img) == (0.0, 300)
    assert config.test_evaluator.type == 'LVISMetric'
    classes = config.generation['classes']
    assert classes == (400 if name.startswith('glyph_lt400/') else 60)
    heads = config.model.roi_head.bbox_head
    assert all(head.num_classes == classes for head in (heads if isinstance(heads, list) else [heads]))
    assert config.train_dataloader.dataset.data_root == config.test_dataloader.dataset.data_root == config.data_root


def test_htc_is_the_papers(load):
    config = load(HTC)
    assert config.optim_wrapper.optimizer == dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4)
    assert (config.train_cfg.max_epochs, config.train_dataloader.batch_size) == (20, 1)
    warmup, steps = config.param_scheduler
    assert (warmup.start_factor, warmup.end, steps.milestones, steps.end) == (1 / 3, 500, [16, 19], 20)
    backbone = config.model.backbone
    assert (backbone.type, backbone.depth, backbone.groups, backbone.base_width) == ('ResNeXt', 101, 64, 4)
    assert backbone.stage_with_dcn == (False, True, True, True)
    dataset = config.train_dataloader.dataset
    assert dataset.data_prefix.seg == 'stuffthingmaps/train2017/'
    (loading,) = [part for part in dataset.pipeline if part.type == 'LoadAnnotations']
    (resizing,) = [part for part in dataset.pipeline if part.type == 'RandomResize']
    assert loading.with_seg
    assert resizing.scale == [(1600, 400), (1600, 1400)]
    assert config.model.roi_head.semantic_head.num_classes == 183
    assert config.model.data_preprocessor.pad_seg
    assert (config.model.test_cfg.rcnn.score_thr, config.model.test_cfg.rcnn.max_per_img) == (0.0, 300)


@pytest.mark.parametrize('name', MMDETECTIONS)
def test_lvis_training_is_mmdetections(load, name):
    config = load(name)
    assert config.optim_wrapper.optimizer == dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4)
    epochs, milestones = (24, [16, 22]) if '-2x_' in name else (12, [8, 11])
    assert config.train_cfg.max_epochs == config.param_scheduler[1].end == epochs
    assert config.param_scheduler[1].milestones == milestones
    dataset = config.train_dataloader.dataset
    repeated = 'sample1e-3' in name or 'irfs1e-3' in name
    assert (dataset.type == 'ClassBalancedDataset') == repeated
    if repeated:
        assert (dataset.oversample_thr, dataset.get('instance_aware', False)) == (1e-3, 'irfs' in name)
        dataset = dataset.dataset
    assert (dataset.type, dataset.ann_file) == ('LVISV1Dataset', 'lvis_v1_train.json.zip')
    (resizing,) = [part for part in dataset.pipeline if part.type == 'RandomChoiceResize']
    assert resizing.scales == [(1333, side) for side in range(640, 801, 32)]
    assert (config.model.test_cfg.rcnn.score_thr, config.model.test_cfg.rcnn.max_per_img) == (1e-4, 300)
    depth, kind = (50, 'ResNet') if 'r50' in name else (101, 'ResNeXt' if 'x101' in name else 'ResNet')
    assert (config.model.backbone.depth, config.model.backbone.type) == (depth, kind)
    assert ('NormedConv2d' in str(config.model)) == ('normed-mask' in name)
    assert ('SeesawLoss' in str(config.model)) == ('NormedLinear' in str(config.model)) == ('seesaw' in name)


FOR_THE_TAIL = {
    'eql-loss_random': dict(type='EQLLoss', lambda_=0.0011),
    'eqlv2-loss_random': dict(type='EQLV2Loss', num_classes=1203),
    'federated-loss_random': dict(type='FederatedLoss'),
    'focal-loss_random': dict(type='FocalCustomLoss', num_classes=1203),
    'cas': dict(type='ClassAwareSampler', num_sample_class=1),
    'irfs1e-3': dict(type='ClassBalancedDataset', oversample_thr=1e-3, instance_aware=True),
}


@pytest.mark.parametrize(('kind', 'expected'), FOR_THE_TAIL.items())
def test_training_for_the_tail_changes_one_part_of_its_base(load, kind, expected):
    base = load('lvis/mask-rcnn_r50_fpn_random-ms-1x_lvis-v1.py')._cfg_dict.to_dict()
    config = load(f'lvis/mask-rcnn_r50_fpn_{kind}-ms-1x_lvis-v1.py')._cfg_dict.to_dict()
    if kind == 'cas':
        place, key = 'train_dataloader', 'sampler'
    elif kind == 'irfs1e-3':
        place, key = 'train_dataloader', 'dataset'
        expected = expected | dict(dataset=base[place][key])
    else:
        place, key = 'bbox_head', 'loss_cls'
    of_base, of_config = (c[place] if place in c else c['model']['roi_head'][place] for c in (base, config))
    assert of_config[key] == expected != of_base[key]
    of_config[key] = of_base[key]
    assert config == base


def test_configs_of_the_page_on_the_tail_are_those_of_the_folder(load, tmp_path):
    document = (CONFIGS.parent / 'docs/training_for_the_tail.md').read_text()
    named = re.findall(r'configs/(lvis/[\w.-]+\.py)', document)
    assert {f'lvis/mask-rcnn_r50_fpn_{kind}-ms-1x_lvis-v1.py' for kind in FOR_THE_TAIL} <= set(named) <= set(NAMES)
    lines = dict(re.findall(r'^\| `([\w-]+)` \| `(dict\(.*?\))` \|', document, re.MULTILINE))
    base = CONFIGS / 'lvis/mask-rcnn_r50_fpn_random-ms-1x_lvis-v1.py'
    text = f"_base_ = '{base}'\nmodel = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(_delete_=True, **{{}}))))\n"
    assert lines.keys() == {'EQLLoss', 'EQLV2Loss', 'FederatedLoss', 'FocalCustomLoss'}
    for kind, line in lines.items():
        (tmp_path / 'config.py').write_text(text.format(line))
        with torch.device('meta'):
            detector = MODELS.build(load_config(tmp_path / 'config.py').model)
        assert type(detector.roi_head.bbox_head.loss_cls).__name__ == kind


@pytest.mark.parametrize(
    ('name', 'head', 'threshold'),
    [
        ('simcal/simcal_mask-rcnn_r50-ag_fpn_lvis-v0.5.py', '3fc_ft', 100),
        ('simcal/simcal-2fc-rand_mask-rcnn_r50-ag_fpn_lvis-v0.5.py', '2fc_rand', 100),
        ('simcal/simcal-3fc-rand_mask-rcnn_r50-ag_fpn_lvis-v0.5.py', '3fc_rand', 100),
        ('simcal/simcal_mask-rcnn_r50_fpn_lvis-v1.py', '3fc_ft', 100),
        ('simcal/simcal_mask-rcnn_r50-ag_fpn_coco-lt.py', '3fc_ft', 400),
    ],
)
def test_calibration_is_the_papers(load, name, head, threshold):
    calibration = load(name).calibration
    assert calibration.calibrator == dict(type='SimCal', head=head, threshold=threshold)
    assert (calibration.sampler.classes_per_step, calibration.sampler.tau) == (16, 0)
    assert calibration.optim_wrapper.optimizer == dict(type='SGD', lr=0.01, momentum=0, weight_decay=0)
    assert calibration.max_steps == 12000
    assert calibration.param_scheduler[0].milestones == [7000, 10000]


@pytest.mark.parametrize(('version', 'num_classes'), [('0.5', 1230), ('1', 1203)])
def test_lvis_configs_agree_with_the_data_set(load, version, num_classes):
    config = load(f'lvis/mask-rcnn_r50_fpn_1x_lvis-v{version}.py')
    assert config.model.roi_head.bbox_head.num_classes == num_classes
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert loader.dataset.type == {'0.5': 'LVISV05Dataset', '1': 'LVISV1Dataset'}[version]
        assert f'v{version}' in loader.dataset.ann_file
    assert config.val_evaluator.ann_file == f'data/LVIS/lvis_v{version}_val.json.zip' == config.test_evaluator.ann_file


def test_configs_of_the_documents_load(tmp_path):
    document = (CONFIGS.parent / 'docs/calibration.md').read_text()
    base, calibration = re.findall(r'```python\n(_base_.*?)```', document, re.DOTALL)
    (tmp_path / 'base.py').write_text(base.replace("'../", f"'{CONFIGS}/"))
    (tmp_path / 'simcal.py').write_text(calibration.replace("'../", f"'{CONFIGS}/"))
    config = load_config(tmp_path / 'simcal.py')
    assert config.model.roi_head.bbox_head.num_classes == config.model.roi_head.mask_head.num_classes == 37
    for split in ('val', 'test'):
        loader, evaluator = config[f'{split}_dataloader'], config[f'{split}_evaluator']
        assert loader.dataset.type == 'CocoDataset'
        assert loader.dataset.data_root + loader.dataset.ann_file == evaluator.ann_file == 'mydata/val_lvis.json'
    assert config.train_dataloader.dataset.ann_file == 'train_lvis.json'
    assert config.calibration.calibrator.head == '3fc_ft'


@pytest.mark.slow
def test_configs_of_the_page_on_other_detectors_load_and_build(tmp_path):
    document = (CONFIGS.parent / 'docs/other_detectors.md').read_text()
    swin, base, calibration = re.findall(r'```python\n(_base_.*?)```', document, re.DOTALL)
    for name, text in dict(swin=swin, base=base, simcal=calibration).items():
        (tmp_path / f'{name}.py').write_text(text.replace("'../", f"'{CONFIGS}/"))
    assert MODELS.build(load_config(tmp_path / 'swin.py').model).backbone.out_channels == [96, 192, 384, 768]
    config = load_config(tmp_path / 'simcal.py')
    assert config.model.roi_head.bbox_head.num_classes == config.model.roi_head.mask_head.num_classes == 37
    assert config.model.roi_head.type == 'TorchvisionRoIHead'
    assert config.test_dataloader.dataset.data_root + config.test_dataloader.dataset.ann_file == 'mydata/val.json'
    assert config.test_evaluator.ann_file == 'mydata/val.json'
    for name in re.findall(r'(?:configs|tools)/[\w/.-]+\.py', document):
        assert 'mydata' in name or (CONFIGS.parent / name).is_file(), name
