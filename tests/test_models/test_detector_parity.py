"""The whole detector computes what mmdetection 3 does with the same weights: pyramid, proposals, detections, masks."""
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
@pytest.mark.parametrize(
    'folder', ['mmdet3_mask_rcnn_r50_lvis', 'mmdet3_cascade_mask_rcnn_r50_coco', 'mmdet3_htc_r50_coco']
)
def test_outputs_for_a_photograph(oracle, shared_data, folder, device):
    rows = compare(ReferenceFolder(oracle / folder, shared_data / 'coco128/images'), device)
    assert [row.what for row in rows] == [
        'input shape',
        'input mean',
        'FPN mean, std',
        'FPN corners',
        'proposals',
        'detections',
        'masks of the matched',
    ]
    assert not [row for row in rows if not row.passed]
