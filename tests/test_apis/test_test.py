"""Testing through the API and the tool: settings, files, and what is refused."""
import json
import pickle
import runpy
import sys
from pathlib import Path

import mmcv
import numpy as np
import pytest
from mmengine.evaluator import BaseMetric

from mmdet.apis.test import test
from mmdet.engine import read_checkpoint, save_checkpoint
from mmdet.errors import CheckpointError, ConfigError
from mmdet.registry import METRICS
from mmdet.structures import ClassFrequency

from . import tiny

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
run_test = test
del test  # pytest would take it for a test


def altered(checkpoints, tmp_path, change):
    """A copy of the base checkpoint with another meta."""
    checkpoint = read_checkpoint(checkpoints / 'base.pth')
    change(checkpoint['meta'])
    save_checkpoint(checkpoint, tmp_path / 'altered.pth')
    return tmp_path / 'altered.pth'


@pytest.mark.slow
def test_all_settings_in_one_pass_are_those_of_passes_of_their_own(glyphs, checkpoints, tmp_path):
    settings = ['base', 'dual', 'calibrated', 'average']
    config = tiny.tiny_config(glyphs, tmp_path)
    together = run_test(config, checkpoints / 'calibrated.pth', scores=settings, threshold=3)
    assert list(together) == settings
    for setting in ('base', 'dual'):
        alone = run_test(tiny.tiny_config(glyphs, tmp_path / 'alone'), checkpoints / 'calibrated.pth', [setting], 3)
        np.testing.assert_equal(alone[setting], together[setting])
    uncalibrated = run_test(tiny.tiny_config(glyphs, tmp_path / 'base'), checkpoints / 'base.pth')
    np.testing.assert_equal(uncalibrated['base'], together['base'])


@METRICS.register_module()
class SumOfScores(BaseMetric):
    """A metric as any, which knows nothing of score settings."""

    default_prefix = 'own'

    def process(self, data_batch, data_samples):
        self.results += [float(sample['pred_instances']['scores'].sum()) for sample in data_samples]

    def compute_metrics(self, results):
        return {'scores': sum(results)}


def test_any_metric_judges_every_setting_by_its_own_scores(glyphs, checkpoints, tmp_path):
    config = tiny.tiny_config(glyphs, tmp_path)
    # What the config says of scores is of a test of one setting.
    lvis = dict(config.test_evaluator, scores='base')
    config.test_evaluator = [dict(type='SumOfScores'), lvis, dict(lvis, protocol='fixed', metric='segm')]
    figures = run_test(config, checkpoints / 'calibrated.pth', scores=['base', 'dual'], out=tmp_path / 'out.pkl')
    results = pickle.loads((tmp_path / 'out.pkl').read_bytes())
    for setting in ('base', 'dual'):
        total = sum(result[f'pred_instances_{setting}']['scores'].sum() for result in results)
        assert figures[setting]['own/scores'] == pytest.approx(total, rel=1e-6)
        assert figures[setting]['lvis_fixed/segm_AP'] == pytest.approx(figures[setting]['lvis/segm_AP'], abs=1e-12)
        classes = [tmp_path / f'test/{setting}_per_class{metric}.json' for metric in ('', '_lvis_fixed')]
        assert [('bbox_AP' in json.loads(file.read_text())[0]) for file in classes] == [True, False]
    assert figures['base']['own/scores'] != figures['dual']['own/scores']
    expected = run_test(tiny.tiny_config(glyphs, tmp_path / 'one'), checkpoints / 'calibrated.pth', scores=['dual'])
    np.testing.assert_equal({name: figures['dual'][name] for name in expected['dual']}, expected['dual'])


@pytest.mark.slow
def test_figures_are_written(glyphs, checkpoints, tmp_path):
    figures = run_test(tiny.tiny_config(glyphs, tmp_path), checkpoints / 'calibrated.pth', batch_size=3)
    written = json.loads((tmp_path / 'test/dual.json').read_text())
    assert written == {name: None if np.isnan(figure) else figure for name, figure in figures['dual'].items()}
    assert {'lvis/bbox_APr', 'lvis/segm_AP', 'lvis/segm_AP1', 'lvis/bbox_bAP'} <= written.keys()
    per_class = json.loads((tmp_path / 'test/dual_per_class.json').read_text())
    frequency = ClassFrequency.from_dict(read_checkpoint(checkpoints / 'base.pth')['meta']['class_frequency'])
    assert [row['train_instances'] for row in per_class] == frequency.instance_count.tolist()
    assert [row['name'] for row in per_class] == list(frequency.names)


@pytest.mark.slow
def test_counts_come_from_the_annotations_where_the_checkpoint_has_none(glyphs, checkpoints, tmp_path):
    bare = altered(checkpoints, tmp_path, lambda meta: meta.clear())
    with_counts = run_test(tiny.tiny_config(glyphs, tmp_path), checkpoints / 'base.pth')
    np.testing.assert_equal(run_test(tiny.tiny_config(glyphs, tmp_path), bare), with_counts)
    config = tiny.tiny_config(glyphs, tmp_path)
    config.train_dataloader.dataset.ann_file = 'gone.json'
    assert 'lvis/bbox_AP1' not in run_test(config, bare)['base']


@pytest.mark.slow
def test_detections_are_kept(glyphs, checkpoints, tmp_path):
    config = tiny.tiny_config(glyphs, tmp_path)
    run_test(config, checkpoints / 'calibrated.pth', scores=['base', 'dual'], out=tmp_path / 'out.pkl')
    results = pickle.loads((tmp_path / 'out.pkl').read_bytes())
    annotated = json.loads((glyphs / 'annotations/glyph_lt_val.json').read_text())
    assert [result['img_id'] for result in results] == [image['id'] for image in annotated['images']]
    first = results[0]['pred_instances_dual']
    assert first['bboxes'].shape == (len(first['scores']), 4) == (len(first['masks']), 4)
    assert isinstance(first['labels'], np.ndarray)
    np.testing.assert_equal(results[0]['pred_instances'], results[0]['pred_instances_base'])

    run_test(tiny.tiny_config(glyphs, tmp_path), checkpoints / 'base.pth', out=tmp_path / 'out.json')
    boxes = json.loads((tmp_path / 'out.bbox.json').read_text())
    assert boxes[0].keys() == {'image_id', 'category_id', 'bbox', 'score'}
    assert len(boxes) == sum(len(result['pred_instances']['labels']) for result in results)
    assert 'bbox' not in json.loads((tmp_path / 'out.segm.json').read_text())[0]


@pytest.mark.slow
def test_format_only(glyphs, checkpoints, tmp_path):
    config = tiny.tiny_config(glyphs, tmp_path)
    assert run_test(config, checkpoints / 'base.pth', format_only=True) == dict(base={})
    assert sorted(file.name for file in (tmp_path / 'test').iterdir()) == ['results.bbox.json', 'results.segm.json']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(scores=['dual']), r'--scores dual: .*base\.pth is not calibrated.*tools/calibrate\.py'),
        (dict(threshold=-1), '--threshold -1: counts training instances and cannot be below 0'),
        (dict(threshold=10), r'--threshold 10: .*base\.pth is not calibrated'),
        (dict(format_only=True, out='results.pkl'), r'--format-only writes \.json; give --out FILE\.json'),
        (dict(batch_size=0), '--batch-size 0: must be at least 1'),
        (dict(batch_size=-2), '--batch-size -2: must be at least 1'),
        (dict(scores=['base', ' ']), '--scores base, : name score settings'),
        (dict(scores=[]), '--scores : name score settings'),
        (dict(out='results.txt'), r'--out results\.txt: results are written as \.pkl or \.json'),
    ],
)
def test_what_an_uncalibrated_checkpoint_cannot_do(glyphs, checkpoints, tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        run_test(tiny.tiny_config(glyphs, tmp_path), checkpoints / 'base.pth', **arguments)


def test_unknown_score_setting(glyphs, checkpoints, tmp_path):
    with pytest.raises(ConfigError, match='--scores duel: SimCal knows base, dual, calibrated, average'):
        run_test(tiny.tiny_config(glyphs, tmp_path), checkpoints / 'calibrated.pth', scores=['duel'])


def test_checkpoint_of_other_classes(glyphs, checkpoints, tmp_path):
    def rename(meta):
        meta['dataset_meta'] = dict(category_ids=[1, 2, 3, 77])

    with pytest.raises(CheckpointError, match='other classes: label 3 is category 77'):
        run_test(tiny.tiny_config(glyphs, tmp_path), altered(checkpoints, tmp_path, rename))


def test_checkpoint_of_another_number_of_classes(glyphs, checkpoints, tmp_path):
    config = tiny.tiny_config(glyphs, tmp_path, model__roi_head__bbox_head__num_classes=5)
    with pytest.raises(CheckpointError, match=r'fc_cls.*\(9, .*\(6, .*num_classes \(8 in the checkpoint\)'):
        run_test(config, checkpoints / 'base.pth')


def test_data_of_another_number_of_classes(glyphs, checkpoints, tmp_path):
    config = tiny.tiny_config(glyphs, tmp_path)
    names = [
        category['name'] for category in json.loads(Path(config.test_evaluator.ann_file).read_text())['categories']
    ]
    config.test_dataloader.dataset.metainfo = dict(classes=names[:5])
    with pytest.raises(ConfigError, match='num_classes is 8, but the data of test_dataloader has 5 classes'):
        run_test(config, checkpoints / 'base.pth')


@pytest.mark.slow
def test_names_that_differ_are_only_warned_of(glyphs, checkpoints, tmp_path, capsys):
    def rename(meta):
        meta['dataset_meta']['classes'] = ['axolotl', *meta['dataset_meta']['classes'][1:]]

    run_test(tiny.tiny_config(glyphs, tmp_path), altered(checkpoints, tmp_path, rename))
    assert "label 0 was 'axolotl' in training" in capsys.readouterr().err


@pytest.mark.slow
def test_pictures_are_written(glyphs, checkpoints, tmp_path):
    names = sorted(image.name for image in (glyphs / 'images/val').iterdir())
    config = tiny.tiny_config(
        glyphs, tmp_path, default_hooks__visualization=dict(type='DetVisualizationHook', score_thr=0)
    )
    run_test(config, checkpoints / 'base.pth', show_dir=tmp_path / 'one')
    assert sorted(file.name for file in (tmp_path / 'one').iterdir()) == names
    run_test(config, checkpoints / 'calibrated.pth', scores=['base', 'dual'], show_dir=tmp_path / 'two')
    assert sorted(file.name for file in (tmp_path / 'two/dual').iterdir()) == names
    image, picture = mmcv.imread(str(glyphs / 'images/val' / names[0])), mmcv.imread(str(tmp_path / 'one' / names[0]))
    assert picture.shape[0] % image.shape[0] == 0 and picture.std() > 0


@pytest.mark.slow
def test_pictures_of_images_with_the_same_name_lie_in_their_folders(glyphs, checkpoints, tmp_path):
    annotations = json.loads((glyphs / 'annotations/glyph_lt_val.json').read_text())
    names = {}
    for number, image in enumerate(annotations['images']):
        names[f'{number}/same.jpg'] = image['file_name']
        image['file_name'] = f'{number}/same.jpg'
    for name, original in names.items():
        (tmp_path / 'images' / name).parent.mkdir(parents=True)
        source = next(glyphs.rglob(Path(original).name))
        mmcv.imwrite(mmcv.imread(str(source)), str(tmp_path / 'images' / name))
    (tmp_path / 'val.json').write_text(json.dumps(annotations))
    config = tiny.tiny_config(glyphs, tmp_path / 'run')
    inner = config.test_dataloader.dataset
    inner.update(data_root=str(tmp_path), ann_file='val.json', data_prefix=dict(img='images'))
    run_test(config, checkpoints / 'base.pth', show_dir=tmp_path / 'one')
    written = {str(path.relative_to(tmp_path / 'one')) for path in (tmp_path / 'one').rglob('*.jpg')}
    assert written == names.keys()


def test_showing_needs_a_display(glyphs, checkpoints, tmp_path, monkeypatch):
    monkeypatch.delenv('DISPLAY', raising=False)
    monkeypatch.delenv('WAYLAND_DISPLAY', raising=False)
    with pytest.raises(ConfigError, match='--show: there is no display.*--show-dir'):
        run_test(tiny.tiny_config(glyphs, tmp_path), checkpoints / 'base.pth', show=True)


@pytest.mark.slow
def test_tool(glyphs, checkpoints, tmp_path, monkeypatch, capsys):
    options = [f'{key}={value}' for key, value in tiny.tiny_options(glyphs).items()]
    config, checkpoint = str(tiny.CONFIGS / 'quickstart/base.py'), str(checkpoints / 'calibrated.pth')
    arguments = ['--scores', 'base, dual,base', '--out', str(tmp_path / 'out.json'), '--work-dir', str(tmp_path)]
    arguments += ['--cfg-options', *options]
    monkeypatch.setattr(sys, 'argv', ['test.py', config, checkpoint, *arguments])
    runpy.run_path(str(TOOLS / 'test.py'), run_name='__main__')
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == f'results: {tmp_path / "test"}'
    files = [tmp_path / f'out.{setting}.{kind}.json' for setting in ('base', 'dual') for kind in ('bbox', 'segm')]
    assert printed[:4] == [f'detections: {file}' for file in files] and all(file.is_file() for file in files)
    assert any('APr' in line for line in printed) and any('dual − base' in line for line in printed)
