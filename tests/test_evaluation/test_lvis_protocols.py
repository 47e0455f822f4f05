"""AP-fixed, AP-pool, boundary AP and the 2021 challenge's; test_metric_parity.py holds them to others' figures."""
import json

import numpy as np
import pytest
import torch
from hotcoco import mask as rle

from mmdet.errors import AnnotationError, ConfigError
from mmdet.evaluation import LVISMetric
from mmdet.registry import METRICS
from mmdet.structures import ClassFrequency

from .disturbed_detections import disturbed_detections
from .evaluate_share import evaluated_by_two
from .test_lvis_metric import evaluated

LVIS_PRECISIONS = ['AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'APr', 'APc', 'APf']
POOLED = ['AP-pooled-all', 'AP-pooled-r', 'AP-pooled-c', 'AP-pooled-f']
ARGUMENTS = {
    'fixed': dict(metric=['bbox', 'segm'], protocol='fixed', dets_per_class=30),
    'pool': dict(metric=['bbox', 'segm'], protocol='pool', dets_per_class=30),
    'boundary': dict(metric='segm', protocol='boundary'),
    'challenge2021': dict(metric=['segm'], protocol='challenge2021', dets_per_class=30),
}


@pytest.fixture
def samples(drawn_lvis):
    return disturbed_detections(json.loads(drawn_lvis.read_text()), most=90)


def without_prefix(figures):
    return {name.split('/')[1]: figure for name, figure in figures.items()}


class TestFigures:
    def test_names(self, drawn_lvis, samples):
        def names(**arguments):
            return list(evaluated(LVISMetric(drawn_lvis, **arguments), samples))

        recalls = [f'AR{area}@10000cat' for area in ('', 's', 'm', 'l')]
        assert names(protocol='fixed') == [f'lvis_fixed/bbox_{name}' for name in LVIS_PRECISIONS + recalls]
        assert names(protocol='challenge2021', metric='segm', dets_per_class=7)[-1] == (
            'lvis_challenge2021/segm_ARl@7cat'
        )
        assert names(protocol='boundary', metric='segm')[-4] == 'lvis_boundary/segm_AR@300'
        assert names(protocol='pool', prefix='own') == [f'own/bbox_{name}' for name in POOLED]

    def test_without_a_limit_that_bites_fixed_is_the_default(self, drawn_lvis, samples):
        figures = {
            protocol: without_prefix(evaluated(LVISMetric(drawn_lvis, ['bbox', 'segm'], protocol), samples))
            for protocol in ('default', 'fixed')
        }
        renamed = {name.replace('10000cat', '300'): figure for name, figure in figures['fixed'].items()}
        assert renamed == pytest.approx(figures['default'], abs=1e-12)

    def test_a_class_limit_leaves_out_the_worst_of_a_class(self, drawn_lvis, samples):
        limited = evaluated(LVISMetric(drawn_lvis, protocol='fixed', dets_per_class=5), samples)
        # The same, chosen before the metric sees them.
        rows = [
            (label, -score, sample['img_id'], place)
            for sample in samples
            for place, (label, score) in enumerate(
                zip(*(sample['pred_instances'][key].tolist() for key in ('labels', 'scores')), strict=True)
            )
        ]
        best = {row[2:] for label in range(6) for row in sorted(row for row in rows if row[0] == label)[:5]}
        chosen = []
        for sample in samples:
            kept = [place for image_id, place in best if image_id == sample['img_id']]
            instances = {
                key: [value[i] for i in kept] if key == 'masks' else value[sorted(kept)]
                for key, value in sample['pred_instances'].items()
            }
            chosen.append(sample | {'pred_instances': instances})
        expected = evaluated(LVISMetric(drawn_lvis), chosen)
        assert len(best) == 30
        for name in LVIS_PRECISIONS:
            assert limited[f'lvis_fixed/bbox_{name}'] == pytest.approx(expected[f'lvis/bbox_{name}'], abs=1e-12)

    def test_there_is_no_limit_of_an_image(self, drawn_lvis):
        target = next(
            each
            for each in json.loads(drawn_lvis.read_text())['annotations']
            if each['area'] and not each.get('ignore')
        )
        x, y, w, h = target['bbox']
        label = target['category_id'] // 2 - 1
        instances = dict(
            bboxes=torch.tensor([[x, y, x + w, y + h]]).repeat(301, 1),
            scores=torch.tensor([0.9] * 300 + [0.5]),
            labels=torch.tensor([(label + 1) % 6] * 300 + [label]),
        )
        sample = {'img_id': target['image_id'], 'pred_instances': instances}
        figures = [evaluated(LVISMetric(drawn_lvis, protocol=each), [sample]) for each in ('default', 'fixed')]
        assert figures[0]['lvis/bbox_AR@300'] == 0 < figures[1]['lvis_fixed/bbox_AR@10000cat']

    def test_boundary_ap_is_below_mask_ap_and_of_coarse_masks_far_below(self, drawn_lvis, samples):
        content = json.loads(drawn_lvis.read_text())
        targets = [each for each in content['annotations'] if each['area'] and not each.get('ignore')]
        figures = {}
        for cut in (0, 6):
            detections = {}
            for target in targets:
                x, y, w, h = target['bbox']
                polygon = [x + cut, y + cut, x + w, y + cut, x + w, y + h, x + cut, y + h]
                detections.setdefault(target['image_id'], []).append(
                    (target['category_id'] // 2 - 1, rle.frPyObjects([polygon], 90, 120)[0])
                )
            batch = []
            for image_id, of_image in detections.items():
                labels, masks = zip(*of_image, strict=True)
                instances = dict(
                    labels=torch.tensor(labels),
                    scores=torch.ones(len(labels)),
                    bboxes=torch.zeros(len(labels), 4),
                    masks=list(masks),
                )
                batch.append({'img_id': image_id, 'pred_instances': instances})
            for protocol in ('default', 'boundary'):
                figures[cut, protocol] = without_prefix(
                    evaluated(LVISMetric(drawn_lvis, metric='segm', protocol=protocol), batch)
                )['segm_AP50']
        assert figures[0, 'boundary'] == pytest.approx(figures[0, 'default'])
        assert figures[6, 'boundary'] < 0.5 * figures[6, 'default']

    def test_class_ap_and_bins(self, drawn_lvis, samples):
        counts = ClassFrequency([f'class {id}' for id in (2, 4, 6, 8, 10, 12)], [1, 20, 30, 400, 5000, 6], [1] * 6)
        metrics = {
            protocol: LVISMetric(drawn_lvis, protocol=protocol, class_frequency=counts)
            for protocol in ('default', 'fixed', 'pool')
        }
        figures = {protocol: without_prefix(evaluated(metric, samples)) for protocol, metric in metrics.items()}
        class_ap = {
            protocol: [row['bbox_AP'] for row in metrics[protocol].per_class] for protocol in ('default', 'fixed')
        }
        np.testing.assert_allclose(class_ap['fixed'], class_ap['default'], atol=1e-12)
        assert figures['fixed']['bbox_AP2'] == pytest.approx(figures['default']['bbox_AP2'])
        assert figures['pool'].keys() == {f'bbox_{name}' for name in POOLED}
        assert [row.keys() for row in metrics['pool'].per_class] == [
            {'name', 'category_id', 'frequency', 'train_instances', 'train_images'}
        ] * 6

    @pytest.mark.parametrize('protocol', ARGUMENTS)
    def test_images_without_detections(self, drawn_lvis, samples, protocol):
        metric = LVISMetric(drawn_lvis, **ARGUMENTS[protocol])
        expected = evaluated(metric, samples[:4])
        nothing = dict(bboxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0).long(), masks=[])
        empty = [{'img_id': sample['img_id'], 'pred_instances': nothing} for sample in samples[4:]]
        assert evaluated(metric, samples[:4] + empty) == expected

    def test_nothing_detected_and_nothing_of_a_kind(self, drawn_lvis):
        content = json.loads(drawn_lvis.read_text())
        for category in content['categories']:
            category['frequency'] = 'f'
        drawn_lvis.write_text(json.dumps(content))
        pooled = evaluated(LVISMetric(drawn_lvis, protocol='pool'), [])
        assert [pooled[f'lvis_pool/bbox_{name}'] for name in POOLED] == [0, -1, -1, 0]
        fixed = evaluated(LVISMetric(drawn_lvis, protocol='fixed'), [])
        assert [fixed[f'lvis_fixed/bbox_{name}'] for name in ('AP', 'APr', 'APf', 'AR@10000cat')] == [0, -1, 0, 0]


class TestStreaming:
    @pytest.mark.parametrize('protocol', ARGUMENTS)
    def test_batches_order_and_an_image_seen_twice_change_nothing(self, drawn_lvis, samples, protocol):
        metric = LVISMetric(drawn_lvis, **ARGUMENTS[protocol])
        expected = evaluated(metric, samples, batch_size=len(samples))
        assert evaluated(metric, [*samples[::-1], samples[2]], batch_size=1) == expected

    def test_two_processes_are_one(self, drawn_lvis, samples, tmp_path):
        arguments = [dict(ann_file=str(drawn_lvis), **each) for each in ARGUMENTS.values()]
        (tmp_path / 'two').mkdir()
        outcomes = evaluated_by_two(tmp_path / 'two', samples, *arguments)
        for number, each in enumerate(arguments):
            metric = LVISMetric(**each)
            expected = evaluated(metric, samples)
            for of_process in outcomes:
                np.testing.assert_equal(of_process[number], (expected, metric.per_class))

    def test_labels_follow_the_data_sets_category_ids(self, drawn_lvis, samples):
        expected = evaluated(LVISMetric(drawn_lvis, **ARGUMENTS['pool']), samples)
        metric = LVISMetric(drawn_lvis, **ARGUMENTS['pool'])
        shuffled = [8, 2, 12, 4, 10, 6]
        metric.dataset_meta = {'category_ids': shuffled}
        for sample in samples:
            labels = [shuffled.index(2 * label + 2) for label in sample['pred_instances']['labels'].tolist()]
            sample['pred_instances']['labels'] = torch.tensor(labels)
        assert evaluated(metric, samples) == pytest.approx(expected, abs=1e-12)


class TestMistakes:
    @pytest.mark.parametrize(
        ('arguments', 'message'),
        [
            (dict(protocol='mixed'), "protocol 'mixed' is not known; choose one of default, fixed, pool, boundary, "),
            (dict(protocol='boundary'), "metric='bbox': protocol 'boundary' is of masks alone; set metric='segm'"),
            (dict(protocol='challenge2021', metric=['bbox', 'segm']), 'is of masks alone'),
            (dict(dets_per_class=20), "dets_per_class=20: protocol 'default' limits no class; omit it"),
            (dict(protocol='fixed', dets_per_class=0), 'dets_per_class=0: must be at least 1'),
        ],
    )
    def test_are_told_in_one_line(self, drawn_lvis, arguments, message):
        with pytest.raises(ConfigError, match=message) as error:
            METRICS.build(dict(type='LVISMetric', ann_file=str(drawn_lvis), **arguments))
        assert '\n' not in str(error.value)

    @pytest.mark.parametrize('protocol', ['fixed', 'pool'])
    def test_data_that_is_not_lvis(self, drawn_lvis, protocol):
        content = json.loads(drawn_lvis.read_text())
        del content['images'][3]['not_exhaustive_category_ids']
        drawn_lvis.write_text(json.dumps(content))
        with pytest.raises(AnnotationError, match="'not_exhaustive_category_ids', so this is not LVIS.*coco2lvis"):
            LVISMetric(drawn_lvis, protocol=protocol)
