"""Batch norms as after training."""
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def with_statistics(model: nn.Module) -> nn.Module:
    """The model in evaluation mode, with batch norms none of whose numbers is that of another channel."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.uniform_(tensor, -0.5, 0.5)
    return model.eval()
