"""The released code's own outputs: from its files through the converter to the same logits, detections and masks."""
import pytest
import torch
from parity import compare
from reference_outputs import ReferenceFolder


@pytest.fixture(autouse=True)
def both_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize('folder', ['simcal_release_r50_agnostic', 'simcal_release_r50_agnostic_flat'])
def test_outputs_for_a_photograph(oracle, shared_data, folder, device):
    rows = compare(ReferenceFolder(oracle / folder, shared_data / 'coco128/images'), device)
    assert [row.what for row in rows] == [
        'input shape',
        'input mean',
        'FPN mean, std',
        'proposals',
        'cls_logits_first20',
        'calibrated_logits_first20',
        'detections',
        'masks of the matched',
    ]
    assert not [row for row in rows if not row.passed]
