"""Released detectors of BAGS through the converter: they detect, and score RoIs, as the release defines it."""
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from double_precision import in_double_precision
from mmengine import Config

from mmdet.apis import inference_detector, init_detector, props_gt
from mmdet.apis.calibrate import trained_detector
from mmdet.calibration.calibrators.bags import group_of_class
from mmdet.engine import read_checkpoint
from mmdet.errors import CheckpointError, ConfigError
from mmdet.evaluation.props_gt import PropsGTDetector
from mmdet.model_converters import convert_simcal_release, read_counts
from mmdet.model_converters.bags_release import EDGES, GROUPS_OF_LVIS, is_bags_release
from mmdet.models.roi_heads.roi_outputs import RoIOutputs

from . import released_files
from .mmdet1_loops import Image, ReleasedBags, bags_scores
from .released_files import HIDDEN, ROOT, assert_same_detections, filled, released_shapes, write_counts

# Classes of a group are not beside each other, and there is one on either side of every edge.
COUNTS = [10, 3, 1000, 99, 9, 100, 5000, 0, 999]
NUM_CLASSES = len(COUNTS)
NUM_OUTPUTS = NUM_CLASSES + 6
CONFIGS = ['mask-rcnn_r50.py', 'htc-x101.py', 'htc-x101-dconv-c3-c5.py']
Weights = dict[str, torch.Tensor]


class Release(NamedTuple):
    """A detector of BAGS, its base, and the counts, as files; and the config they are for."""

    config: Config
    base: Path
    detector: Path
    counts: Path
    out: Path

    def weights(self, file: str) -> Weights:
        return torch.load(getattr(self, file), weights_only=True)['state_dict']

    def change(self, file: str, weights: Weights) -> None:
        torch.save(dict(state_dict=weights, meta={}), getattr(self, file))

    def stages(self) -> list[str]:
        return [name.removesuffix('.fc_cls.bias') for name in self.weights('base') if name.endswith('.fc_cls.bias')]

    def layers(self) -> list[Weights]:
        weights = self.weights('detector')
        return [{kind: weights[f'{stage}.fc_cls.{kind}'] for kind in ('weight', 'bias')} for stage in self.stages()]

    def convert(self, **change):
        counts = read_counts(self.counts)
        arguments = dict(detector=self.detector, heads=[], out=self.out, counts=counts, base=self.base)
        return convert_simcal_release(**(arguments | change))


@pytest.fixture
def release(tmp_path, request) -> Release:
    """The release of a config, by default the first."""
    config = released_files.tiny_config(f'bags/released/{getattr(request, "param", CONFIGS[0])}', NUM_CLASSES)
    base = filled(released_shapes(config), seed=0)
    last_layers = filled(released_shapes(config, NUM_OUTPUTS), seed=1)
    for name in base:
        if '.fc_cls.' in name:  # several classes of a RoI are to be beyond the smallest score
            base[name], last_layers[name] = base[name] / 8, last_layers[name] / 8
    files = dict(base=base, detector={name: last_layers[name] if '.fc_cls.' in name else base[name] for name in base})
    paths = {name: tmp_path / f'{name}.pth' for name in files}
    for name, weights in files.items():
        torch.save(dict(state_dict=weights, meta=dict(mmdet_version='1.0rc0+bags')), paths[name])
    counts = write_counts(COUNTS, tmp_path / 'counts.json')
    return Release(config, counts=counts, out=tmp_path / 'out/model.pth', **paths)


# As the release computes it


@pytest.mark.parametrize('release', CONFIGS, indirect=True)
def test_detections_are_those_of_the_release(release, photograph):
    release.convert()
    settings = ['base', 'calibrated']
    detector = in_double_precision(init_detector(release.config, release.out, device='cpu', scores=settings))
    seen = {}
    detector.neck.register_forward_hook(lambda module, inputs, pyramid: seen.update(pyramid=pyramid))
    sample = inference_detector(detector, photograph)

    bbox_head, test_cfg = release.config.model.roi_head.bbox_head, release.config.model.test_cfg
    assert (test_cfg.rcnn.score_thr, test_cfg.rcnn.nms.iou_threshold) == (0.001, 0.5)
    released = ReleasedBags(
        {name: tensor.double() for name, tensor in release.weights('base').items()},
        [{name: tensor.double() for name, tensor in layer.items()} for layer in release.layers()],
        stds=[list(h.bbox_coder.target_stds) for h in (bbox_head if isinstance(bbox_head, list) else [bbox_head])],
        counts=COUNTS,
        threshold=0,
        nms_pre=test_cfg.rpn.nms_pre,
        max_proposals=test_cfg.rpn.max_per_img,
        score_thr=test_cfg.rcnn.score_thr,
        max_per_img=test_cfg.rcnn.max_per_img,
    )
    image = Image(sample.img_shape, sample.ori_shape, factor=80 / 71)
    for setting in settings:
        expected = released.detect(seen['pyramid'], image, setting)
        assert_same_detections(sample.get(f'pred_instances_{setting}'), expected)


@pytest.mark.parametrize('release', CONFIGS[:2], indirect=True)
@torch.no_grad()
def test_scores_of_rois_are_those_of_the_release(release):
    """From the input of the last layers, whose logits a cascade takes the mean of."""
    release.convert()
    detector = init_detector(release.config, release.out, device='cpu')
    calibrator, heads = detector.calibrator, detector.box_heads
    feats = [3 * torch.randn(20, HIDDEN, generator=torch.Generator().manual_seed(stage)) for stage in range(len(heads))]
    outputs = [RoIOutputs(head, class_feats=x) for head, x in zip(heads, feats, strict=True)]
    logits = sum(calibrator.logits(each, stage) for stage, each in enumerate(outputs)) / len(heads)
    base = heads[-1].class_scores(sum(each.logits for each in outputs) / len(heads))

    layers, of_base = release.layers(), release.weights('base')
    expected_logits = sum(F.linear(x, layer['weight'], layer['bias']) for x, layer in zip(feats, layers, strict=True))
    expected = [bags_scores(of_roi, COUNTS) for of_roi in (expected_logits / len(heads)).tolist()]
    assert torch.tensor(expected).amax(1).min() < 0.5 < torch.tensor(expected).max()  # sure and unsure ones
    found = background_first(calibrator.scores(base, logits, 'calibrated'))
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)
    expected_base = sum(
        F.linear(x, of_base[f'{stage}.fc_cls.weight'], of_base[f'{stage}.fc_cls.bias'])
        for x, stage in zip(feats, release.stages(), strict=True)
    )
    found = background_first(calibrator.scores(base, logits, 'base'))
    torch.testing.assert_close(found, (expected_base / len(heads)).softmax(1), atol=1e-5, rtol=0)


def background_first(scores: torch.Tensor) -> torch.Tensor:
    return torch.cat([scores[:, -1:], scores[:, :-1]], dim=1)


# With the base and without


@pytest.mark.parametrize('release', CONFIGS[:2], indirect=True)
def test_with_its_base_the_checkpoint_holds_both(release):
    found = release.convert()
    written, base = read_checkpoint(release.out), release.weights('base')
    assert written['meta']['calibrator'] == found.calibrator == dict(type='BAGS', edges=[10, 100, 1000])
    assert written['meta']['class_frequency']['instance_count'] == COUNTS
    assert written['meta']['dataset_meta']['category_ids'] == [10 * i for i in range(NUM_CLASSES)]
    convert_simcal_release(release.base, [], release.out.with_name('base.pth'))
    of_base = read_checkpoint(release.out.with_name('base.pth'))['state_dict']
    own = {name: rows for name, rows in written['state_dict'].items() if 'calibrator' not in name}
    assert own.keys() == of_base.keys() and all(torch.equal(of_base[name], own[name]) for name in own)
    for number, (stage, layer) in enumerate(zip(release.stages(), release.layers(), strict=True)):
        assert torch.equal(written['state_dict'][f'roi_head.calibrator.layers.{number}.weight'], layer['weight'])
        assert torch.equal(own[f'roi_head.{stage}.fc_cls.bias'][-1], base[f'{stage}.fc_cls.bias'][0])


@pytest.mark.parametrize('release', CONFIGS[:2], indirect=True)
def test_without_its_base_only_calibrated_scores_are_known(release, photograph):
    release.convert()
    with_base = inference_detector(init_detector(release.config, release.out, 'cpu', scores=['calibrated']), photograph)
    release.convert(base=None)
    assert not any('fc_cls' in name for name in read_checkpoint(release.out)['state_dict'])
    detector = init_detector(release.config, release.out, 'cpu')
    assert detector.score_settings == ['calibrated']
    found, expected = inference_detector(detector, photograph).pred_instances, with_base.pred_instances
    assert len(found) > 0 and torch.equal(found.scores, expected.scores) and torch.equal(found.bboxes, expected.bboxes)
    assert torch.equal(found.labels, expected.labels) and found.masks == expected.masks

    refused = []
    with pytest.raises(ConfigError, match=r'--scores base: .* convert it again with --base') as caught:
        init_detector(release.config, release.out, 'cpu', scores=['base', 'calibrated'])
    refused.append(caught)
    with pytest.raises(CheckpointError, match=r"model.pth: does not hold the base's classifier; .* --base") as caught:
        trained_detector(release.config, release.out, {})
    refused.append(caught)
    assert all('\n' not in str(each.value) for each in refused)

    detector.score_settings = ['base']  # whoever comes by another way finds nothing, not something made up
    assert len(inference_detector(detector, photograph).pred_instances) == 0


def test_props_gt_without_its_base(release, photograph, tmp_path):
    triangle = dict(bbox=[9, 9, 30, 20], area=300, iscrowd=0, segmentation=[[9, 9, 39, 9, 39, 29]])
    annotations = dict(
        images=[dict(id=1, width=96, height=71, file_name=photograph.name)],
        categories=[dict(id=10 * i, name=f'class {i}') for i in range(NUM_CLASSES)],
        annotations=[dict(id=1, image_id=1, category_id=0, **triangle)],
    )
    (tmp_path / 'val.json').write_text(json.dumps(annotations))
    config = release.config
    config.test_dataloader.num_workers, config.test_dataloader.persistent_workers = 0, False
    config.test_dataloader.dataset.update(
        type='CocoDataset', data_root=str(tmp_path), ann_file='val.json', data_prefix=dict(img='')
    )
    config.test_evaluator = dict(type='LegacyCocoMetric', ann_file=str(tmp_path / 'val.json'), metric='segm')
    config.work_dir = str(tmp_path / 'work')
    for base, settings in ((release.base, ['base', 'calibrated', 'props_gt']), (None, ['calibrated', 'props_gt'])):
        release.convert(base=base)
        assert list(props_gt(config, release.out)) == settings


def test_the_tool_knows_a_detector_of_bags(release):
    command = [sys.executable, ROOT / 'tools/model_converters/simcal_release.py', release.detector, release.out]
    for options, said in (
        (['--counts', release.counts, '--base', release.base], '9 classes, one stage, calibrated by BAGS\n'),
        (['--counts', release.counts], 'calibrated by BAGS; without --base it has no scores but `calibrated`'),
    ):
        done = subprocess.run([*command, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout and 'mmdetection 1.x' in done.stdout
    release.out.unlink()
    done = subprocess.run([*command, '--counts', release.counts, '--threshold', '5'], capture_output=True, text=True)
    assert done.returncode != 0 and not release.out.exists()
    assert done.stderr.count('\n') == 1 and 'is a detector of BAGS, which has no use for --threshold' in done.stderr


@pytest.mark.parametrize('stage', ['', '0.'])
def test_a_detector_of_bags_is_known_by_its_number_of_outputs(release, stage):
    def is_bags(num_outputs, box_rows, mask_rows, counts=None):
        rows = {'bbox_head.{}fc_cls': num_outputs, 'bbox_head.{}fc_reg': box_rows, 'mask_head.{}conv_logits': mask_rows}
        weights = {f'{name.format(stage)}.weight': torch.zeros(number, 3) for name, number in rows.items()}
        return is_bags_release(weights, counts, 'detector.pth')

    assert is_bags(1236, 4 * 1231, 1231) and is_bags(1236, 4, 1231) and is_bags(1236, 4 * 1231, 1)
    assert not is_bags(1231, 4 * 1231, 1231) and not is_bags(1231, 4, 1231) and not is_bags(1231, 4 * 1231, 1)
    assert not is_bags(1236, 4 * 1236, 1236)
    counts = read_counts(release.counts)
    assert is_bags(1236, 4, 1) and is_bags(1236, 4, 1, counts) and is_bags(NUM_OUTPUTS, 4, 1, counts)
    assert not is_bags(1231, 4, 1) and not is_bags(NUM_OUTPUTS, 4, 1) and not is_bags(NUM_CLASSES + 1, 4, 1, counts)
    assert not is_bags_release({'roi_head.bbox_head.fc_cls.weight': torch.zeros(1236, 3)}, None, 'detector.pth')


def test_boxes_and_masks_shared_by_all_classes(release):
    for file in ('base', 'detector'):
        weights = release.weights(file)
        for name in weights:
            if '.conv_logits.' in name or '.fc_reg.' in name:
                weights[name] = weights[name][: 4 if 'fc_reg' in name else 1].clone()
        release.change(file, weights)
    roi_head = release.config.model.roi_head
    roi_head.bbox_head.reg_class_agnostic = roi_head.mask_head.class_agnostic = True
    found = release.convert()
    assert (found.calibrator['type'], found.num_classes) == ('BAGS', NUM_CLASSES)
    init_detector(release.config, release.out, 'cpu', scores=['base', 'calibrated'])


# What cannot be


def test_files_that_do_not_belong_together_are_refused_in_one_line(release, tmp_path):
    def refused(message, error=CheckpointError, **change):
        with pytest.raises(error, match=message) as caught:
            release.convert(**change)
        assert '\n' not in str(caught.value) and not release.out.exists()

    refused('detector.pth: is a detector of BAGS, .* give --train-annotations or --counts', ConfigError, counts=None)
    fewer = read_counts(write_counts(COUNTS[1:], tmp_path / 'fewer.json'))
    refused('the training counts are of 8 classes, the detector has 9', ConfigError, counts=fewer)
    refused('BAGS, which has no use for a calibrated head', ConfigError, heads=[release.detector])
    refused('base.pth is no detector of BAGS and holds its own classifier', ConfigError, detector=release.base)
    refused(
        'detector.pth: `bbox_head.fc_cls.weight` has 15 rows, and the base of a detector of 9 classes has 10',
        base=release.detector,
    )

    weights = release.weights('base')
    other = dict(weights)
    other['neck.fpn_convs.1.conv.bias'] = weights['neck.fpn_convs.1.conv.bias'] + 1e-6
    release.change('base', other)
    refused('base.pth: `neck.fpn_convs.1.conv.bias` is not as in .*detector.pth, and all but fc_cls must be the same')
    release.change('base', {name: rows for name, rows in weights.items() if name != 'rpn_head.rpn_cls.bias'})
    refused('base.pth: `rpn_head.rpn_cls.bias` is not as in')
    release.change('base', dict(weights, **{'mask_head.more.weight': torch.zeros(1)}))
    refused('base.pth: `mask_head.more.weight` is not as in')
    release.change('base', {name: rows for name, rows in weights.items() if 'fc_cls' not in name})
    refused('base.pth: `bbox_head.fc_cls.weight` has 0 rows')

    weights = release.weights('detector')
    for rows in (NUM_OUTPUTS - 1, NUM_OUTPUTS + 1):
        release.change('detector', dict(weights, **{'bbox_head.fc_cls.weight': torch.zeros(rows, HIDDEN)}))
        refused(
            f'`bbox_head.fc_cls.weight` has {rows} rows, but .* is of 9 classes and background, which calls for 10, or '
            'for 15 in a detector of BAGS'
        )


@pytest.mark.parametrize('release', ['htc-x101.py'], indirect=True)
def test_a_cascade_with_boxes_for_every_class_is_refused(release):
    weights = release.weights('detector')
    weights['bbox_head.0.fc_reg.weight'] = torch.zeros(4 * NUM_CLASSES + 4, HIDDEN)
    release.change('detector', weights)
    with pytest.raises(CheckpointError, match=r'`bbox_head.0.fc_reg.weight` has boxes for every class'):
        release.convert(base=None)


def test_annotations_of_other_images_of_lvis_are_refused(release, shared_data):
    """The validation annotations have 1,230 classes too, which counts put into other groups."""
    train = read_counts(shared_data / 'lvis_v0.5_train_index.json.gz')
    assert tuple(group_of_class(train.frequency, EDGES).bincount().tolist()) == GROUPS_OF_LVIS
    validation = read_counts(shared_data / 'lvis_v0.5_val_100.json.gz')
    config = released_files.tiny_config(f'bags/released/{CONFIGS[0]}', len(train.frequency))
    release.change('detector', filled(released_shapes(config, 1236), seed=0))
    assert is_bags_release(release.weights('detector'), None, release.detector)
    with pytest.raises(ConfigError, match='have 294, 453, 302, 181 there: give the training annotations') as caught:
        release.convert(counts=validation, base=None)
    assert '\n' not in str(caught.value) and not release.out.exists()
    assert release.convert(counts=train, base=None).num_classes == 1230
    detector = init_detector(config, release.out, 'cpu')
    assert detector.calibrator.widths == [2, 295, 454, 303, 182]
    assert isinstance(PropsGTDetector(detector).score_settings, list)
