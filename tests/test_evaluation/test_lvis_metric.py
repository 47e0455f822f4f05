import json

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from mmdet.errors import AnnotationError, ConfigError, UserError
from mmdet.evaluation import LVISMetric, average_precision_by_bin
from mmdet.registry import METRICS
from mmdet.structures import ClassFrequency, DetDataSample

from .disturbed_detections import disturbed_detections, official_results
from .evaluate_share import evaluated_by_two
from .official_evaluators import LVIS_FIGURES, official_lvis

IOU_TYPES = ('bbox', 'segm')


def batches(samples, size):
    return [samples[first : first + size] for first in range(0, len(samples), size)]


def evaluated(metric, samples, batch_size=4):
    for batch in batches(samples, batch_size):
        metric.process(None, batch)
    return metric.evaluate(len(samples))


def canonical(result):
    return json.dumps(result, sort_keys=True)


def category_ids(path):
    return sorted(category['id'] for category in json.loads(path.read_text())['categories'])


def assert_official(figures, path, results_of, images='all'):
    """`results_of(iou_type)` evaluated officially gives `figures`, all 13 of box and mask."""
    for iou_type in IOU_TYPES:
        expected, _ = official_lvis(path, results_of(iou_type), iou_type)
        assert list(expected) == LVIS_FIGURES
        for name, figure in expected.items():
            assert figures[f'lvis/{iou_type}_{name}'] == pytest.approx(figure, abs=1e-9), (iou_type, name)


@pytest.fixture(scope='module')
def real(lvis_val_100):
    """The real annotations, detections on them (more than the 300 that count), and what the official evaluator says."""
    samples = disturbed_detections(json.loads(lvis_val_100.read_text()), most=340)
    ids = category_ids(lvis_val_100)
    official = {t: official_lvis(lvis_val_100, official_results(samples, ids, t), t) for t in IOU_TYPES}
    return lvis_val_100, samples, official


def box_and_mask_metric(ann_file, **arguments):
    return LVISMetric(ann_file, metric=IOU_TYPES, **arguments)


def assert_agrees(figures, official):
    for iou_type in IOU_TYPES:
        for name, figure in official[iou_type][0].items():
            assert figures[f'lvis/{iou_type}_{name}'] == pytest.approx(figure, abs=1e-9), (iou_type, name)


class TestOnRealAnnotations:
    @pytest.mark.slow
    def test_figures_are_the_official_ones_in_any_batch_size_and_order(self, real):
        path, samples, official = real
        metric = box_and_mask_metric(path)
        for batch_size in (1, 7, len(samples)):
            order = np.random.default_rng(batch_size).permutation(len(samples))
            assert_agrees(evaluated(metric, [samples[i] for i in order], batch_size), official)

    def test_class_ap_and_bins(self, real):
        path, samples, official = real
        categories = sorted(json.loads(path.read_text())['categories'], key=lambda category: category['id'])
        counts = np.random.default_rng(0).integers(0, 3000, len(categories))
        metric = box_and_mask_metric(
            path, class_frequency=ClassFrequency([category['name'] for category in categories], counts, counts // 2)
        )
        figures = evaluated(metric, samples)
        assert [row['name'] for row in metric.per_class] == [category['name'] for category in categories]
        assert [row['frequency'] for row in metric.per_class] == [category['frequency'] for category in categories]
        assert [row['train_instances'] for row in metric.per_class] == counts.tolist()
        assert [row['train_images'] for row in metric.per_class] == (counts // 2).tolist()
        for iou_type in IOU_TYPES:
            class_ap = np.where(official[iou_type][1] < 0, np.nan, official[iou_type][1])
            ours = [row[f'{iou_type}_AP'] for row in metric.per_class]
            np.testing.assert_allclose(ours, class_ap, atol=1e-9)
            for name, figure in average_precision_by_bin(class_ap, counts, (1, 10, 100, 1000)).items():
                assert figures[f'lvis/{iou_type}_{name}'] == pytest.approx(figure, abs=1e-9, nan_ok=True)

    @pytest.mark.slow
    def test_two_processes_and_the_result_files_they_write(self, real, tmp_path):
        path, samples, official = real
        arguments = dict(ann_file=str(path), metric=IOU_TYPES, outfile_prefix=str(tmp_path / 'results/run'))
        for [(figures, per_class)] in evaluated_by_two(tmp_path, samples, arguments):
            assert_agrees(figures, official)
            assert len(per_class) == 1230
        assert sorted(file.name for file in (tmp_path / 'results').iterdir()) == ['run.bbox.json', 'run.segm.json']
        ids = category_ids(path)
        for iou_type in IOU_TYPES:
            written = json.loads((tmp_path / f'results/run.{iou_type}.json').read_text())
            expected = official_results(samples, ids, iou_type)
            assert sorted(map(canonical, written)) == sorted(map(canonical, expected))


class TestProtocol:
    def test_ignored_crowd_and_empty_annotations_count_as_officially(self, drawn_lvis):
        samples = disturbed_detections(json.loads(drawn_lvis.read_text()), most=600, seed=1)
        figures = evaluated(box_and_mask_metric(drawn_lvis), samples)
        assert_official(figures, drawn_lvis, lambda t: official_results(samples, category_ids(drawn_lvis), t))

    def test_an_image_never_tested_counts_and_one_tested_twice_counts_once(self, drawn_lvis):
        samples = disturbed_detections(json.loads(drawn_lvis.read_text()), most=30)[2:]
        figures = evaluated(box_and_mask_metric(drawn_lvis), samples + samples[:3], batch_size=len(samples) + 1)
        assert_official(figures, drawn_lvis, lambda t: official_results(samples, category_ids(drawn_lvis), t))

    def test_the_next_pass_starts_from_nothing(self, drawn_lvis):
        samples = disturbed_detections(json.loads(drawn_lvis.read_text()), most=30)
        metric = box_and_mask_metric(drawn_lvis)
        first = evaluated(metric, samples)
        evaluated(metric, samples[:1])
        assert evaluated(metric, samples) == first

    def test_without_detections(self, drawn_lvis):
        nothing = {'bboxes': torch.empty(0, 4), 'scores': torch.empty(0), 'labels': torch.empty(0).long(), 'masks': []}
        ids = [image['id'] for image in json.loads(drawn_lvis.read_text())['images']]
        figures = evaluated(box_and_mask_metric(drawn_lvis), [{'img_id': i, 'pred_instances': nothing} for i in ids])
        assert figures['lvis/bbox_AP'] == figures['lvis/segm_AR@300'] == 0

    def test_a_category_not_annotated_on_the_image_is_ignored(self, tmp_path):
        path = tmp_path / 'val.json'
        square = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]
        common = {'bbox': [10.0, 10.0, 20.0, 20.0], 'area': 400.0, 'segmentation': square}
        size = {'height': 50, 'width': 50}
        content = {
            'images': [
                {'id': 1, 'neg_category_ids': [2], 'not_exhaustive_category_ids': [], **size},
                {'id': 2, 'neg_category_ids': [], 'not_exhaustive_category_ids': [], **size},
            ],
            'categories': [{'id': 1, 'name': 'a', 'frequency': 'r'}, {'id': 2, 'name': 'b', 'frequency': 'f'}],
            'annotations': [
                {'id': 1, 'image_id': 1, 'category_id': 1, **common},
                {'id': 2, 'image_id': 2, 'category_id': 2, **common},
            ],
        }
        path.write_text(json.dumps(content))
        hit = torch.tensor([[10.0, 10.0, 30.0, 30.0]])

        def figures(false_positive_of_b_on):
            samples = [
                {
                    'img_id': image_id,
                    'pred_instances': {
                        'bboxes': hit.repeat(2, 1),
                        'scores': torch.tensor([0.5, 0.9]),
                        'labels': torch.tensor([label, other]),
                    },
                }
                for image_id, label, other in ((1, 0, 1 if false_positive_of_b_on == 1 else 0), (2, 1, 0))
            ]
            return evaluated(LVISMetric(path, metric='bbox'), samples)

        # A wrong `b` costs where b is known to be absent, a wrong `a` on image 2 costs nothing.
        assert figures(false_positive_of_b_on=1)['lvis/bbox_APf'] == pytest.approx(0.5, abs=1e-2)
        assert figures(false_positive_of_b_on=None)['lvis/bbox_APf'] == pytest.approx(1)
        assert figures(false_positive_of_b_on=1)['lvis/bbox_APr'] == pytest.approx(1)

    def test_labels_follow_the_data_sets_category_ids(self, drawn_lvis):
        content = json.loads(drawn_lvis.read_text())
        samples = disturbed_detections(content, most=40)
        chosen = [8, 2, 12]
        relabelled = []
        for sample in samples:
            instances = sample['pred_instances']
            ids = [category_ids(drawn_lvis)[label] for label in instances['labels']]
            kept = [i for i, id in enumerate(ids) if id in chosen]
            fields = {key: value[kept] for key, value in instances.items() if key not in ('masks', 'labels')}
            fields['labels'] = torch.tensor([chosen.index(ids[i]) for i in kept])
            fields['masks'] = [instances['masks'][i] for i in kept]
            relabelled.append({'img_id': sample['img_id'], 'pred_instances': fields})
        metric = box_and_mask_metric(drawn_lvis)
        metric.dataset_meta = {'category_ids': tuple(chosen)}
        figures = evaluated(metric, relabelled)
        assert [row['category_id'] for row in metric.per_class] == chosen

        content['categories'] = [category for category in content['categories'] if category['id'] in chosen]
        content['annotations'] = [a for a in content['annotations'] if a['category_id'] in chosen]
        drawn_lvis.write_text(json.dumps(content))
        assert_official(figures, drawn_lvis, lambda t: official_results(relabelled, chosen, t))


class TestInterface:
    @pytest.fixture
    def samples(self, drawn_lvis):
        return disturbed_detections(json.loads(drawn_lvis.read_text()), most=20)

    def test_is_built_from_a_config_and_reads_data_samples(self, drawn_lvis, samples, device):
        metric = METRICS.build(
            dict(type='LVISMetric', ann_file=str(drawn_lvis), metric=['bbox', 'segm'], backend_args=None, prefix='val')
        )
        for sample in samples:
            data_sample = DetDataSample(metainfo=dict(img_id=sample['img_id']))
            data_sample.pred_instances = InstanceData(**sample['pred_instances']).to(device)
            metric.process({}, [data_sample.to_dict()])
        figures = metric.evaluate(len(samples))
        expected = evaluated(box_and_mask_metric(drawn_lvis), samples)
        assert figures == {name.replace('lvis/', 'val/'): figure for name, figure in expected.items()}

    def test_scores_choose_the_predictions(self, drawn_lvis, samples):
        expected = evaluated(box_and_mask_metric(drawn_lvis), samples)
        none = {key: value[:0] for key, value in samples[0]['pred_instances'].items()}
        both = [{**s, 'pred_instances_dual': s['pred_instances'], 'pred_instances': none} for s in samples]
        assert evaluated(box_and_mask_metric(drawn_lvis, scores='dual'), both) == expected
        with pytest.raises(ConfigError, match='read pred_instances_base, but the detector gives pred_instances, pred_'):
            box_and_mask_metric(drawn_lvis, scores='base').process(None, both)

    def test_format_only_writes_what_the_official_evaluator_reads(self, drawn_lvis, samples, tmp_path):
        metric = box_and_mask_metric(drawn_lvis, format_only=True, outfile_prefix=str(tmp_path / 'out/of/run'))
        assert evaluated(metric, samples) == {}
        figures = evaluated(box_and_mask_metric(drawn_lvis), samples)
        assert_official(figures, drawn_lvis, lambda t: str(tmp_path / f'out/of/run.{t}.json'))
        assert sorted(file.name for file in (tmp_path / 'out/of').iterdir()) == ['run.bbox.json', 'run.segm.json']

    def test_nothing_is_left_of_a_result_file_that_cannot_be_written(self, drawn_lvis, samples, tmp_path):
        (tmp_path / 'run.segm.json').mkdir()
        with pytest.raises(UserError, match=r'run\.segm\.json: could not be written'):
            evaluated(box_and_mask_metric(drawn_lvis, format_only=True, outfile_prefix=str(tmp_path / 'run')), samples)
        assert [file.name for file in tmp_path.iterdir() if file.name.endswith(('.tmp', '.part'))] == []

    def test_class_frequencies_of_other_classes_are_refused(self, drawn_lvis):
        metric = box_and_mask_metric(drawn_lvis)
        metric.class_frequency = ClassFrequency(['a', 'b'], [1, 2], [1, 1])
        with pytest.raises(ConfigError, match='of 2 classes, the data set has 6'):
            metric.evaluate(0)

    def test_mistakes_are_told_in_one_line(self, drawn_lvis, samples):
        with pytest.raises(ConfigError, match="'proposal' is not known"):
            LVISMetric(drawn_lvis, metric='proposal')
        with pytest.raises(ConfigError, match='outfile_prefix'):
            box_and_mask_metric(drawn_lvis, format_only=True)
        with pytest.raises(AnnotationError, match='no image 5000'):
            box_and_mask_metric(drawn_lvis).process(None, [{**samples[0], 'img_id': 5000}])
        with pytest.raises(AnnotationError, match='no category 3,'):
            box_and_mask_metric(drawn_lvis).dataset_meta = {'category_ids': (2, 3)}
        del samples[0]['pred_instances']['masks']
        with pytest.raises(ConfigError, match='gives no masks'):
            box_and_mask_metric(drawn_lvis).process(None, samples)
        LVISMetric(drawn_lvis, metric='bbox').process(None, samples)

    @pytest.mark.parametrize('section, key', [('categories', 'frequency'), ('images', 'neg_category_ids')])
    def test_coco_format_is_refused(self, drawn_lvis, section, key):
        content = json.loads(drawn_lvis.read_text())
        del content[section][3][key]
        drawn_lvis.write_text(json.dumps(content))
        with pytest.raises(AnnotationError, match=f"'{key}'.*coco2lvis"):
            box_and_mask_metric(drawn_lvis)
