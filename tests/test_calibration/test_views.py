"""Which visits share a view, against a visit-by-visit account."""
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet.calibration import View, Visit, share_views, views_of_images

streams = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(np.array)


@given(images=streams, visits_per_view=st.integers(1, 5), seed=st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_the_first_visits_of_an_image_open_its_views_and_the_others_share_them(images, visits_per_view, seed):
    views = share_views(images, seed, visits_per_view)
    assert [view.index for view in views] == images.tolist() and {view.seed for view in views} == {seed}
    seen = np.array([view.number for view in views])
    for image in np.unique(images):
        visits = np.flatnonzero(images == image)
        num_views = -(-len(visits) // visits_per_view)
        assert seen[visits[:num_views]].tolist() == visits[:num_views].tolist()
        assert set(seen[visits]) == set(visits[:num_views])


def test_each_view_is_as_likely_as_any_other():
    seen = [view.number for view in share_views(np.zeros(4000, np.int64), 0, 1000)[4:]]
    counts = np.bincount(seen, minlength=4)
    assert len(counts) == 4 and (np.abs(counts - 999) < 120).all()


def test_views_follow_the_seed():
    images = np.arange(300) % 3
    assert share_views(images, 5, 10) == share_views(images, 5, 10)
    numbers = [[view.number for view in share_views(images, seed, 10)] for seed in (5, 6)]
    assert numbers[0] != numbers[1]


def test_a_visit_is_the_first_of_its_own_view_only():
    assert Visit(0, 7, 1, View(3, 0, 7)).is_first
    assert not Visit(0, 8, 1, View(3, 0, 7)).is_first
    assert not Visit(1, 7, 1, View(3, 0, 7)).is_first


def test_views_of_images_are_the_same_for_all_runs_and_each_as_likely_as_any_other():
    images = np.arange(3000) % 5
    runs = [views_of_images(images, seed, 5, 3) for seed in (0, 1)]
    assert set(runs[0]) == set(runs[1]) and len(set(runs[0])) == 5 * 3
    assert runs[0] != runs[1] and [view.index for view in runs[0]] == images.tolist()
    counts = np.unique([view.number for view in runs[0]], return_counts=True)[1]
    assert (np.abs(counts - 200) < 60).all()
