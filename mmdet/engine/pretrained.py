"""Weights that a config names, `init_cfg=dict(type='Pretrained', checkpoint=...)`, read as every checkpoint is here.

mmengine reads files and addresses as pickles that may run code. torchvision's names: see
`mmdet/models/backbones/torchvision_weights.py`.
"""
from typing import Any

import torch
from mmengine.runner.checkpoint import CheckpointLoader, get_deprecated_model_names, get_external_models

from mmdet.errors import CheckpointError

from .checkpoint import read_checkpoint


@CheckpointLoader.register_scheme(prefixes=('', 'http://', 'https://'), force=True)
def load_named_weights(path: str, map_location: torch.device | str | None = None) -> dict[str, Any]:
    """`read_checkpoint` of a file or an address."""
    return read_checkpoint(path, map_location or 'cpu')


@CheckpointLoader.register_scheme(prefixes=('open-mmlab://', 'openmmlab://'), force=True)
def load_openmmlab_weights(name: str, map_location: torch.device | str | None = None) -> dict[str, Any]:
    """`read_checkpoint` of what OpenMMLab published under a name, `open-mmlab://detectron2/resnet50_caffe`.

    Raises:
        CheckpointError: there are no such weights, or they cannot be had.
    """
    model = name.partition('://')[2]
    model = get_deprecated_model_names().get(model, model)
    if model not in get_external_models():
        raise CheckpointError(f'{name}: OpenMMLab has no such weights; name a file or an address instead')
    return load_named_weights(get_external_models()[model], map_location)
