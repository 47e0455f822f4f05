import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from PIL import Image

from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmdet.visualization import draw_detections


@pytest.fixture
def sample():
    instances = InstanceData(bboxes=torch.tensor([[10.0, 10, 50, 50]]), labels=torch.tensor([0]))
    sample = DetDataSample(gt_instances=instances)
    sample.pred_instances = InstanceData(**instances, scores=torch.tensor([0.8]))
    return sample


def test_draws_ground_truth_beside_predictions(sample, tmp_path):
    config = dict(type='DetLocalVisualizer', name='one', vis_backends=[dict(type='LocalVisBackend')])
    visualizer = VISUALIZERS.build(dict(config, save_dir=str(tmp_path)))
    visualizer.dataset_meta = {'classes': ('cat',)}
    image = np.full((80, 100, 3), 128, np.uint8)
    truth = draw_detections(image, sample.gt_instances, ['cat'])
    detected = draw_detections(image, sample.pred_instances, ['cat'])

    visualizer.add_datasample('both', image, sample, out_file=tmp_path / 'both.png')
    assert (np.asarray(Image.open(tmp_path / 'both.png')) == np.hstack([truth, detected])).all()
    visualizer.add_datasample('sure', image, sample, draw_gt=False, pred_score_thr=0.9, out_file=tmp_path / 'sure.png')
    assert (np.asarray(Image.open(tmp_path / 'sure.png')) == 128).all()
    visualizer.add_datasample('for_the_backend', image, sample, step=3)
    assert [path.name for path in (tmp_path / 'vis_data/vis_image').iterdir()] == ['for_the_backend_3.png']
    assert (visualizer.get_image() == np.hstack([truth, detected])).all()
