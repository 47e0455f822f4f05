"""Region proposal network (Faster R-CNN, arXiv 1506.01497): where in the image there may be an object of any class."""
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torchvision.ops import nms

from mmdet.errors import ConfigError
from mmdet.models.layers.precision import at_least_float32
from mmdet.models.layers.sparse_gradient_conv import conv_with_sparse_gradient
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import DetDataSample
from mmdet.structures.boxes import include_last_pixel

OBJECT, BACKGROUND = 0, 1  # labels as in mmdetection: foreground 0..C-1, background C, here with C = 1


class LevelPredictions(NamedTuple):
    """What the network says of the A anchors of one pyramid level, in the order of `AnchorGenerator.grid_priors`.

    Attributes:
        logits: (B, A) of being an object, at least float32.
        deltas: (B, A, 4), at least float32.
        anchors: (A, 4).
        size: (height, width) of the feature map.
    """

    logits: Tensor
    deltas: Tensor
    anchors: Tensor
    size: tuple[int, int]


class AnchorTargets(NamedTuple):
    """What K sampled anchors are to learn.

    Attributes:
        image: (K,) int64, index in the batch.
        anchor: (K,) int64, index among the anchors of all levels.
        is_object: (K,) bool.
        deltas: (P, 4), of the P that are objects, in their order.
        avg_factor: by what the losses are divided.
    """

    image: Tensor
    anchor: Tensor
    is_object: Tensor
    deltas: Tensor
    avg_factor: int


@MODELS.register_module()
class RPNHead(BaseModule):
    """Scores and deltas for the anchors of a feature pyramid; proposals from them; their losses.

    Args:
        in_channels: of every level.
        anchor_generator, bbox_coder, loss_cls, loss_bbox: configs of the parts.
        feat_channels: of the shared 3x3 convolutions.
        num_convs: how many of these.
        train_cfg: `assigner`, `sampler`; `allowed_border`, by how many pixels an anchor may reach beyond the image (-1:
            as far as it likes); `pos_weight`, the weight of an object's score in the loss (-1: 1).
        test_cfg: which proposals to make: `nms_pre` best of each level, of which `nms` (type `'nms'`, `iou_threshold`,
            and `offset=1` for mmdetection 1.x's inclusive boxes) takes those larger than `min_bbox_size` pixels, each
            level for itself, of which the `max_per_img` best.
        init_cfg: how weights are made; default: normal, deviation 0.01.

    Raises:
        ConfigError: a `loss_cls` without `use_sigmoid`.
    """

    def __init__(
        self,
        in_channels: int,
        anchor_generator: dict,
        bbox_coder: dict | None = None,
        feat_channels: int = 256,
        num_convs: int = 1,
        loss_cls: dict | None = None,
        loss_bbox: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg or dict(type='Normal', layer='Conv2d', std=0.01))
        self.anchor_generator = TASK_UTILS.build(anchor_generator)
        self.bbox_coder = TASK_UTILS.build(bbox_coder or dict(type='DeltaXYWHBBoxCoder'))
        self.loss_cls = MODELS.build(loss_cls or dict(type='CrossEntropyLoss', use_sigmoid=True))
        self.loss_bbox = MODELS.build(loss_bbox or dict(type='SmoothL1Loss', beta=1 / 9))
        if not getattr(self.loss_cls, 'use_sigmoid', False):
            raise ConfigError('rpn_head.loss_cls: an RPN has one score for each anchor: set use_sigmoid=True')
        self.train_cfg = train_cfg
        self.test_cfg = test_cfg
        if train_cfg is not None:
            self.assigner = TASK_UTILS.build(train_cfg['assigner'])
            self.sampler = TASK_UTILS.build(train_cfg['sampler'])

        num_anchors = self.anchor_generator.num_base_priors[0]
        if num_convs == 1:
            self.rpn_conv = nn.Conv2d(in_channels, feat_channels, 3, padding=1)
        else:
            widths = [in_channels] + [feat_channels] * num_convs
            self.rpn_conv = nn.Sequential(
                *(ConvModule(*channels, 3, padding=1, inplace=False) for channels in pairwise(widths))
            )
        self.rpn_cls = nn.Conv2d(feat_channels, num_anchors, 1)
        self.rpn_reg = nn.Conv2d(feat_channels, num_anchors * 4, 1)

    def forward(self, feats: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Levels (B, C, H, W) -> for each, logits (B, A, H, W) and deltas (B, A * 4, H, W), A anchors in a cell."""
        shared = [F.relu(self._convolve(x), inplace=torch.is_inference_mode_enabled()) for x in feats]
        return [self.rpn_cls(x) for x in shared], [self.rpn_reg(x) for x in shared]

    def loss(self, feats: Sequence[Tensor], data_samples: Sequence[DetDataSample]) -> dict[str, list[Tensor]]:
        """The losses `loss_rpn_cls` and `loss_rpn_bbox`, one for each level."""
        return self._loss(self._predict_levels(feats), data_samples)

    def predict(
        self, feats: Sequence[Tensor], data_samples: Sequence[DetDataSample], proposal_cfg: dict | None = None
    ) -> list[InstanceData]:
        """Proposals for each image: `bboxes` (N, 4) in pixels of the network's input and `scores` (N,), best first.

        They are made by `proposal_cfg`, by default `test_cfg`.
        """
        with torch.no_grad():
            return self._propose(self._predict_levels(feats), data_samples, proposal_cfg or self.test_cfg)

    def loss_and_predict(
        self, feats: Sequence[Tensor], data_samples: Sequence[DetDataSample], proposal_cfg: dict | None = None
    ) -> tuple[dict[str, list[Tensor]], list[InstanceData]]:
        """`loss`, and proposals as of `predict` by `proposal_cfg` (default: `test_cfg`), without gradient."""
        levels = self._predict_levels(feats)
        losses = self._loss(levels, data_samples)
        with torch.no_grad():
            return losses, self._propose(levels, data_samples, proposal_cfg or self.test_cfg)

    def _convolve(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, feat_channels, H, W), through the shared convolutions."""
        if isinstance(self.rpn_conv, nn.Conv2d):
            return conv_with_sparse_gradient(x, self.rpn_conv)
        return self.rpn_conv(x)

    def _predict_levels(self, feats: Sequence[Tensor]) -> list[LevelPredictions]:
        logits, deltas = self(feats)
        sizes = [tuple(x.shape[-2:]) for x in logits]
        anchors = self.anchor_generator.grid_priors(sizes, device=logits[0].device)
        # Numbers in the order of the anchors.
        logits = [at_least_float32(x.permute(0, 2, 3, 1).flatten(1)) for x in logits]
        deltas = [at_least_float32(x.permute(0, 2, 3, 1).reshape(len(x), -1, 4)) for x in deltas]
        return [LevelPredictions(*level) for level in zip(logits, deltas, anchors, sizes, strict=True)]

    def _loss(
        self, levels: Sequence[LevelPredictions], data_samples: Sequence[DetDataSample]
    ) -> dict[str, list[Tensor]]:
        targets = self._targets(levels, data_samples)
        object_image, object_anchor = targets.image[targets.is_object], targets.anchor[targets.is_object]
        labels = torch.where(targets.is_object, OBJECT, BACKGROUND)
        pos_weight = self.train_cfg.get('pos_weight', -1)
        weights = torch.where(targets.is_object, pos_weight if pos_weight > 0 else 1.0, 1.0)
        losses = dict(loss_rpn_cls=[], loss_rpn_bbox=[])
        first = 0
        for level in levels:
            last = first + len(level.anchors)
            here = (first <= targets.anchor) & (targets.anchor < last)
            logits = level.logits[targets.image[here], targets.anchor[here] - first]
            losses['loss_rpn_cls'].append(
                self.loss_cls(logits[:, None], labels[here], weights[here], avg_factor=targets.avg_factor)
            )
            here = (first <= object_anchor) & (object_anchor < last)
            deltas = level.deltas[object_image[here], object_anchor[here] - first]
            losses['loss_rpn_bbox'].append(self.loss_bbox(deltas, targets.deltas[here], avg_factor=targets.avg_factor))
            first = last
        return losses

    @torch.no_grad()
    def _targets(self, levels: Sequence[LevelPredictions], data_samples: Sequence[DetDataSample]) -> AnchorTargets:
        """Sample anchors in every image."""
        anchors = torch.cat([level.anchors for level in levels])
        image, anchor, is_object, deltas, avg_factor = [], [], [], [], 0
        for i, sample in enumerate(data_samples):
            usable = self._usable(levels, anchors, sample).nonzero().flatten()
            candidates = anchors[usable]
            gt_boxes = sample.gt_instances.bboxes
            no_class = torch.full((len(gt_boxes),), OBJECT, device=gt_boxes.device)
            ignored = sample.ignored_instances.bboxes if 'ignored_instances' in sample else None
            assignment = self.assigner.assign(candidates, gt_boxes, no_class, ignored)
            sampled = self.sampler.sample(assignment, candidates, gt_boxes, no_class)
            anchor.append(usable[torch.cat([sampled.pos_index, sampled.neg_index])])
            image.append(torch.full_like(anchor[-1], i))
            is_object.append(torch.arange(len(anchor[-1]), device=anchors.device) < len(sampled.pos_index))
            deltas.append(self.bbox_coder.encode(sampled.pos_boxes, sampled.pos_gt_boxes))
            avg_factor += sampled.avg_factor
        return AnchorTargets(torch.cat(image), torch.cat(anchor), torch.cat(is_object), torch.cat(deltas), avg_factor)

    def _usable(self, levels: Sequence[LevelPredictions], anchors: Tensor, sample: DetDataSample) -> Tensor:
        """Whether each of the anchors (N, 4) of all levels may be sampled in this image, (N,) bool."""
        sizes = [level.size for level in levels]
        usable = torch.cat(self.anchor_generator.valid_flags(sizes, sample.pad_shape, anchors.device))
        border = self.train_cfg.get('allowed_border', -1)
        if border >= 0:
            height, width = sample.img_shape[:2]
            limit = anchors.new_tensor([width + border, height + border])
            usable &= (anchors[:, :2] >= -border).all(dim=1) & (anchors[:, 2:] < limit).all(dim=1)
        return usable

    def _propose(
        self, levels: Sequence[LevelPredictions], data_samples: Sequence[DetDataSample], cfg: dict
    ) -> list[InstanceData]:
        """Proposals for each image by `cfg`, see `test_cfg`."""
        if cfg['nms'].get('type', 'nms') != 'nms':
            raise ConfigError(f"the RPN's nms must be of type 'nms', not {cfg['nms']['type']!r}")
        proposals = []
        for i, sample in enumerate(data_samples):
            found = [self._propose_of_level(level, i, sample.img_shape, cfg) for level in levels]
            boxes, scores = (torch.cat(of_levels) for of_levels in zip(*found, strict=True))
            scores, best = scores.sort(descending=True, stable=True)
            best = best[: cfg['max_per_img']]
            proposals.append(InstanceData(bboxes=boxes[best], scores=scores[: len(best)]))
        return proposals

    def _propose_of_level(
        self, level: LevelPredictions, image: int, img_shape: Sequence[int], cfg: dict
    ) -> tuple[Tensor, Tensor]:
        """Boxes (N, 4) that survive suppression and their scores (N,), best first."""
        scores = level.logits[image].sigmoid()
        best = _first_in_order(scores, cfg['nms_pre'])
        scores = scores[best]
        boxes = self.bbox_coder.decode(level.anchors[best], level.deltas[image, best], max_shape=img_shape)
        if cfg.get('min_bbox_size', 0) >= 0:
            large = (boxes[:, 2:] - boxes[:, :2] > cfg.get('min_bbox_size', 0)).all(dim=1)
            boxes, scores = boxes[large], scores[large]
        extents = include_last_pixel(boxes) if cfg['nms'].get('offset', 0) else boxes
        keep = nms(extents, scores, cfg['nms']['iou_threshold'])
        return boxes[keep], scores[keep]


def _first_in_order(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest of `scores` (N,), largest first, ties by index; all if `count` is not positive."""
    if 0 < count < len(scores):
        # Several times faster than to sort all of them, and alike where many scores are exactly 1.
        candidates = (scores >= scores.topk(count).values[-1]).nonzero().flatten()
        return candidates[scores[candidates].sort(descending=True, stable=True).indices[:count]]
    return scores.sort(descending=True, stable=True).indices
