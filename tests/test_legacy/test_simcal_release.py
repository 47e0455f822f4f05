"""Released files through the converter: the detector they make detects what mmdetection 1.0rc0 and SimCal did."""
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from double_precision import in_double_precision
from mmengine import Config

from mmdet.apis import init_detector
from mmdet.apis import test as run_test
from mmdet.apis.inference import inference_detector
from mmdet.engine import read_checkpoint
from mmdet.errors import AnnotationError, CheckpointError, ConfigError
from mmdet.model_converters import convert_simcal_release, count_annotations, read_counts, upgrade_mmdet
from mmdet.structures import ClassFrequency

from . import released_files
from .mmdet1_loops import Image, ReleasedModel
from .released_files import (
    CHANNELS,
    HIDDEN,
    ROOT,
    Shapes,
    assert_same_detections,
    filled,
    linear,
    released_shapes,
    write_counts,
)

COUNTS = [3, 99, 100, 101, 5000]
NUM_LOGITS = len(COUNTS) + 1


# What the release's files hold, small


def tiny_config(name: str) -> Config:
    return released_files.tiny_config(f'simcal/released/{name}', len(COUNTS))


def head_shapes(kind: str) -> Shapes:
    if kind == '2fc':
        name = 'feat_extractor'
        return linear(f'{name}.fc1', HIDDEN, CHANNELS * 49) | linear(f'{name}.fc2', NUM_LOGITS, HIDDEN)
    name = 'feat_classifier'
    shapes = linear(f'{name}.fc1', HIDDEN, CHANNELS * 49) | linear(f'{name}.fc2', HIDDEN, HIDDEN)
    return shapes | linear(f'{name}.fc_classifier', NUM_LOGITS, HIDDEN)


@pytest.fixture
def counts_file(tmp_path) -> Path:
    return write_counts(COUNTS, tmp_path / 'counts.json')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('config', 'kind'), [('r50-ag.py', '3fc'), ('r50.py', '3fc'), ('r50-ag-coco-lt.py', '2fc'), ('htc-x101.py', '2fc')]
)
def test_detections_are_those_of_the_release(config, kind, photograph, counts_file, tmp_path):
    config = tiny_config(config)
    bbox_head, test_cfg = config.model.roi_head.bbox_head, config.model.test_cfg
    stages = bbox_head if isinstance(bbox_head, list) else [bbox_head]
    weights = filled(released_shapes(config), seed=0)
    heads = [filled(head_shapes(kind), seed=1 + stage) for stage in range(len(stages))]
    torch.save(dict(state_dict=weights, meta=dict(mmdet_version='1.0rc0')), tmp_path / 'detector.pth')
    for stage, head in enumerate(heads):
        torch.save(dict(state_dict=head, meta={}), tmp_path / f'stage{stage}.pth')
    files = [tmp_path / f'stage{stage}.pth' for stage in range(len(stages))]
    convert_simcal_release(tmp_path / 'detector.pth', files, tmp_path / 'out.pth', read_counts(counts_file))

    settings = ['base', 'calibrated', 'dual']
    detector = in_double_precision(init_detector(config, tmp_path / 'out.pth', device='cpu', scores=settings))
    seen = {}
    detector.neck.register_forward_hook(lambda module, inputs, pyramid: seen.update(pyramid=pyramid))
    sample = inference_detector(detector, photograph)

    released = ReleasedModel(
        {name: tensor.double() for name, tensor in weights.items()},
        [{name: tensor.double() for name, tensor in head.items()} for head in heads],
        stds=[list(stage.bbox_coder.target_stds) for stage in stages],
        counts=COUNTS,
        threshold=100,
        nms_pre=test_cfg.rpn.nms_pre,
        max_proposals=test_cfg.rpn.max_per_img,
        score_thr=test_cfg.rcnn.score_thr,
        max_per_img=test_cfg.rcnn.max_per_img,
    )
    image = Image(sample.img_shape, sample.ori_shape, factor=80 / 71)
    for setting in settings:
        expected = released.detect(seen['pyramid'], image, setting)
        assert_same_detections(sample.get(f'pred_instances_{setting}'), expected)


# One checkpoint from many kinds of files


@pytest.fixture
def files(tmp_path, counts_file) -> dict[str, Path]:
    """A class-wise detector of mmdetection 1.x, a 3fc and a 2fc head, and counts."""
    contents = dict(
        detector=filled(released_shapes(tiny_config('r50.py')), 0),
        three=filled(head_shapes('3fc'), 1),
        two=filled(head_shapes('2fc'), 2),
    )
    paths = {name: tmp_path / f'{name}.pth' for name in contents}
    for name, weights in contents.items():
        torch.save(dict(state_dict=weights, meta=dict(mmdet_version='1.0rc0+abc')), paths[name])
    return dict(paths, counts=counts_file, out=tmp_path / 'out/model.pth')


@pytest.mark.slow
def test_the_tool_writes_one_checkpoint_and_says_what_it_found(files):
    command = [sys.executable, ROOT / 'tools/model_converters/simcal_release.py', files['detector']]
    options = ['--threshold', '400', '--counts', files['counts']]
    done = subprocess.run([*command, files['three'], *options, files['out']], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'mmdetection 1.x: its heads stand beside `rpn_head.*`' in done.stdout
    assert 'mmdet_version 1.0rc0+abc' in done.stdout
    assert '5 classes, one stage, calibrated by 3fc_ft, T = 400' in done.stdout

    meta = read_checkpoint(files['out'])['meta']
    assert meta['calibrator'] == dict(type='SimCal', head='3fc_ft', threshold=400)
    assert meta['class_frequency']['instance_count'] == COUNTS
    assert meta['dataset_meta'] == dict(classes=[f'class {i}' for i in range(5)], category_ids=[0, 10, 20, 30, 40])


def test_background_goes_last_or_out(files):
    weights = read_checkpoint(files['detector'])['state_dict']
    upgraded = upgrade_mmdet(read_checkpoint(files['detector']), 'detector.pth').weights
    before, after = weights['bbox_head.fc_cls.weight'], upgraded['roi_head.bbox_head.fc_cls.weight']
    assert torch.equal(after[5], before[0]) and torch.equal(after[:5], before[1:])
    assert torch.equal(upgraded['roi_head.bbox_head.fc_reg.bias'], weights['bbox_head.fc_reg.bias'][4:])
    assert torch.equal(upgraded['roi_head.mask_head.conv_logits.weight'], weights['mask_head.conv_logits.weight'][1:])
    unchanged = upgraded.keys() & weights.keys()
    assert all(torch.equal(upgraded[name], weights[name]) for name in unchanged)
    assert {name.split('.')[0] for name in unchanged} == {'backbone', 'neck', 'rpn_head'}


def test_names_of_wrapped_models(files, soiled):
    found = []
    for soil in (lambda weights: weights, soiled):
        for name in ('detector', 'three'):
            checkpoint = torch.load(files[name], weights_only=True)
            torch.save(dict(checkpoint, state_dict=soil(checkpoint['state_dict'])), files[name])
        convert_simcal_release(files['detector'], [files['three']], files['out'], read_counts(files['counts']))
        found.append(read_checkpoint(files['out']))
    assert found[0]['meta'] == found[1]['meta']
    assert found[0]['state_dict'].keys() == found[1]['state_dict'].keys()
    assert all(torch.equal(tensor, found[1]['state_dict'][name]) for name, tensor in found[0]['state_dict'].items())


@pytest.mark.parametrize(
    ('meta', 'version'),
    [
        (dict(mmdet_version='2.3.0', CLASSES=tuple('abcde')), '2.x'),
        (dict(mmdet_version='3.1.0', mmengine_version='0.8', dataset_meta=dict(CLASSES=tuple('abcde'))), '3.x'),
        (dict(mmdet_version='1.0rc0', CLASSES=tuple('abcde')), '2.x'),  # renamed by mmdetection 2's own upgrade script
    ],
)
def test_later_versions_keep_their_names_and_order(files, meta, version):
    weights = upgrade_mmdet(read_checkpoint(files['detector']), 'detector.pth').weights
    torch.save(dict(state_dict=weights, meta=meta), files['detector'])
    found = convert_simcal_release(files['detector'], [], files['out'])
    assert (found.detector.version, found.head) == (version, None)
    written = read_checkpoint(files['out'])
    assert all(torch.equal(written['state_dict'][name], tensor) for name, tensor in weights.items())
    assert written['meta']['dataset_meta']['classes'] == list('abcde') and 'calibrator' not in written['meta']
    init_detector(tiny_config('r50.py'), files['out'], device='cpu')


def test_files_that_do_not_belong_together_are_refused_in_one_line(files, tmp_path):
    counts = read_counts(files['counts'])

    def convert(detector='detector', heads=('three',), counts=counts):
        return convert_simcal_release(files[detector], [files[head] for head in heads], files['out'], counts)

    def refused(message, error=CheckpointError, **arguments):
        with pytest.raises(error, match=message) as caught:
            convert(**arguments)
        assert '\n' not in str(caught.value) and not files['out'].exists()

    refused('three.pth: has no `rpn_head', detector='three')
    refused('has 1 stages, and 2 heads are given', heads=['three', 'two'])
    refused('detector.pth: is no calibrated head of the release: it begins with `backbone', heads=['detector'])
    refused('need training counts: give --train-annotations or --counts', ConfigError, counts=None)
    refused('training counts are of 4 classes, the detector has 5', ConfigError, counts=of_four_classes(counts))

    other = filled(linear('feat_extractor.fc1', 9, CHANNELS * 49) | linear('feat_extractor.fc2', 81, 9), 0)
    torch.save(other, tmp_path / 'two.pth')
    refused('`feat_extractor.fc2.weight` has 81 rows, and `roi_head.bbox_head.fc_cls.weight` .* has 6', heads=['two'])

    weights = read_checkpoint(files['detector'])['state_dict']
    strange = {f'roi_head.{name}' if 'box_head' in name else name: tensor for name, tensor in weights.items()}
    torch.save(strange, files['detector'])
    refused('`roi_head.bbox_head.fc_reg.weight` has 24 rows, but `roi_head.bbox_head.fc_cls.weight` with 6 calls for 4')


def of_four_classes(counts):
    frequency = counts.frequency
    fewer = ClassFrequency(frequency.names[:4], frequency.instance_count[:4], frequency.image_count[:4])
    return counts._replace(frequency=fewer)


class Marker:
    """What a checkpoint's pickle may name; it must never be made."""

    made = 0

    def __init__(self):
        Marker.made += 1

    def __reduce__(self):
        return Marker, ()


@pytest.mark.slow
@pytest.mark.parametrize('zipped', [True, False])
def test_what_is_not_data_is_left_aside_and_never_run(files, zipped):
    """torch's files of today, and those of before 1.6 as the release has them."""
    checkpoint = read_checkpoint(files['detector'])
    checkpoint['meta'] = dict(config=Marker(), model=Config(dict(a=1)), mmdet_version='1.0rc0')
    torch.save(checkpoint, files['detector'], _use_new_zipfile_serialization=zipped)
    made = Marker.made
    found = convert_simcal_release(files['detector'], [], files['out'])
    assert Marker.made == made
    assert {name.rpartition('.')[2] for name in found.left_aside} >= {'Marker', 'Config'}
    assert read_checkpoint(files['out'])['state_dict'].keys() == found.detector.weights.keys()

    checkpoint['state_dict']['bbox_head.fc_cls.weight'] = Marker()
    torch.save(checkpoint, files['detector'], _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match='holds no `state_dict` of named tensors'):
        convert_simcal_release(files['detector'], [], files['out'])


@pytest.mark.slow
def test_a_test_run_reads_what_the_converter_writes(files, photograph, tmp_path):
    triangle = dict(bbox=[9, 9, 30, 20], area=300, iscrowd=0, segmentation=[[9, 9, 39, 9, 39, 29]])
    annotations = dict(
        images=[dict(id=1, width=96, height=71, file_name=photograph.name)],
        categories=[dict(id=10 * i, name=f'class {i}') for i in range(5)],
        annotations=[dict(id=i, image_id=1, category_id=10 * i, **triangle) for i in range(5)],
    )
    (tmp_path / 'val.json').write_text(json.dumps(annotations))
    convert_simcal_release(files['detector'], [files['two']], files['out'], read_counts(files['counts']))
    config = tiny_config('r50.py')
    config.test_dataloader.num_workers, config.test_dataloader.persistent_workers = 0, False
    config.test_dataloader.dataset.update(
        type='CocoDataset', data_root=str(tmp_path), ann_file='val.json', data_prefix=dict(img='')
    )
    config.test_evaluator = dict(type='LegacyCocoMetric', ann_file=str(tmp_path / 'val.json'), metric=['bbox', 'segm'])
    config.work_dir = str(tmp_path / 'work')

    scores = ['base', 'calibrated', 'dual']
    figures = run_test(config, files['out'], scores, out=tmp_path / 'results.json')
    assert list(figures) == scores
    assert all(not np.isnan(figures[setting][f'coco/segm_AP{i}']) for setting in scores for i in (1, 2, 3, 4))
    (detection, *_) = json.loads((tmp_path / 'results.dual.bbox.json').read_text())
    detector = init_detector(config, files['out'], device='cpu')
    left, top, right, bottom = inference_detector(detector, photograph).pred_instances.bboxes[0].tolist()
    assert detection['bbox'] == pytest.approx([left, top, right - left + 1, bottom - top + 1], abs=1e-4)


# Counts


def test_counts_of_annotations_include_crowds(tmp_path):
    annotations = [
        dict(id=i, image_id=image, category_id=category, bbox=[1, 1, 9, 9], area=81, iscrowd=i % 2, segmentation=[])
        for i, (image, category) in enumerate([(1, 7), (1, 7), (2, 7), (2, 3)])
    ]
    content = dict(
        images=[dict(id=i, width=20, height=20, file_name=f'{i}.jpg') for i in (1, 2)],
        categories=[dict(id=7, name='seven'), dict(id=3, name='three')],
        annotations=annotations,
    )
    path = tmp_path / 'train.json'
    path.write_text(json.dumps(content))
    counts = count_annotations(path)
    assert (counts.frequency.names, counts.category_ids) == (('three', 'seven'), [3, 7])
    assert counts.frequency.instance_count.tolist() == [1, 3] and counts.frequency.image_count.tolist() == [1, 2]


def test_a_counts_file_may_know_no_names(tmp_path):
    """COCO-LT's index numbers its classes by place, not by COCO's ids."""
    path = tmp_path / 'counts.json'
    categories = [dict(category_id=i, instance_count=10 * i, image_ids=[5] * i) for i in (2, 1)]
    path.write_text(json.dumps(dict(categories=categories)))
    counts = read_counts(path)
    assert counts.frequency == ClassFrequency('01', [10, 20], [1, 2]) and counts.category_ids is None
    path.write_text(json.dumps(dict(categories=[dict(id=1, image_count=3)])))
    with pytest.raises(AnnotationError, match='record 0 of "categories" has no instance_count'):
        read_counts(path)


@pytest.mark.parametrize(('name', 'num_classes', 'rare'), [('lvis_v0.5', 1230, 100), ('coco_lt', 80, 400)])
def test_counts_of_the_papers_training_sets(shared_data, name, num_classes, rare):
    counts = read_counts(shared_data / f'{name}_train_index.json.gz').frequency
    assert len(counts) == num_classes and 0 < (counts.instance_count < rare).sum() < num_classes
