"""Which calibrators no other one beats, and their picture."""
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmdet.visualization.pareto_plot import Point, pareto_front, plot_pareto_front

pairs = st.tuples(st.integers(0, 5), st.integers(0, 5))
points = st.lists(pairs.map(lambda pair: Point('a', 'published', *pair)), min_size=1, max_size=9)


@given(points)
def test_the_front_has_what_no_other_point_beats(points):
    front = pareto_front(points)
    for number, point in enumerate(points):
        beaten = [p for p in points if p.rare >= point.rare and p.frequent >= point.frequent and p[2:] != point[2:]]
        assert (number in front) == (not beaten)


def test_a_picture_of_fifty_calibrators(tmp_path):
    many = [Point(f'calibrator {i}', ('published', 'chosen')[i % 2], i % 7, 50 - i % 11) for i in range(50)]
    plot_pareto_front(many, 'mask AP', tmp_path / 'pareto.png')
    assert Image.open(tmp_path / 'pareto.png').size == (1440, 1120)
