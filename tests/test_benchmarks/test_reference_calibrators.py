"""Every calibrator against the reference outputs of its authors' code, and what a fault in one would look like."""
import numpy as np
import pytest
import reference_calibrators
import torch
from reference_calibrators import METHODS, compare_file


@pytest.mark.parametrize('name', METHODS)
def test_calibrators_agree_with_their_authors_code(oracle, name):
    rows = compare_file(oracle / f'calibrators/{name}.npz')
    assert rows and not [row for row in rows if not row.worst <= row.allowed]


def test_a_fault_is_found(oracle, tmp_path, monkeypatch):
    """A gamma a little off, a row that is not a number, an array of another shape."""
    arrays = dict(np.load(oracle / 'calibrators/norcal.npz'))
    arrays['scores_exps_gamma_1p0'][3, 5] = np.nan
    arrays['scores_exps_cb_0p99'] = arrays['scores_exps_cb_0p99'][1:]
    np.savez(tmp_path / 'norcal.npz', **arrays)
    monkeypatch.setattr(reference_calibrators.NorCal, 'adjusted', lambda self, scores: scores * self.factors**1.01)
    wrong = {row.what for row in compare_file(tmp_path / 'norcal.npz') if not row.worst <= row.allowed}
    assert wrong == {'scores_exps_gamma_0p6', 'scores_exps_gamma_1p0', 'scores_exps_cb_0p99'}


def test_a_file_of_no_known_method_is_refused(tmp_path):
    np.savez(tmp_path / 'other.npz', logits=torch.zeros(1))
    with pytest.raises(FileNotFoundError, match='of no method known here; there are acsl, bags'):
        compare_file(tmp_path / 'other.npz')
