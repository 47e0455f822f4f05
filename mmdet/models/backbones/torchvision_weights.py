"""ImageNet weights by name: `init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')`."""
import torch
from mmengine.dist import barrier, get_rank
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor
from torch.hub import load_state_dict_from_url
from torchvision.models import get_model_weights

from mmdet.errors import CheckpointError

PREFIX = 'torchvision://'


@CheckpointLoader.register_scheme(prefixes=PREFIX, force=True)
def load_torchvision_weights(name: str, map_location: torch.device | str | None = None) -> dict[str, Tensor]:
    """The state dict of a torchvision model, downloaded unless torch's hub has it in its cache.

    mmengine's own loader of this name reads the file as a pickle that may run code; this one takes tensors only.

    Args:
        name: `torchvision://resnet50`, the first weights published, or `torchvision://resnet50.imagenet1k_v2`.
        map_location: device of the tensors.

    Raises:
        CheckpointError: there are no such weights, or they cannot be had.
    """
    url = _url_of(name)
    # The first process downloads, the others then find the file.
    weights = _load(name, url, map_location) if get_rank() == 0 else None
    barrier()
    return weights if weights is not None else _load(name, url, map_location)


def _url_of(name: str) -> str:
    model, _, version = name.removeprefix(PREFIX).partition('.')
    try:
        return get_model_weights(model)[(version or 'IMAGENET1K_V1').upper()].url
    except (ValueError, KeyError) as error:
        raise CheckpointError(
            f'{name}: torchvision has no such weights; write torchvision://MODEL, e.g. torchvision://resnet50'
        ) from error


def _load(name: str, url: str, map_location: torch.device | str | None) -> dict[str, Tensor]:
    try:
        return load_state_dict_from_url(url, map_location=map_location, check_hash=True, weights_only=True)
    except Exception as error:  # a damaged file makes the unpickler raise almost anything
        why = f'{type(error).__name__}: {error}'.splitlines()[0]
        raise CheckpointError(
            f'{name}: cannot load {url} ({why}); put an intact file into {torch.hub.get_dir()}/checkpoints'
        ) from error
