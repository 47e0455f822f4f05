"""Training with folded norms is training without: outputs, gradients of every parameter, statistics."""
import copy

import pytest
import torch
from torch import Tensor, nn

from mmdet.models import optimize_for_training
from mmdet.registry import MODELS

from .norm_statistics import with_statistics


def backbone(**options) -> nn.Module:
    """A small ResNet in training mode, none of whose norms is the identity."""
    torch.manual_seed(0)
    model = MODELS.build(dict(dict(type='ResNet', depth=50, base_channels=8, init_cfg=[]), **options))
    return with_statistics(model).double().train()


def outputs_and_gradients(model: nn.Module, images: Tensor) -> tuple[list[Tensor], dict[str, Tensor | None]]:
    outputs = model(images)
    sum((output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum() for output in outputs).backward()
    return [output.detach() for output in outputs], {name: each.grad for name, each in model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize(
    'options',
    [
        dict(norm_eval=True),
        dict(norm_eval=True, frozen_stages=1),
        dict(norm_eval=True, with_cp=True),
        dict(norm_eval=True, norm_cfg=dict(type='BN', requires_grad=False)),
        dict(norm_eval=True, type='ResNetV1d'),
        dict(norm_eval=True, type='ResNeXt', groups=4, base_width=2),
    ],
)
def test_outputs_and_gradients(options):
    plain = backbone(**options)
    folded = optimize_for_training(copy.deepcopy(plain))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    expected, expected_gradients = outputs_and_gradients(plain, images)
    found, gradients = outputs_and_gradients(folded, images)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients, expected_gradients)
    assert folded.state_dict().keys() == plain.state_dict().keys()


def test_norms_that_learn_their_statistics_are_not_folded():
    plain = backbone(norm_eval=False)
    folded = optimize_for_training(copy.deepcopy(plain))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(
        outputs_and_gradients(folded, images), outputs_and_gradients(plain, images), atol=0, rtol=0
    )
    torch.testing.assert_close(folded.state_dict(), plain.state_dict(), atol=0, rtol=0)


def test_less_is_kept_for_the_backward_pass():
    def kept(model: nn.Module) -> int:
        sizes = {}

        def keep(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs = model(torch.zeros(1, 3, 256, 256, dtype=torch.float64))  # noqa: F841  they hold what is kept
        return sum(sizes.values())

    assert kept(optimize_for_training(backbone(norm_eval=True))) < 0.65 * kept(backbone(norm_eval=True))


def test_validation_between_steps():
    plain = backbone(norm_eval=True, norm_cfg=dict(type='BN', requires_grad=False))
    for parameter in plain.layer4.parameters():
        parameter.requires_grad_(False)
    folded = optimize_for_training(copy.deepcopy(plain))
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    expected = outputs_and_gradients(plain, images)
    with torch.inference_mode():
        folded.eval()(images)
    torch.testing.assert_close(outputs_and_gradients(folded.train(), images), expected)
    with torch.no_grad():
        torch.testing.assert_close(folded.eval()(images), plain.eval()(images))
