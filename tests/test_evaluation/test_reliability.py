import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdet.evaluation.class_groups import ClassGroups
from mmdet.evaluation.reliability import calibration_error

from .drawn_tables import FREQUENCIES, IMAGES, TARGETS, table_of

GROUPS = ClassGroups(FREQUENCIES, [2, 20, 200, 2000])
LABELS = {
    'ECE': [0, 1, 2, 3], 'ECEr': [0], 'ECEc': [1, 2], 'ECEf': [3], 'ECE1': [0], 'ECE2': [1], 'ECE3': [2], 'ECE4': [3]
}  # fmt: skip


@given(TARGETS, IMAGES, st.sampled_from([0, 0.05, 0.5]))
def test_the_mean_gap_between_score_and_precision(targets, images, lowest_score):
    errors = calibration_error(table_of(targets, images), GROUPS, lowest_score, score_bins=4)
    assert errors.keys() == LABELS.keys()
    for name, error in errors.items():
        judged = [
            (tenths / 10, bool(bits[0] & 1))
            for detections in images
            for label, tenths, bits in detections
            if label in LABELS[name] and tenths / 10 >= lowest_score and not bits[1] & 1
        ]
        gaps = []
        for number in range(4):
            own = [each for each in judged if min(int(each[0] * 4), 3) == number]
            assert error.detections[number] == len(own)
            if own:
                score, precision = np.mean(own, axis=0)
                assert (error.scores[number], error.precisions[number]) == pytest.approx((score, precision))
                gaps += [abs(score - precision)] * len(own)
            else:
                assert np.isnan([error.scores[number], error.precisions[number]]).all()
        assert error.error == pytest.approx(np.mean(gaps) if gaps else np.nan, nan_ok=True)


def test_scores_that_are_precisions_have_no_error():
    images = [[(0, 5, (1023, 0))], [(0, 5, (0, 0))], [(0, 10, (1, 1022))], [(0, 0, (0, 0))] * 6]
    assert calibration_error(table_of([0] * 16, images), GROUPS)['ECE'].error == 0
    sure = [[(label, 10, bits) for label, _, bits in of] for of in images[:2]] + [[], []]
    assert calibration_error(table_of([0] * 16, sure), GROUPS)['ECE'].error == pytest.approx(0.5)


def test_by_default_scores_below_a_twentieth_are_left_out():
    images = [[(0, 10, (0, 0))], [(0, 0.4, (0, 0))] * 99, [], []]
    error = calibration_error(table_of([0] * 16, images), GROUPS)['ECE']
    assert error.detections.sum() == 1 and len(error.detections) == 20
    assert error.error == 1
