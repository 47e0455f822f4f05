"""Mask R-CNN as detectron2 computes it, in calls of torch and torchvision: what converted weights are compared with.

A reading of detectron2's `ResNet`, `FPN`, `RPN`, `StandardROIHeads` and `detector_postprocess`, in evaluation and for
one image, on a state dict with its names. Nothing here is shared with the project.
"""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms, roi_align

RESNETS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
ANCHOR_SIZES = (32, 64, 128, 256, 512)
ASPECT_RATIOS = (0.5, 1.0, 2.0)
STRIDES = (4, 8, 16, 32, 64)
SCALE_CLAMP = math.log(1000 / 16)


@dataclass
class Settings:
    """The keys of a detectron2 config that these models differ in."""

    depth: int = 50
    num_groups: int = 1
    width_per_group: int = 64
    stride_in_1x1: bool = True
    num_classes: int = 80
    pixel_mean: tuple = (103.53, 116.28, 123.675)
    pixel_std: tuple = (1.0, 1.0, 1.0)
    post_nms_topk: int = 1000
    score_thresh: float = 0.05
    detections_per_image: int = 100


def shapes(cfg: Settings) -> dict[str, tuple[int, ...]]:
    """Every parameter and buffer by detectron2's name."""
    found = {}

    def conv(name, out, into, size, norm=True):
        found[f'{name}.weight'] = (out, into, size, size)
        if norm:
            for kind in ('weight', 'bias', 'running_mean', 'running_var'):
                found[f'{name}.norm.{kind}'] = (out,)
        else:
            found[f'{name}.bias'] = (out,)

    def linear(name, out, into):
        found[f'{name}.weight'], found[f'{name}.bias'] = (out, into), (out,)

    conv('backbone.bottom_up.stem.conv1', 64, 3, 7)
    channels, width = 64, cfg.num_groups * cfg.width_per_group
    for stage, blocks in enumerate(RESNETS[cfg.depth], start=2):
        out = 256 * 2 ** (stage - 2)
        for block in range(blocks):
            name = f'backbone.bottom_up.res{stage}.{block}'
            if block == 0:
                conv(f'{name}.shortcut', out, channels, 1)
            conv(f'{name}.conv1', width, channels, 1)
            conv(f'{name}.conv2', width, width // cfg.num_groups, 3)
            conv(f'{name}.conv3', out, width, 1)
            channels = out
        width *= 2
        conv(f'backbone.fpn_lateral{stage}', 256, out, 1, norm=False)
        conv(f'backbone.fpn_output{stage}', 256, 256, 3, norm=False)
    conv('proposal_generator.rpn_head.conv', 256, 256, 3, norm=False)
    conv('proposal_generator.rpn_head.objectness_logits', 3, 256, 1, norm=False)
    conv('proposal_generator.rpn_head.anchor_deltas', 12, 256, 1, norm=False)
    linear('roi_heads.box_head.fc1', 1024, 256 * 49)
    linear('roi_heads.box_head.fc2', 1024, 1024)
    linear('roi_heads.box_predictor.cls_score', cfg.num_classes + 1, 1024)
    linear('roi_heads.box_predictor.bbox_pred', 4 * cfg.num_classes, 1024)
    for i in range(1, 5):
        conv(f'roi_heads.mask_head.mask_fcn{i}', 256, 256, 3, norm=False)
    found['roi_heads.mask_head.deconv.weight'] = (256, 256, 2, 2)
    found['roi_heads.mask_head.deconv.bias'] = (256,)
    conv('roi_heads.mask_head.predictor', cfg.num_classes, 256, 1, norm=False)
    return found


class Reference:
    """The detector of one state dict, which computes in the precision of its weights."""

    def __init__(self, weights: dict[str, Tensor], cfg: Settings):
        self.weights = weights
        self.cfg = cfg

    def conv(self, x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        """A convolution that keeps the size but for the stride, with its frozen norm or its bias."""
        weight = self.weights[f'{name}.weight']
        x = F.conv2d(x, weight, self.weights.get(f'{name}.bias'), stride, weight.shape[-1] // 2, groups=groups)
        if f'{name}.norm.weight' not in self.weights:
            return x
        kinds = (f'{name}.norm.{kind}' for kind in ('running_mean', 'running_var', 'weight', 'bias'))
        return F.batch_norm(x, *(self.weights[kind] for kind in kinds), eps=1e-5)

    def linear(self, x: Tensor, name: str) -> Tensor:
        """A fully connected layer."""
        return F.linear(x, self.weights[f'{name}.weight'], self.weights[f'{name}.bias'])

    def bottom_up(self, x: Tensor) -> list[Tensor]:
        """res2 to res5."""
        x = F.max_pool2d(self.conv(x, 'backbone.bottom_up.stem.conv1', stride=2).relu(), 3, stride=2, padding=1)
        stages = []
        for stage, blocks in enumerate(RESNETS[self.cfg.depth], start=2):
            for block in range(blocks):
                name = f'backbone.bottom_up.res{stage}.{block}'
                stride = 2 if block == 0 and stage > 2 else 1
                first, second = (stride, 1) if self.cfg.stride_in_1x1 else (1, stride)
                out = self.conv(x, f'{name}.conv1', first).relu()
                out = self.conv(out, f'{name}.conv2', second, self.cfg.num_groups).relu()
                out = self.conv(out, f'{name}.conv3')
                x = (out + (self.conv(x, f'{name}.shortcut', stride) if block == 0 else x)).relu()
            stages.append(x)
        return stages

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """p2 to p6."""
        top, levels = None, []
        for stage, feats in reversed(list(enumerate(self.bottom_up(x), start=2))):
            lateral = self.conv(feats, f'backbone.fpn_lateral{stage}')
            top = lateral if top is None else lateral + F.interpolate(top, scale_factor=2.0, mode='nearest')
            levels.insert(0, self.conv(top, f'backbone.fpn_output{stage}'))
        return [*levels, F.max_pool2d(levels[-1], 1, stride=2)]

    def proposals(self, levels: list[Tensor], size: tuple[int, int]) -> Tensor:
        """(N, 4) of one image, best first."""
        head, boxes, scores, level_of = 'proposal_generator.rpn_head', [], [], []
        for i, level in enumerate(levels):
            hidden = self.conv(level, f'{head}.conv').relu()
            logits = self.conv(hidden, f'{head}.objectness_logits').permute(0, 2, 3, 1).flatten()
            deltas = self.conv(hidden, f'{head}.anchor_deltas')
            deltas = deltas.view(3, 4, *deltas.shape[-2:]).permute(2, 3, 0, 1).reshape(-1, 4)
            logits, best = logits.topk(min(1000, len(logits)))
            boxes.append(apply_deltas(anchors(i, level.shape[-2:])[best], deltas[best], (1, 1, 1, 1)))
            scores.append(logits)
            level_of.append(torch.full_like(best, i))
        boxes, scores, level_of = clipped(torch.cat(boxes), size), torch.cat(scores), torch.cat(level_of)
        filled = nonempty(boxes)
        boxes, scores, level_of = boxes[filled], scores[filled], level_of[filled]
        return boxes[batched_nms(boxes, scores, level_of, 0.7)[: self.cfg.post_nms_topk]]

    def pool(self, levels: list[Tensor], boxes: Tensor, side: int) -> Tensor:
        """(R, 256, side, side): RoIAlignV2 from the level a box's size belongs to."""
        sizes = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
        level_of = torch.floor(4 + torch.log2(sizes / 224 + torch.finfo(torch.float64).eps)).clamp(2, 5).long() - 2
        pooled = levels[0].new_zeros(len(boxes), 256, side, side)
        for i in range(4):
            mine = (level_of == i).nonzero().flatten()
            pooled[mine] = roi_align(levels[i], [boxes[mine]], side, 1 / STRIDES[i], sampling_ratio=0, aligned=True)
        return pooled

    @torch.no_grad()
    def __call__(self, image: Tensor, output_size: tuple[int, int]) -> dict[str, Tensor]:
        """Detections of a resized BGR image (3, H, W) in 0..255, for an output of (height, width)."""
        size = tuple(image.shape[-2:])
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.cfg.pixel_mean, self.cfg.pixel_std))
        padding = (0, -size[1] % 32, 0, -size[0] % 32)
        inputs = F.pad((image - mean) / std, padding)[None]
        levels = self.pyramid(inputs.to(self.weights['backbone.bottom_up.stem.conv1.weight'].dtype))
        proposals = self.proposals(levels, size)

        x = self.linear(self.pool(levels, proposals, 7).flatten(1), 'roi_heads.box_head.fc1').relu()
        x = self.linear(x, 'roi_heads.box_head.fc2').relu()
        scores = self.linear(x, 'roi_heads.box_predictor.cls_score').softmax(-1)[:, :-1]
        deltas = self.linear(x, 'roi_heads.box_predictor.bbox_pred').view(len(x), -1, 4)
        boxes = apply_deltas(proposals[:, None], deltas, (10, 10, 5, 5))
        roi, labels = (scores > self.cfg.score_thresh).nonzero(as_tuple=True)
        boxes, scores = clipped(boxes[roi, labels], size), scores[roi, labels]
        kept = batched_nms(boxes, scores, labels, 0.5)[: self.cfg.detections_per_image]
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]

        x = self.pool(levels, boxes, 14)
        for i in range(1, 5):
            x = self.conv(x, f'roi_heads.mask_head.mask_fcn{i}').relu()
        deconv = 'roi_heads.mask_head.deconv'
        x = F.conv_transpose2d(x, self.weights[f'{deconv}.weight'], self.weights[f'{deconv}.bias'], stride=2).relu()
        masks = self.conv(x, 'roi_heads.mask_head.predictor')[torch.arange(len(x)), labels].sigmoid()

        boxes = boxes * torch.tensor([output_size[1] / size[1], output_size[0] / size[0]] * 2)
        boxes = clipped(boxes, output_size)
        filled = nonempty(boxes)
        boxes, scores, labels, masks = boxes[filled], scores[filled], labels[filled], masks[filled]
        return dict(boxes=boxes, scores=scores, labels=labels, masks=pasted(masks, boxes, output_size))


def anchors(level: int, grid: tuple[int, int]) -> Tensor:
    """(grid cells * 3, 4): rows, columns, aspect ratios; offset 0."""
    area = ANCHOR_SIZES[level] ** 2
    cell = []
    for ratio in ASPECT_RATIOS:
        width = math.sqrt(area / ratio)
        height = ratio * width
        cell.append([-width / 2, -height / 2, width / 2, height / 2])
    y, x = torch.meshgrid(*(torch.arange(n) * STRIDES[level] for n in grid), indexing='ij')
    shifts = torch.stack([x, y, x, y], -1).view(-1, 1, 4)
    return (shifts + torch.tensor(cell)).view(-1, 4)


def apply_deltas(boxes: Tensor, deltas: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Box2BoxTransform: (..., 4) boxes moved by (..., 4) deltas."""
    dx, dy, dw, dh = (deltas / torch.tensor(weights)).unbind(-1)
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    x, y = boxes[..., 0] + 0.5 * width + dx * width, boxes[..., 1] + 0.5 * height + dy * height
    width, height = dw.clamp(max=SCALE_CLAMP).exp() * width, dh.clamp(max=SCALE_CLAMP).exp() * height
    return torch.stack([x - 0.5 * width, y - 0.5 * height, x + 0.5 * width, y + 0.5 * height], -1)


def clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut to an image of (height, width)."""
    return torch.stack([boxes[:, i].clamp(0, size[1 - i % 2]) for i in range(4)], 1)


def nonempty(boxes: Tensor) -> Tensor:
    """Which have an area."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def pasted(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, H, W) bool: every pixel samples its mask bilinearly, as on a GPU: on the whole image."""
    x0, y0, x1, y1 = (side.view(-1, 1) for side in boxes.unbind(1))
    y = (torch.arange(size[0]) + 0.5 - y0) / (y1 - y0) * 2 - 1
    x = (torch.arange(size[1]) + 0.5 - x0) / (x1 - x0) * 2 - 1
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), -1)
    return F.grid_sample(masks[:, None], grid, align_corners=False)[:, 0] >= 0.5
