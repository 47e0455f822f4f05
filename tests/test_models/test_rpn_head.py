import json

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from torchvision.ops import batched_nms

from mmdet.errors import ConfigError
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.boxes import box_iou
from mmdet.utils.seeding import keyed_torch_rng

STRIDES = [4, 8, 16]
NMS = dict(type='nms', iou_threshold=0.7)
CONFIG = dict(
    type='RPNHead',
    in_channels=8,
    feat_channels=8,
    anchor_generator=dict(type='AnchorGenerator', scales=[4], ratios=[0.5, 1.0, 2.0], strides=STRIDES),
    bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
    loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
    loss_bbox=dict(type='L1Loss', loss_weight=2.0),
    train_cfg=dict(
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3, ignore_iof_thr=-1),
        sampler=dict(type='RandomSampler', num=64, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(nms_pre=50, max_per_img=40, nms=NMS, min_bbox_size=0),
)


def head_and_feats(device='cpu', size=(64, 96), batch=2, **change):
    """A head whose scores and deltas are of a size that matters, and a pyramid for it."""
    torch.manual_seed(3)
    head = MODELS.build(dict(CONFIG, **change)).to(device)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    feats = [torch.randn(batch, 8, size[0] // s, size[1] // s, device=device, requires_grad=True) for s in STRIDES]
    return head, feats


def sample(boxes, device='cpu', img_shape=(60, 90), pad_shape=(64, 96), ignored=()):
    data_sample = DetDataSample(metainfo=dict(img_shape=img_shape, pad_shape=pad_shape, scale_factor=(2.0, 0.5)))
    for name, some in (('gt_instances', boxes), ('ignored_instances', ignored)):
        bboxes = torch.tensor(some, dtype=torch.float32, device=device).reshape(-1, 4)
        labels = torch.arange(len(bboxes), device=device) + 17
        setattr(data_sample, name, InstanceData(bboxes=bboxes, labels=labels))
    return data_sample


def samples(device='cpu'):
    return [sample([[4, 6, 30, 40], [50, 10, 58, 22]], device), sample([], device)]


def dense_losses(head, feats, data_samples, allowed_border=-1, pos_weight=1.0):
    """mmdetection's way: targets and weights for every anchor of every image, level by level."""
    scores, deltas = head(feats)
    sizes = [score.shape[-2:] for score in scores]
    levels = head.anchor_generator.grid_priors(sizes, device=feats[0].device)
    anchors = torch.cat(levels)
    count = len(anchors)
    labels, weights = torch.ones(len(data_samples), count), torch.zeros(len(data_samples), count)
    targets, box_weights = torch.zeros(len(data_samples), count, 4), torch.zeros(len(data_samples), count, 1)
    avg_factor = 0
    for i, data_sample in enumerate(data_samples):
        inside = torch.cat(head.anchor_generator.valid_flags(sizes, data_sample.pad_shape))
        if allowed_border >= 0:
            height, width = data_sample.img_shape
            inside &= (anchors[:, 0] >= -allowed_border) & (anchors[:, 1] >= -allowed_border)
            inside &= (anchors[:, 2] < width + allowed_border) & (anchors[:, 3] < height + allowed_border)
        place = inside.nonzero().flatten()
        gt = data_sample.gt_instances
        assignment = head.assigner.assign(anchors[place], gt.bboxes, gt.labels, data_sample.ignored_instances.bboxes)
        sampled = head.sampler.sample(assignment, anchors[place], gt.bboxes, gt.labels)
        positive = place[sampled.pos_index]
        labels[i, positive] = 0
        weights[i, positive] = pos_weight
        weights[i, place[sampled.neg_index]] = 1
        targets[i, positive] = head.bbox_coder.encode(anchors[positive], sampled.pos_gt_boxes)
        box_weights[i, positive] = 1
        avg_factor += max(len(sampled.pos_index), 1) + max(len(sampled.neg_index), 1)
    losses = dict(loss_rpn_cls=[], loss_rpn_bbox=[])
    pieces = [x.split([len(level) for level in levels], dim=1) for x in (labels, weights, targets, box_weights)]
    for score, delta, label, weight, target, box_weight in zip(scores, deltas, *pieces, strict=True):
        logits = score.permute(0, 2, 3, 1).reshape(len(score), -1)
        bce = F.binary_cross_entropy_with_logits(logits, 1 - label, weight, reduction='sum')
        delta = delta.permute(0, 2, 3, 1).reshape(len(delta), -1, 4)
        losses['loss_rpn_cls'].append(bce / avg_factor)
        losses['loss_rpn_bbox'].append(2 * ((delta - target).abs() * box_weight).sum() / avg_factor)
    return losses


def assert_same_losses(found, expected):
    assert found.keys() == expected.keys()
    for name, by_level in expected.items():
        assert len(found[name]) == len(STRIDES)
        for a, b in zip(found[name], by_level, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize('allowed_border', [-1, 0, 5])
@pytest.mark.parametrize('pos_weight', [-1, 3.0])
def test_losses_are_mmdetections(allowed_border, pos_weight):
    train_cfg = dict(CONFIG['train_cfg'], allowed_border=allowed_border, pos_weight=pos_weight)
    head, feats = head_and_feats(train_cfg=train_cfg)
    data_samples = samples()
    data_samples[1] = sample([[10, 10, 26, 26]], img_shape=(30, 40), pad_shape=(32, 64))
    with keyed_torch_rng(1):
        found = head.loss(feats, data_samples)
    with keyed_torch_rng(1):
        expected = dense_losses(head, feats, data_samples, allowed_border, pos_weight if pos_weight > 0 else 1.0)
    assert sum(found['loss_rpn_bbox']) > 0
    assert_same_losses(found, expected)

    grads = []
    for losses in (found, expected):
        total = sum(sum(by_level) for by_level in losses.values())
        grads.append(torch.autograd.grad(total, list(head.parameters()) + feats, retain_graph=True))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(('ignore_iof_thr', 'background_in_crowds'), [(-1, True), (0.5, False)])
def test_crowds_follow_the_assigner(ignore_iof_thr, background_in_crowds):
    assigner = dict(CONFIG['train_cfg']['assigner'], ignore_iof_thr=ignore_iof_thr)
    sampler = dict(type='PseudoSampler')
    head, feats = head_and_feats(batch=1, train_cfg=dict(CONFIG['train_cfg'], assigner=assigner, sampler=sampler))
    data_sample = sample([[70, 40, 90, 60]], ignored=[[0, 0, 40, 64]])
    levels = head._predict_levels(feats)
    targets = head._targets(levels, [data_sample])
    background = torch.cat([level.anchors for level in levels])[targets.anchor[~targets.is_object]]
    in_crowd = box_iou(background, data_sample.ignored_instances.bboxes, mode='iof') > 0.5
    assert in_crowd.any() == background_in_crowds and not in_crowd.all()


def test_no_object_in_any_image(device):
    head, feats = head_and_feats(device)
    losses = head.loss(feats, [sample([], device), sample([], device)])
    total = sum(sum(by_level) for by_level in losses.values())
    assert torch.isfinite(total) and sum(losses['loss_rpn_bbox']) == 0
    total.backward()
    for parameter in head.parameters():  # so that no rank of a distributed run lacks one
        assert parameter.grad is not None


def propose_slowly(head, feats, img_shape, cfg, image):
    scores, deltas = head(feats)
    levels = head.anchor_generator.grid_priors([score.shape[-2:] for score in scores], device=feats[0].device)
    found = []
    for i, (score, delta, anchors) in enumerate(zip(scores, deltas, levels, strict=True)):
        score = score[image].permute(1, 2, 0).reshape(-1).sigmoid()
        delta = delta[image].permute(1, 2, 0).reshape(-1, 4)
        order = score.sort(descending=True, stable=True).indices
        if cfg['nms_pre'] > 0:
            order = order[: cfg['nms_pre']]
        boxes = head.bbox_coder.decode(anchors[order], delta[order], max_shape=img_shape)
        found.append((boxes, score[order], torch.full_like(order, i)))
    boxes, scores, levels = (torch.cat(of_levels) for of_levels in zip(*found, strict=True))
    large = ((boxes[:, 2:] - boxes[:, :2]) > cfg['min_bbox_size']).all(1) | (cfg['min_bbox_size'] < 0)
    boxes, scores, levels = boxes[large], scores[large], levels[large]
    extents = boxes + boxes.new_tensor([0, 0, 1, 1]) * cfg['nms'].get('offset', 0)
    keep = batched_nms(extents, scores, levels, cfg['nms']['iou_threshold'])[: cfg['max_per_img']]
    return boxes[keep], scores[keep]


@pytest.mark.parametrize(
    'change',
    [
        {},
        dict(nms_pre=-1),
        dict(nms_pre=100000),
        dict(min_bbox_size=12),
        dict(min_bbox_size=-1),
        dict(max_per_img=7),
        dict(nms=dict(NMS, offset=1)),
    ],
)
def test_proposals_are_the_best_of_each_level_suppressed(change, device):
    head, feats = head_and_feats(device)
    cfg = dict(CONFIG['test_cfg'], **change)
    head.test_cfg = cfg
    data_samples = samples(device)
    for i, proposals in enumerate(head.predict(feats, data_samples)):
        boxes, scores = propose_slowly(head, feats, (60, 90), cfg, image=i)
        torch.testing.assert_close(proposals.bboxes, boxes)
        torch.testing.assert_close(proposals.scores, scores)
        assert proposals.bboxes[:, 0::2].max() <= 90 and proposals.bboxes[:, 1::2].max() <= 60
        assert not proposals.bboxes.requires_grad


def test_equal_scores_are_taken_in_order():
    """Sigmoids saturate: hundreds of anchors may score exactly 1."""
    head, feats = head_and_feats(batch=1)
    torch.nn.init.constant_(head.rpn_cls.bias, 100.0)
    cfg = CONFIG['test_cfg']
    (proposals,) = head.predict(feats, samples()[:1])
    boxes, scores = propose_slowly(head, feats, (60, 90), cfg, image=0)
    assert (scores == 1).all()
    torch.testing.assert_close(proposals.bboxes, boxes)


def test_losses_and_proposals_in_one_pass():
    head, feats = head_and_feats()
    data_samples = samples()
    with keyed_torch_rng(5):
        losses, proposals = head.loss_and_predict(feats, data_samples, dict(CONFIG['test_cfg'], max_per_img=9))
    with keyed_torch_rng(5):
        assert_same_losses(losses, head.loss(feats, data_samples))
    for found, expected in zip(proposals, head.predict(feats, data_samples), strict=True):
        assert len(found) == 9 and not found.bboxes.requires_grad
        assert torch.equal(found.bboxes, expected.bboxes[:9])


def test_half_precision_keeps_coordinates(device):
    head, feats = head_and_feats(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        losses, proposals = head.loss_and_predict(feats, samples(device))
    assert proposals[0].bboxes.dtype is torch.float32
    assert all(loss.dtype is torch.float32 for by_level in losses.values() for loss in by_level)
    sum(sum(by_level) for by_level in losses.values()).backward()


def test_parameters_have_mmdetections_names(oracle):
    shapes = json.loads((oracle / 'mmdet3_mask_rcnn_r50_lvis' / 'shapes.json').read_text())
    expected = {k.removeprefix('rpn_head.'): v for k, v in shapes.items() if k.startswith('rpn_head.')}
    head = MODELS.build(dict(CONFIG, in_channels=256, feat_channels=256))
    assert {name: list(value.shape) for name, value in head.state_dict().items()} == expected


def test_several_shared_convolutions():
    head = MODELS.build(dict(CONFIG, num_convs=2, feat_channels=4))
    assert {'rpn_conv.0.conv.weight', 'rpn_conv.1.conv.bias'} <= set(head.state_dict())
    head.init_weights()
    assert head.rpn_conv[1].conv.weight.std().item() == pytest.approx(0.01, rel=0.3)
    assert [x.shape[1] for x in head([torch.randn(1, 8, 5, 5)] * 3)[1]] == [12, 12, 12]


def test_what_an_rpn_cannot_do_is_refused():
    with pytest.raises(ConfigError, match='use_sigmoid'):
        MODELS.build(dict(CONFIG, loss_cls=dict(type='CrossEntropyLoss')))
    head, feats = head_and_feats()
    with pytest.raises(ConfigError, match='soft_nms'):
        head.loss_and_predict(feats, samples(), dict(CONFIG['test_cfg'], nms=dict(type='soft_nms', iou_threshold=0.5)))
    with pytest.raises(TypeError, match='feat_chanels'):
        MODELS.build(dict(CONFIG, feat_chanels=3))
