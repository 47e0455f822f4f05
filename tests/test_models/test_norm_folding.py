"""Training with folded norms is training without: outputs, gradients of every parameter, statistics.

And whatever changes a parameter, the next pass without gradients is one with the new values.
"""
import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.model import Sequential
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from mmdet.models import norm_folding, optimize_for_inference, optimize_for_training
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


IMAGES = torch.randn(1, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def manual(parameters: list[nn.Parameter]) -> Callable[[], None]:
    """Steps that leave no trace, as those of optimizers in other libraries and of ZeRO's broadcasts."""

    def step() -> None:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.data.sub_(0.1 * parameter.grad)

    return step


STEPS = dict(
    plain=lambda parameters: torch.optim.SGD(parameters, lr=0.1, foreach=False).step,
    foreach=lambda parameters: torch.optim.AdamW(parameters, lr=0.1, foreach=True).step,
    fused_sgd=lambda parameters: torch.optim.SGD(parameters, lr=0.1, fused=True).step,
    fused_adam=lambda parameters: torch.optim.AdamW(parameters, lr=0.1, fused=True).step,
    manual=manual,
)


@pytest.mark.parametrize('kind', STEPS)
@pytest.mark.parametrize('optimize', [optimize_for_training, optimize_for_inference])
# What stands between brackets happens between two parts of a step, or after one.
@pytest.mark.parametrize(
    'order',
    [
        'train forward backward step clear eval [look look]',
        'train forward backward step eval [look]',
        'forward backward step clear [look look]',
        'forward [look] backward [look] step [look] clear [look look]',
        'train forward backward [eval look] step [look] clear [look]',
        'train forward [eval look] backward step clear eval [look]',
        'train forward backward eval [look] train forward backward step clear eval [look]',
    ],
)
def test_validation_sees_every_step(kind, optimize, order):
    plain = backbone(depth=18, norm_eval=True, frozen_stages=1)
    model = optimize(copy.deepcopy(plain))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    losses = []

    def look() -> None:
        plain.load_state_dict(model.state_dict())
        with torch.no_grad():
            expected = plain.eval()(IMAGES)
        with torch.inference_mode(optimize is optimize_for_inference), torch.no_grad():
            torch.testing.assert_close(model(IMAGES), expected)

    actions = dict(
        train=model.train,
        eval=model.eval,
        forward=lambda: losses.append(sum(output.square().mean() for output in model(IMAGES))),
        backward=lambda: losses.pop().backward(),
        step=STEPS[kind](trained),
        clear=lambda: [setattr(parameter, 'grad', None) for parameter in trained],
        look=look,
    )
    look()
    before = copy.deepcopy(model.state_dict())
    for _ in range(2):
        for action in order.translate(str.maketrans('', '', '[]')).split():
            actions[action]()
    look()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {'layer2.0.conv1.weight', 'layer4.1.bn2.bias'} <= changed and 'conv1.weight' not in changed


@given(st.lists(st.sampled_from(['load', 'write', 'data', 'new', 'cast', 'look', 'copy']), max_size=8))
def test_whatever_is_written_is_seen(writes):
    torch.manual_seed(0)
    plain = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).double()
    model = optimize_for_training(copy.deepcopy(plain)).eval()
    for number, what in enumerate([*writes, 'look']):
        weight = model[0].weight
        if what == 'load':
            model.load_state_dict({name: tensor * 1.5 for name, tensor in model.state_dict().items()})
        elif what == 'write':
            with torch.no_grad():
                model[1].running_mean.add_(number + 1)
        elif what == 'data':
            weight.data.mul_(2)
            model.eval()
        elif what == 'new':
            weight.data = weight.data * 2
        elif what == 'cast':
            model.float().double()
        elif what == 'copy':
            model = copy.deepcopy(model)
        plain.load_state_dict(model.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(model(IMAGES), plain(IMAGES))


@pytest.mark.parametrize('optimize', [optimize_for_training, optimize_for_inference])
def test_a_validation_folds_once(optimize, monkeypatch):
    folds = []
    fold = norm_folding._fold
    monkeypatch.setattr(norm_folding, '_fold', lambda conv, norm: folds.append(conv) or fold(conv, norm))
    model = optimize(backbone(depth=18, norm_eval=True))
    outputs_and_gradients(model.train(), IMAGES)
    for parameter in model.parameters():
        parameter.grad = None
    folds.clear()
    model.eval()
    for _ in range(3):
        with torch.inference_mode(optimize is optimize_for_inference), torch.no_grad():
            model(IMAGES)
    assert len(folds) == len(set(folds)) == sum(isinstance(module, nn.Conv2d) for module in model.modules())


class Doubling(nn.Sequential):
    """Gives a norm something else than what the convolution before it returns."""

    def forward(self, x: Tensor) -> Tensor:
        for module in self:
            x = 2 * module(x)
        return x


class SharedConv(nn.Module):
    """One convolution before two norms, as in heads with a norm for each level of the pyramid."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d(3, 3, 3, padding=1)
        self.branches = nn.ModuleList(nn.Sequential(conv, nn.BatchNorm2d(3)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches])


class ShiftedNorm(nn.BatchNorm2d):
    """Does more than normalise."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


@pytest.mark.parametrize(
    ('make', 'num_folded'),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), BatchNormAct2d(4)), 0),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), ShiftedNorm(4)), 0),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), 0),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True, track_running_stats=True)), 0),
        (lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)), 0),
        (lambda: Doubling(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), 0),
        (SharedConv, 0),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4)), 1),
        (lambda: Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU()), 1),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)), 1),
    ],
)
def test_only_norms_that_do_no_more_are_folded(make, num_folded):
    torch.manual_seed(0)
    plain = make().double().eval()
    for module in plain.modules():
        for tensor in (getattr(module, 'running_mean', None), getattr(module, 'running_var', None)):
            if tensor is not None:
                nn.init.uniform_(tensor, 0.5, 1.5)
    folded = optimize_for_training(copy.deepcopy(plain))
    with torch.no_grad():
        torch.testing.assert_close(folded(IMAGES), plain(IMAGES))
    assert sum('forward' in vars(module) for module in folded.modules() if isinstance(module, nn.Conv2d)) == num_folded
