import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder

from mmdet.models.task_modules import Box2BoxTransform, DeltaXYWHBBoxCoder, LegacyDeltaXYWHBBoxCoder

CODERS = [DeltaXYWHBBoxCoder, LegacyDeltaXYWHBBoxCoder]
STDS = (0.1, 0.1, 0.2, 0.2)


def boxes(seed, count=20):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 100
    return torch.cat([corners, corners + 2 + torch.rand(count, 2, generator=generator) * 80], dim=1)


@pytest.mark.parametrize('coder', CODERS)
@given(seed=st.integers(0, 1000))
def test_decoding_undoes_encoding(coder, seed):
    coder = coder((0.1, 0, -0.2, 0), STDS, clip_border=False)
    given_boxes, wanted = boxes(seed), boxes(seed + 1)
    torch.testing.assert_close(
        coder.decode(given_boxes, coder.encode(given_boxes, wanted)), wanted, atol=1e-3, rtol=1e-4
    )


@pytest.mark.parametrize(('coder', 'inclusive'), list(zip(CODERS, (0, 1), strict=True)))
def test_deltas_are_the_papers(coder, inclusive):
    p, g = [10.0, 20, 29, 59], [12.0, 18, 51, 57]
    means, stds = (0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 0.8)
    width, height = p[2] - p[0] + inclusive, p[3] - p[1] + inclusive
    wanted_width, wanted_height = g[2] - g[0] + inclusive, g[3] - g[1] + inclusive
    deltas = [
        ((g[0] + g[2]) / 2 - (p[0] + p[2]) / 2) / width,
        ((g[1] + g[3]) / 2 - (p[1] + p[3]) / 2) / height,
        math.log(wanted_width / width),
        math.log(wanted_height / height),
    ]
    expected = [(d - m) / s for d, m, s in zip(deltas, means, stds, strict=True)]
    assert coder(means, stds).encode(torch.tensor([p]), torch.tensor([g]))[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(('coder', 'last'), list(zip(CODERS, (0, 1), strict=True)))
def test_decoded_boxes_stay_in_the_image(coder, last):
    deltas = torch.tensor([[-3.0, -3, 1, 1], [3, 3, 1, 1]])
    given_boxes = torch.tensor([[0.0, 0, 40, 30]]).repeat(2, 1)
    decoded = coder().decode(given_boxes, deltas, max_shape=(50, 60))
    assert decoded.min() == 0
    assert decoded[1].tolist() == [60 - last, 50 - last, 60 - last, 50 - last]
    beyond = coder(clip_border=False).decode(given_boxes, deltas, max_shape=(50, 60))
    assert beyond.min() < 0 and beyond.max() > 60


def test_sizes_change_at_most_by_the_ratio():
    box, deltas = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 9, -9]])
    x1, y1, x2, y2 = DeltaXYWHBBoxCoder().decode(box, deltas)[0].tolist()
    assert (x2 - x1, y2 - y1) == pytest.approx((10 / 0.016, 10 * 0.016), rel=1e-3)
    x1, y1, x2, y2 = DeltaXYWHBBoxCoder().decode(box, deltas, wh_ratio_clip=0.5)[0].tolist()
    assert (x2 - x1, y2 - y1) == pytest.approx((20, 5))


def test_the_centre_may_be_limited_in_pixels():
    coder = DeltaXYWHBBoxCoder(add_ctr_clamp=True, ctr_clamp=7)
    x1, y1, x2, y2 = coder.decode(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, -0.2, 9, -9]]))[0].tolist()
    assert ((x1 + x2) / 2, (y1 + y2) / 2) == pytest.approx((12, 3), abs=1e-3)
    assert (x2 - x1, y2 - y1) == pytest.approx((10 / 0.016, 10 * math.exp(-9)), rel=1e-3)


@pytest.mark.parametrize('coder', CODERS)
def test_every_class_has_deltas_of_its_own(coder, device):
    coder = coder(target_stds=STDS)
    given_boxes, deltas = boxes(0).to(device), torch.randn(20, 3 * 4).to(device)
    together = coder.decode(given_boxes, deltas, max_shape=(100, 120))
    for c in range(3):
        alone = coder.decode(given_boxes, deltas[:, c * 4 : c * 4 + 4], max_shape=(100, 120))
        assert torch.equal(together[:, c * 4 : c * 4 + 4], alone)


def test_nothing_decodes_to_nothing():
    assert DeltaXYWHBBoxCoder().decode(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)
    assert DeltaXYWHBBoxCoder().encode(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)


def test_box2box_transform_decodes_as_torchvision():
    """Boxes grow at most 62.5-fold, and shrink as far as the deltas say."""
    given_boxes, deltas = boxes(0), torch.randn(20, 3 * 4, generator=torch.Generator().manual_seed(1)) * 30
    theirs = BoxCoder((10.0, 10.0, 5.0, 5.0)).decode(deltas, [given_boxes]).flatten(1)
    ours = Box2BoxTransform(target_stds=STDS).decode(given_boxes, deltas)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-3)
    shrunken = DeltaXYWHBBoxCoder(target_stds=STDS).decode(given_boxes, deltas)
    assert ((shrunken - theirs).abs() > 1e-2).any()
