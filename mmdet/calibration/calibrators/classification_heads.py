"""The heads SimCal re-trains: one forward path from RoI features to class logits."""
import copy

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet.errors import ConfigError


def random_head(base_head: nn.Module, num_layers: int) -> nn.Sequential:
    """`num_layers` fully connected layers in PyTorch's default initialisation, on the base head's input.

    (R, D, S, S) -> (R, C + 1); the hidden layers are as wide as the base head's (12544-1024-(C+1) for `2fc`).
    """
    features = base_head.in_channels * base_head.roi_feat_size**2
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(num_layers - 1):
        layers += [nn.Linear(features, base_head.fc_out_channels), nn.ReLU()]
        features = base_head.fc_out_channels
    layers.append(nn.Linear(features, base_head.num_classes + 1))
    return nn.Sequential(*layers)


class FineTunedHead(nn.Module):
    """A copy of everything in the base head between the RoI features and the class logits, whatever its layers.

    Batch norms among them keep the base's statistics: a step's few RoIs are no sample of what the head will see.
    """

    def __init__(self, base_head: nn.Module):
        super().__init__()
        self.path = copy.deepcopy(base_head)
        for unused in ('fc_reg', 'reg_convs', 'reg_fcs', 'loss_cls', 'loss_bbox', 'bbox_coder'):
            if hasattr(self.path, unused):
                delattr(self.path, unused)
        self.path.requires_grad_(True)

    def train(self, mode: bool = True) -> 'FineTunedHead':
        """As of `torch.nn.Module`, except that batch norms stay in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def forward(self, roi_feats: Tensor) -> Tensor:
        """(R, D, S, S) -> (R, C + 1), or as many logits as the base's loss defines."""
        return self.path.classify(self.path.shared(roi_feats))


HEADS = {
    '2fc_rand': lambda base_head: random_head(base_head, num_layers=2),
    '3fc_rand': lambda base_head: random_head(base_head, num_layers=3),
    '3fc_ft': FineTunedHead,
}


def build_head(name: str, base_head: nn.Module) -> nn.Module:
    """A head to calibrate by its name in the paper: `2fc_rand`, `3fc_rand` or `3fc_ft`."""
    if name not in HEADS:
        raise ConfigError(f'calibration.calibrator.head={name!r}: choose one of {", ".join(HEADS)}')
    return HEADS[name](base_head)
