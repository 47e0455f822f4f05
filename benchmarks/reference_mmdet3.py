"""This project's outputs for a folder that mmdetection 3 made: its `model_config.py`, unchanged, loaded strictly."""
import torch
from double_precision import in_double_precision
from mmengine.config import Config, ConfigDict
from reference_outputs import Outputs, ReferenceFolder
from torch import nn

import mmdet.models  # noqa: F401  (registers the components)
from mmdet.engine.checkpoint import load_weights
from mmdet.registry import MODELS


def model_config(folder: ReferenceFolder) -> ConfigDict:
    """The model's part of `model_config.py`, which may be a whole config or the model's keys alone."""
    config = Config.fromfile(folder.path / 'model_config.py')
    return config.model if 'model' in config else config._cfg_dict


def build(folder: ReferenceFolder) -> nn.Module:
    """The detector with the folder's weights.

    Raises:
        CheckpointError: where names or shapes differ.
    """
    detector = MODELS.build(model_config(folder))
    path = folder.path / 'shapes.json'
    load_weights(detector, dict(state_dict=folder.weights(folder.shapes)), path)
    return detector.eval()


@torch.no_grad()
def outputs(folder: ReferenceFolder, device: torch.device | str = 'cpu') -> Outputs:
    """What the detector computes for the folder's photograph, in double precision."""
    detector = in_double_precision(build(folder)).to(device)
    batch = detector.data_preprocessor(folder.batch())
    inputs, samples = batch['inputs'], batch['data_samples']
    feats = detector.extract_feat(inputs)
    (proposals,) = detector.rpn_head.predict(feats, samples)
    (sample,) = detector.detect(feats, [proposals], samples)
    found = sample.pred_instances.to('cpu')
    return Outputs(
        bboxes=found.bboxes,
        scores=found.scores,
        labels=found.labels,
        masks=found.masks if 'masks' in found else None,
        proposals=torch.cat([proposals.bboxes, proposals.scores[:, None]], dim=1).cpu(),
        input_shape=list(inputs.shape),
        input_mean=inputs.mean().item(),
        fpn_stats=torch.tensor([[level.mean().item(), level.std().item()] for level in feats]),
        fpn_corners=[level[0, :4, :3, :3].cpu() for level in feats],
    )
