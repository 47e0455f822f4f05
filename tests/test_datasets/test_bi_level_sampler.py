"""Bi-level sampling: uniform over classes, uniform over a class's images, one stream for any number of ranks."""
import gzip
import itertools
import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet.datasets.samplers import bi_level, stream_sampler
from mmdet.datasets.samplers.bi_level import BiLevelSampler, BiLevelStream
from mmdet.errors import ConfigError
from mmdet.structures import ClassFrequency


def chi_square_is_plausible(observed: np.ndarray, expected: np.ndarray) -> bool:
    """Whether Pearson's statistic is within five standard deviations of its mean under the hypothesis."""
    degrees = len(observed) - 1
    statistic = ((observed - expected) ** 2 / expected).sum()
    return abs(statistic - degrees) < 5 * np.sqrt(2 * degrees)


class CountedImages:
    """As much of a data set as the sampler asks."""

    def __init__(self, images_of_class, counts):
        self.images_to_learn_class = lambda: images_of_class
        self.frequency = ClassFrequency(tuple(map(str, range(len(counts)))), np.array(counts), np.array(counts))

    def class_frequency(self):
        return self.frequency

    def __len__(self):
        return len(np.unique(np.concatenate(self.images_to_learn_class())))


@pytest.fixture
def lvis_index(shared_data):
    """Images of each LVIS v0.5 class, as data set indices, and instance counts."""
    index = json.load(gzip.open(shared_data / 'lvis_v0.5_train_index.json.gz'))
    places = {}
    images_of_class = [
        np.array([places.setdefault(image, len(places)) for image in category['image_ids']])
        for category in index['categories']
    ]
    return images_of_class, np.array([category['instance_count'] for category in index['categories']])


def test_on_lvis_classes_and_their_images_are_uniform(lvis_index):
    images_of_class, counts = lvis_index
    _, images, labels = BiLevelStream(images_of_class, counts, seed=3).draws(0, 400_000)
    num_classes = len(images_of_class)
    assert num_classes == 1230
    assert chi_square_is_plausible(
        np.bincount(labels, minlength=num_classes), np.full(num_classes, 400_000 / num_classes)
    )
    for label in (0, 100, int(np.argmax(counts)), int(np.argmin(counts))):
        members = images_of_class[label]
        drawn = images[labels == label]
        assert np.isin(drawn, members).all()
        if 1 < len(members) <= len(drawn) / 5:
            places = np.searchsorted(np.sort(members), drawn)
            assert chi_square_is_plausible(
                np.bincount(places, minlength=len(members)), np.full(len(members), len(drawn) / len(members))
            )


def test_images_within_a_class_are_uniform():
    stream = BiLevelStream([np.arange(10), np.arange(10, 50)], np.array([10, 40]), seed=1)
    _, images, labels = stream.draws(0, 100_000)
    for label, members in enumerate((np.arange(10), np.arange(10, 50))):
        drawn = np.bincount(images[labels == label], minlength=50)[members]
        assert chi_square_is_plausible(drawn, np.full(len(members), drawn.sum() / len(members)))


def test_lvis_is_no_burden(lvis_index):
    images_of_class, counts = lvis_index
    start = time.perf_counter()
    sampler = BiLevelSampler(CountedImages(images_of_class, counts), seed=0)
    draws = list(itertools.islice(sampler, 50_000))
    # Half a second where nothing else runs; benchmarks/sampler.py measures.
    assert time.perf_counter() - start < 10
    assert [draw.number for draw in draws] == list(range(50_000))


@pytest.mark.parametrize('tau', [0.0, 0.5, 1.0])
def test_tau_weighs_classes_by_capped_counts(tau):
    counts = np.array([1, 25, 100, 5000, 0])
    images_of_class = [np.arange(max(count, 0))[:50] for count in counts]
    _, _, labels = BiLevelStream(images_of_class, counts, tau=tau, cap=100, seed=5).draws(0, 200_000)
    weight = np.minimum(counts[:4], 100.0) ** tau
    observed = np.bincount(labels, minlength=5)
    assert observed[4] == 0
    assert chi_square_is_plausible(observed[:4], 200_000 * weight / weight.sum())


@given(world=st.sampled_from([1, 2, 4, 8]), images_per_class=st.sampled_from([1, 2]), seed=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_any_number_of_ranks_shares_the_same_stream(world, images_per_class, seed):
    dataset = CountedImages([np.arange(5), np.arange(5, 9), np.arange(3)], [5, 4, 3])

    def rank_draws(rank, world_size, count):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stream_sampler, 'get_dist_info', lambda: (rank, world_size))
            patch.setattr(bi_level, 'get_world_size', lambda: world_size)
            sampler = BiLevelSampler(dataset, classes_per_step=8, images_per_class=images_per_class, seed=seed)
        assert sampler.images_per_step * world_size == 8 * images_per_class
        return list(itertools.islice(sampler, count))

    alone = rank_draws(0, 1, 64)
    shared = [rank_draws(rank, world, 64 // world) for rank in range(world)]
    assert [draw for step in zip(*shared, strict=True) for draw in step] == alone
    assert [draw.number for draw in alone] == list(range(64))
    classes = [draw.class_label for draw in alone]
    assert classes[::images_per_class] == classes[images_per_class - 1 :: images_per_class]


def test_skipping_ahead_continues_the_stream():
    dataset = CountedImages([np.arange(5), np.arange(5, 9)], [5, 4])
    whole = list(itertools.islice(BiLevelSampler(dataset, seed=2), 10_000))
    resumed = BiLevelSampler(dataset, seed=2)
    resumed.skip(5_001)
    assert list(itertools.islice(resumed, 100)) == whole[5_001:5_101]


def test_seeds_differ_and_repeat():
    images_of_class, counts = [np.arange(100)] * 5, np.full(5, 100)
    first, again, other = (BiLevelStream(images_of_class, counts, seed=seed).draws(0, 50)[1] for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_a_step_that_ranks_cannot_share_is_refused(monkeypatch):
    monkeypatch.setattr(bi_level, 'get_world_size', lambda: 3)
    with pytest.raises(ConfigError, match='classes_per_step'):
        BiLevelSampler(CountedImages([np.arange(2)], [2]), classes_per_step=16, seed=0)


@pytest.mark.parametrize(
    ('name', 'value'),
    [('classes_per_step', 0), ('classes_per_step', 1.5), ('images_per_class', 0), ('cap', 0), ('tau', float('nan'))],
)
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=rf'calibration\.sampler\.{name}={value}: must be'):
        BiLevelSampler(CountedImages([np.arange(2)], [2]), seed=0, **{name: value})


def test_no_class_with_an_image_is_refused():
    with pytest.raises(ConfigError, match='no class has a training image'):
        BiLevelStream([np.arange(0)], np.array([0]))
