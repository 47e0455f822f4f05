"""Samplers of images: everything once an epoch, split over ranks, repeatable, resumable."""
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet.datasets.samplers import Draw, image_samplers
from mmdet.errors import ConfigError
from mmdet.registry import DATA_SAMPLERS


class Images:
    """So many images, every third one upright."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def get_data_info(self, index):
        return dict(width=30 if index % 3 == 0 else 50, height=40)


def build(name, size, rank=0, world=1, **args):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_samplers, 'get_dist_info', lambda: (rank, world))
        return DATA_SAMPLERS.build(dict(type=name, dataset=Images(size), **args))


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 3), st.booleans())
@settings(max_examples=40, deadline=None)
def test_an_epoch_shared_by_ranks_is_the_epoch_of_one(size, world, epoch, round_up):
    whole = build('DefaultSampler', size, seed=3)
    whole.set_epoch(epoch)
    expected = list(whole)
    assert sorted(draw.index for draw in expected) == list(range(size))
    assert [draw.number for draw in expected] == list(range(epoch * size, (epoch + 1) * size))
    shares = []
    for rank in range(world):
        sampler = build('DefaultSampler', size, rank, world, seed=3, round_up=round_up)
        sampler.set_epoch(epoch)
        shares.append(list(sampler))
        assert len(sampler) == len(shares[-1])
    together = sorted((draw for share in shares for draw in share), key=lambda draw: draw.number)
    assert together[:size] == expected
    if round_up:
        assert len({len(share) for share in shares}) == 1
    else:
        assert len(together) == size


def test_epochs_differ_and_come_again():
    sampler = build('DefaultSampler', 30, seed=3)
    first = list(sampler)
    assert list(sampler) == first == list(build('DefaultSampler', 30, seed=3))
    sampler.set_epoch(1)
    assert [draw.index for draw in sampler] != [draw.index for draw in first]
    assert [draw.index for draw in build('DefaultSampler', 30, seed=4)] != [draw.index for draw in first]
    assert [draw.index for draw in build('DefaultSampler', 30, shuffle=False, seed=0)] == list(range(30))


@given(st.integers(1, 20), st.integers(1, 4), st.integers(0, 30))
@settings(max_examples=40, deadline=None)
def test_the_endless_stream_is_split_and_resumed(size, world, skipped):
    whole = list(islice(build('InfiniteSampler', size, seed=1), 100))
    assert [draw.number for draw in whole] == list(range(100))
    for epoch in range(100 // size):
        indices = [draw.index for draw in whole[epoch * size : (epoch + 1) * size]]
        assert sorted(indices) == list(range(size))
    for rank in range(world):
        sampler = build('InfiniteSampler', size, rank, world, seed=1)
        sampler.skip(skipped)
        expected = whole[rank::world][skipped:]
        assert list(islice(sampler, len(expected))) == expected


def test_the_endless_stream_in_order():
    draws = list(islice(build('InfiniteSampler', 3, shuffle=False, seed=0), 7))
    assert [draw.index for draw in draws] == [0, 1, 2, 0, 1, 2, 0]
    assert draws[0] == Draw(0, 0, 0, None)


def test_a_seed_is_agreed_on_where_none_is_given(monkeypatch):
    monkeypatch.setattr(image_samplers, 'sync_random_seed', lambda: 17)
    assert build('DefaultSampler', 5).seed == build('InfiniteSampler', 5).seed == 17


@pytest.mark.parametrize('drop_last', [False, True])
def test_batches_are_upright_or_lying(drop_last):
    sampler = build('DefaultSampler', 31, seed=0)
    batches = list(
        DATA_SAMPLERS.build(dict(type='AspectRatioBatchSampler', sampler=sampler, batch_size=4, drop_last=drop_last))
    )
    mixed = [batch for batch in batches if len({draw.index % 3 == 0 for draw in batch}) > 1]
    assert len(mixed) <= 1 and all(len(batch) == 4 for batch in batches[:-1])
    drawn = [draw.index for batch in batches for draw in batch]
    assert len(set(drawn)) == len(drawn) == (28 if drop_last else 31)
    with pytest.raises(ConfigError, match='batch_size is 0'):
        DATA_SAMPLERS.build(dict(type='AspectRatioBatchSampler', sampler=sampler, batch_size=0))
