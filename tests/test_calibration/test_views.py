"""Which visits share a view, against a visit-by-visit account."""
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet.calibration import View, Visit, share_views

streams = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(np.array)


@given(images=streams, visits_per_view=st.integers(1, 5), seed=st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_visits_open_views_in_turn_and_share_those_of_their_image(images, visits_per_view, seed):
    seen = share_views(images, seed, visits_per_view).tolist()
    visits, opened = {}, {}
    for number, image in enumerate(images.tolist()):
        nth = visits[image] = visits.get(image, -1) + 1
        if nth % visits_per_view == 0:
            opened.setdefault(image, []).append(number)
            assert seen[number] == number
        assert seen[number] in opened[image]


@given(images=streams, length=st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_a_longer_calibration_begins_with_the_views_of_a_shorter_one(images, length):
    whole = share_views(images, 0, 2)
    assert np.array_equal(share_views(images[:length], 0, 2), whole[:length])


def test_each_opened_view_is_as_likely_as_any_other():
    # Visit 39 sees one of the views opened at visits 0, 10, 20 and 30.
    seen = [share_views(np.zeros(40, np.int64), seed, 10)[39] for seed in range(400)]
    counts = np.bincount(seen, minlength=31)
    assert counts.sum() == counts[[0, 10, 20, 30]].sum()
    assert (np.abs(counts[[0, 10, 20, 30]] - 100) < 40).all()


def test_a_visit_is_the_first_of_its_own_view_only():
    assert Visit(7, 1, View(3, 0, 7)).is_first
    assert not Visit(8, 1, View(3, 0, 7)).is_first
