"""mmdetection 1.0rc0 and the SimCal release, from the feature pyramid to detections, in plain loops.

Weights go by their released names, and all is computed in their precision; background is class 0. Nothing here is
shared with the package.
"""
import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

STRIDES = (4, 8, 16, 32, 64)
ROI_STRIDES = STRIDES[:4]
LARGEST_LOG_RATIO = abs(math.log(16 / 1000))
Box = list[float]


class Image(NamedTuple):
    """Sizes are (height, width); `factor` turns original pixels into those of the network input."""

    size: tuple[int, int]
    original_size: tuple[int, int]
    factor: float


class Detection(NamedTuple):
    """In original pixels; labels are 0-based and without background."""

    box: Box
    score: float
    label: int
    mask: np.ndarray


@dataclass
class ReleasedModel:
    """A detector of the release and its calibrated heads.

    Args:
        weights: of the detector, by released names.
        heads: of each stage, likewise.
        stds: the box coder's, stage by stage.
        counts: training instances of the classes, without background.
    """

    weights: dict[str, Tensor]
    heads: list[dict[str, Tensor]]
    stds: list[list[float]]
    counts: list[int]
    threshold: int
    nms_pre: int
    max_proposals: int
    score_thr: float
    max_per_img: int

    def detect(self, pyramid: list[Tensor], image: Image, setting: str) -> list[Detection]:
        """Of one image with its pyramid of (1, D, H, W), by the scores of a setting."""
        boxes = self.proposals(pyramid, image)
        base, calibrated = [], []
        for stage in range(len(self.stds)):
            feats = self.roi_feats(pyramid, boxes, 7)
            head = self.stage_name('bbox_head', stage)
            shared = feats.flatten(1)
            for layer in (0, 1):
                shared = self.linear(f'{head}.shared_fcs.{layer}', shared).relu()
            base.append(self.linear(f'{head}.fc_cls', shared))
            calibrated.append(self.calibrated_logits(stage, feats, shared))
            deltas = self.linear(f'{head}.fc_reg', shared).tolist()
            if stage + 1 < len(self.stds):
                pairs = zip(boxes, deltas, strict=True)
                boxes = [decoded(box, delta, self.stds[stage], image.size) for box, delta in pairs]
        scores = self.scores(sum(base) / len(base), sum(calibrated) / len(calibrated), setting)

        kept = []
        for label in range(1, len(self.counts) + 1):
            candidates = []
            for box, delta, of_classes in zip(boxes, deltas, scores.tolist(), strict=True):
                if of_classes[label] > self.score_thr:
                    own = delta if len(delta) == 4 else delta[4 * label : 4 * label + 4]
                    moved = decoded(box, own, self.stds[-1], image.size)
                    candidates.append((of_classes[label], [corner / image.factor for corner in moved]))
            kept += [(score, box, label) for score, box in suppressed(candidates, 0.5)]
        kept = sorted(kept, key=lambda detection: -detection[0])[: self.max_per_img]
        return [
            Detection(box, score, label - 1, self.mask(pyramid, box, label, image)) for score, box, label in kept
        ]

    def proposals(self, pyramid: list[Tensor], image: Image) -> list[Box]:
        """Boxes of the network input, best first."""
        found = []
        for feats, stride in zip(pyramid, STRIDES, strict=True):
            shared = self.conv('rpn_head.rpn_conv', feats, 1).relu()
            scores = self.conv('rpn_head.rpn_cls', shared)[0].sigmoid().numpy()
            deltas = self.conv('rpn_head.rpn_reg', shared)[0].numpy()
            of_level = []
            for row in range(scores.shape[1]):
                for column in range(scores.shape[2]):
                    for i, anchor in enumerate(anchors_of_first_cell(stride)):
                        placed = [corner + stride * (column, row)[k % 2] for k, corner in enumerate(anchor)]
                        delta = deltas[4 * i : 4 * i + 4, row, column]
                        of_level.append((scores[i, row, column], placed, delta))
            best = sorted(of_level, key=lambda anchor: -anchor[0])[: self.nms_pre]
            found += suppressed([(score, decoded(box, delta, [1] * 4, image.size)) for score, box, delta in best], 0.7)
        return [box for _, box in sorted(found, key=lambda proposal: -proposal[0])[: self.max_proposals]]

    def roi_feats(self, pyramid: list[Tensor], boxes: list[Box], size: int) -> Tensor:
        """(R, D, size, size), with the semantic branch's share where there is one."""
        pooled = []
        for box in boxes:
            level = level_of(box)
            feats = pool(pyramid[level][0].numpy(), box, ROI_STRIDES[level], size)
            if 'semantic_head.conv_embedding.conv.weight' in self.weights:
                semantic = torch.from_numpy(pool(self.semantic_feats(pyramid), box, 8, 14))
                feats = feats + F.adaptive_avg_pool2d(semantic, size).numpy()
            pooled.append(feats)
        return torch.from_numpy(np.stack(pooled)).to(pyramid[0].dtype)

    def semantic_feats(self, pyramid: list[Tensor]) -> np.ndarray:
        fused = self.conv('semantic_head.lateral_convs.1.conv', pyramid[1]).relu()
        for level in (0, 2, 3, 4):
            resized = F.interpolate(pyramid[level], fused.shape[-2:], mode='bilinear', align_corners=True)
            fused = fused + self.conv(f'semantic_head.lateral_convs.{level}.conv', resized).relu()
        for i in range(4):
            fused = self.conv(f'semantic_head.convs.{i}.conv', fused, 1).relu()
        return self.conv('semantic_head.conv_embedding.conv', fused).relu()[0].numpy()

    def calibrated_logits(self, stage: int, feats: Tensor, shared: Tensor) -> Tensor:
        """Of RoI features (R, D, 7, 7), from which the base's last layer but one has made (R, D')."""
        return calibrated_logits(self.heads[stage], feats.flatten(1))

    def scores(self, base: Tensor, calibrated: Tensor, setting: str) -> Tensor:
        p, q = base.softmax(1), calibrated.softmax(1)
        scores = q.clone() if setting == 'calibrated' else p.clone()
        if setting == 'dual':
            for label, count in enumerate(self.counts, start=1):
                if count < self.threshold:
                    scores[:, label] = q[:, label]
        return scores

    def mask(self, pyramid: list[Tensor], box: Box, label: int, image: Image) -> np.ndarray:
        """(H, W) bool of the original image: the mean of all stages' masks."""
        scaled = [corner * image.factor for corner in box]
        feats, previous, probabilities = self.roi_feats(pyramid, [scaled], 14), None, []
        for stage in range(len(self.stds)):
            head = self.stage_name('mask_head', stage)
            hidden = feats
            if previous is not None:
                hidden = feats + self.conv(f'{head}.conv_res.conv', previous).relu()
            for i in range(4):
                hidden = self.conv(f'{head}.convs.{i}.conv', hidden, 1).relu()
            previous = hidden
            weight, bias = self.parameters(f'{head}.upsample')
            logits = self.conv(f'{head}.conv_logits', F.conv_transpose2d(hidden, weight, bias, stride=2).relu())[0]
            probabilities.append((logits[0] if len(logits) == 1 else logits[label]).sigmoid().numpy())
        left, top, right, bottom = (int(corner) for corner in box)
        width, height = max(right - left + 1, 1), max(bottom - top + 1, 1)
        resized = cv2.resize(np.mean(probabilities, axis=0), (width, height), interpolation=cv2.INTER_LINEAR)
        mask = np.zeros(image.original_size, dtype=bool)
        mask[top : top + height, left : left + width] = resized > 0.5
        return mask

    def stage_name(self, head: str, stage: int) -> str:
        return f'{head}.{stage}' if len(self.stds) > 1 else head

    def parameters(self, name: str) -> tuple[Tensor, Tensor]:
        return self.weights[f'{name}.weight'], self.weights[f'{name}.bias']

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, *self.parameters(name))

    def conv(self, name: str, x: Tensor, padding: int = 0) -> Tensor:
        return F.conv2d(x, *self.parameters(name), padding=padding)


class ReleasedBags(ReleasedModel):
    """A detector of BAGS: `weights` are those of its base, `heads` its own last layer, stage by stage."""

    def calibrated_logits(self, stage: int, feats: Tensor, shared: Tensor) -> Tensor:
        return F.linear(shared, self.heads[stage]['weight'], self.heads[stage]['bias'])

    def scores(self, base: Tensor, calibrated: Tensor, setting: str) -> Tensor:
        if setting == 'base':
            return base.softmax(1)
        return torch.tensor([bags_scores(logits, self.counts) for logits in calibrated.tolist()])


def bags_scores(logits: list[float], counts: list[int]) -> list[float]:
    """A RoI's scores, background first, from its outputs: a pair, and four groups filled category by category."""
    groups = [['background', 'object'], ['others'], ['others'], ['others'], ['others']]
    for category, count in enumerate(counts, start=1):
        number = 1 if count < 10 else 2 if count < 100 else 3 if count < 1000 else 4
        groups[number].append(category)
    probabilities, remaining = {}, list(logits)
    for group in groups:
        exponentials = [math.exp(remaining.pop(0)) for _ in group]
        for member, exponential in zip(group, exponentials, strict=True):
            probabilities[member] = exponential / sum(exponentials)
    assert not remaining
    of_classes = [probabilities['object'] * probabilities[category] for category in range(1, len(counts) + 1)]
    return [probabilities['background'], *of_classes]


def calibrated_logits(head: dict[str, Tensor], feats: Tensor) -> Tensor:
    """Through the fully connected layers of a head, in the order in which the release lists them."""
    layers = [name.removesuffix('.weight') for name in head if name.endswith('.weight')]
    for layer in layers:
        feats = F.linear(feats, head[f'{layer}.weight'], head[f'{layer}.bias'])
        if layer != layers[-1]:
            feats = feats.relu()
    return feats


def anchors_of_first_cell(stride: int) -> list[Box]:
    """Scale 8, three ratios of height to width, corners rounded."""
    center, anchors = (stride - 1) / 2, []
    for ratio in (0.5, 1.0, 2.0):
        width, height = 8 * stride / math.sqrt(ratio), 8 * stride * math.sqrt(ratio)
        halves = ((width - 1) / 2, (height - 1) / 2)
        anchors.append([float(round(center + sign * half)) for sign in (-1, 1) for half in halves])
    return anchors


def decoded(box: Box, delta: list[float], stds: list[float], size: tuple[int, int]) -> Box:
    width, height = box[2] - box[0] + 1, box[3] - box[1] + 1
    dx, dy, dw, dh = (float(value) * std for value, std in zip(delta, stds, strict=True))
    x, y = (box[0] + box[2]) / 2 + width * dx, (box[1] + box[3]) / 2 + height * dy
    width *= math.exp(min(max(dw, -LARGEST_LOG_RATIO), LARGEST_LOG_RATIO))
    height *= math.exp(min(max(dh, -LARGEST_LOG_RATIO), LARGEST_LOG_RATIO))
    corners = [x - width / 2 + 0.5, y - height / 2 + 0.5, x + width / 2 - 0.5, y + height / 2 - 0.5]
    limits = (size[1] - 1, size[0] - 1) * 2
    return [min(max(corner, 0.0), limit) for corner, limit in zip(corners, limits, strict=True)]


def suppressed(candidates: list[tuple[float, Box]], threshold: float) -> list[tuple[float, Box]]:
    """Greedily, best first; a box's last pixel is part of it."""
    kept = []
    for score, box in sorted(candidates, key=lambda candidate: -candidate[0]):
        if all(overlap(box, better) <= threshold for _, better in kept):
            kept.append((score, box))
    return kept


def overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    both = max(width, 0) * max(height, 0)
    return both / (area(a) + area(b) - both)


def area(box: Box) -> float:
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)


def level_of(box: Box) -> int:
    return min(max(math.floor(math.log2(math.sqrt(area(box)) / 56 + 1e-6)), 0), 3)


def pool(feat: np.ndarray, box: Box, stride: int, size: int) -> np.ndarray:
    """RoIAlign with 2 x 2 samples a cell: (D, H, W) -> (D, size, size)."""
    x1, y1 = box[0] / stride, box[1] / stride
    cell_x, cell_y = ((box[2] + 1) / stride - x1) / size, ((box[3] + 1) / stride - y1) / size
    pooled = np.zeros((len(feat), size, size))
    for row in range(size):
        for column in range(size):
            for sample in range(4):
                x = x1 + (column + (sample % 2 + 0.5) / 2) * cell_x
                y = y1 + (row + (sample // 2 + 0.5) / 2) * cell_y
                pooled[:, row, column] += interpolated(feat, x, y) / 4
    return pooled


def interpolated(feat: np.ndarray, x: float, y: float) -> np.ndarray:
    """(D,) at a point of a map (D, H, W) whose pixel centres are whole numbers; nothing beyond its border."""
    height, width = feat.shape[1:]
    if not (-1 <= x <= width and -1 <= y <= height):
        return np.zeros(len(feat))
    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    upper = feat[:, top, left] * (left + 1 - x) + feat[:, top, right] * (x - left)
    lower = feat[:, bottom, left] * (left + 1 - x) + feat[:, bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)
