import json

import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from mmdet.evaluation import write_per_class
from mmdet.visualization import plot_ap_against_instances
from mmdet.visualization.ap_plot import _spread


def per_class(instances, ap):
    return [
        {'category_id': i, 'name': str(i), 'train_instances': int(n), 'segm_AP': float(a), 'bbox_AP': float(a)}
        for i, (n, a) in enumerate(zip(instances, ap, strict=True))
    ]


@pytest.fixture
def classes():
    rng = np.random.default_rng(0)
    instances = rng.permutation(np.repeat([0, 1, 2, 9, 10, 55, 99, 100, 700], 6))
    base = rng.uniform(0, 0.5, len(instances))
    base[:4] = np.nan
    return per_class(instances, base), per_class(instances, np.clip(base + rng.normal(0.05, 0.1, len(base)), 0, 1))


@pytest.mark.slow
@pytest.mark.parametrize('suffix', ['png', 'pdf', 'svg'])
def test_a_picture_is_written_and_nothing_else_is_touched(classes, tmp_path, suffix):
    path = tmp_path / f'plot.{suffix}'
    plot_ap_against_instances(*classes, path, iou_type='bbox')
    assert path.stat().st_size > 5000
    assert pyplot.get_fignums() == []
    if suffix == 'png':
        colours = np.asarray(Image.open(path).convert('RGB')).reshape(-1, 3)
        assert len(np.unique(colours, axis=0)) > 50


def test_per_class_files_can_be_plotted(classes, tmp_path):
    write_per_class(classes[0], tmp_path / 'base.json')
    rows = json.loads((tmp_path / 'base.json').read_text())
    plot_ap_against_instances(rows, rows, tmp_path / 'plot.png')
    assert (tmp_path / 'plot.png').is_file()


def test_classes_must_be_the_same(classes, tmp_path):
    with pytest.raises(ValueError, match='same classes'):
        plot_ap_against_instances(classes[0], classes[1][::-1], tmp_path / 'plot.png')


@pytest.mark.slow
def test_a_single_class_and_none(tmp_path):
    for instances in ([3], []):
        rows = per_class(instances, [0.5] * len(instances))
        plot_ap_against_instances(rows, rows, tmp_path / 'plot.png')


def test_equal_counts_are_spread_within_their_bin():
    instances = np.array([9, 10, 9, 1, 9, 10])
    spread = _spread(instances)
    assert len(set(spread)) == 6
    assert (np.floor(spread) == instances).all()
