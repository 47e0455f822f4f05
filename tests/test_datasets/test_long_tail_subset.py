"""Long-tail subsets: the counts asked for, and whole images."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdet.datasets import read_json
from mmdet.datasets.long_tail_subset import choose_images, power_law, write_long_tail_subset
from mmdet.errors import ConfigError


def test_the_power_law_runs_from_head_to_tail_by_frequency():
    wanted = power_law(np.array([50, 900, 3, 200]), head=100, tail=4)
    assert wanted[1] == 100 and wanted[2] == 4
    assert wanted[1] > wanted[3] > wanted[0] > wanted[2]


@given(st.integers(0, 9), st.lists(st.integers(0, 30), min_size=3, max_size=3))
def test_classes_that_never_meet_get_exactly_what_is_asked_for(seed, wanted):
    counts = np.eye(3, dtype=np.int64).repeat(20, axis=0)
    chosen = choose_images(counts, np.array(wanted), seed)
    assert counts[chosen].sum(axis=0).tolist() == np.minimum(wanted, 20).tolist()


@given(st.integers(0, 99))
def test_no_image_left_out_would_bring_more_than_it_overshoots(seed):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(0.7, (60, 5))
    wanted = np.array([40, 20, 10, 5, 2])
    chosen = choose_images(counts, wanted, seed)
    obtained = counts[chosen].sum(axis=0)
    missing = np.maximum(wanted - obtained, 0)
    for image in np.setdiff1d(np.arange(60), chosen):
        gain = np.minimum(counts[image], missing).sum()
        assert gain <= counts[image].sum() - gain
    assert np.maximum(obtained - wanted, 0).sum() < np.minimum(obtained, wanted).sum()
    assert np.array_equal(chosen, choose_images(counts, wanted, seed))


def test_photographs(shared_data, tmp_path):
    source = shared_data / 'coco128/instances.json'
    table = write_long_tail_subset(source, tmp_path / 'subset.json', head=100, tail=1)
    subset = read_json(tmp_path / 'subset.json')
    obtained = {name: number for name, _, number in table}
    names = {category['id']: category['name'] for category in subset['categories']}
    kept = {image['id'] for image in subset['images']}
    annotations = [a for a in read_json(source)['annotations'] if a['image_id'] in kept]
    assert subset['annotations'] == annotations
    for name in ('person', 'dog'):
        assert obtained[name] == sum(names[a['category_id']] == name for a in annotations)
    assert table[0][:2] == ('person', 100) and abs(table[0][2] - 100) <= 20


@pytest.mark.parametrize(
    ('settings', 'message'),
    [(dict(head=5, tail=10), 'head >= tail'), (dict(wanted={'unicorn': 3}), 'its classes and no others')],
)
def test_what_cannot_be_met_is_refused(tiny, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        write_long_tail_subset(tiny.write(), tmp_path / 'subset.json', **settings)
    assert not (tmp_path / 'subset.json').exists()
