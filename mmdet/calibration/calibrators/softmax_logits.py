"""The logits of a frozen base as an ordinary softmax has them."""
from collections.abc import Sequence

from torch import Tensor, nn

from mmdet.errors import ConfigError
from mmdet.models.layers.precision import at_least_float32


def check_softmax(base_heads: Sequence[nn.Module], calibrator: str) -> None:
    """See that a base's logits are those of a softmax over C + 1 classes, or can be made so.

    Raises:
        ConfigError: naming the base's loss.
    """
    loss = base_heads[0].loss_cls
    if base_heads[0].has_custom_cls_logits and not hasattr(loss, 'to_softmax_logits'):
        raise ConfigError(
            f'calibration.calibrator.type={calibrator} works on softmax logits, and the base was trained with '
            f'{type(loss).__name__}, which has none; choose one that works on scores (NorCal) or has a head of its own'
        )


def softmax_logits(head: nn.Module, logits: Tensor) -> Tensor:
    """From a base's logits to (R, C + 1) float32 whose softmax are its scores."""
    logits = at_least_float32(logits)
    return head.loss_cls.to_softmax_logits(logits) if head.has_custom_cls_logits else logits


def check_linear(base_heads: Sequence[nn.Module], calibrator: str) -> None:
    """See that a base's last layer is an ordinary linear one with C + 1 outputs.

    Raises:
        ConfigError: naming what it is.
    """
    head = base_heads[0]
    if type(head.fc_cls) is not nn.Linear or head.has_custom_cls_logits:
        kind = type(head.loss_cls if head.has_custom_cls_logits else head.fc_cls).__name__
        raise ConfigError(
            f'calibration.calibrator.type={calibrator} changes the weights of a linear last layer of C + 1 outputs, '
            f'and the base has {kind}; choose another calibrator'
        )
