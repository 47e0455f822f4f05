"""What a detector computes for one photograph, and how far two of them agree.

A reference folder holds what another implementation computed with deterministic weights: `shapes.json`
{parameter name: shape}, `expected.json`, `expected.npz`, and one level above it `weights.py` with `fill(shapes)`.
"""
import importlib.util
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import box_iou

from mmdet.datasets.pipeline import Pipeline

CLOSE = 1e-4  # the same float32 sums in another order, relative
ENOUGH = 0.99  # of a set, in both directions: what lies at the edge of a threshold may fall either way
SAME_PLACE = 0.99  # IoU


@dataclass
class Outputs:
    """Of one photograph; None is not known.

    Attributes:
        input_shape, input_mean: of the network's input, (B, 3, H, W).
        fpn_stats: (L, 2) mean and standard deviation of each pyramid level.
        fpn_corners: of each level `[0, :4, :3, :3]`.
        logits: {name: logits of some proposals}.
        proposals: (P, 4) in pixels of the network's input; or (P, 5) with scores.
        bboxes: (K, 4) in pixels of the original image.
        scores: (K,).
        labels: (K,), foreground 0..C-1.
        masks: K run-length encodings of the original image's size.
    """

    bboxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: list[dict] | None = None
    proposals: Tensor | None = None
    input_shape: list[int] | None = None
    input_mean: float | None = None
    fpn_stats: Tensor | None = None
    fpn_corners: list[Tensor] | None = None
    logits: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """One thing compared: its name, the worst found as text, and whether that is close enough."""

    what: str
    worst: str
    passed: bool


@dataclass(frozen=True)
class ReferenceFolder:
    """A folder of reference outputs.

    Args:
        path: of the folder.
        images: where its photograph is; default: `data/coco128/images` beside the folder's parent or above.
    """

    path: Path
    images: Path | None = None

    @property
    def expected(self) -> dict[str, Any]:
        return json.loads((self.path / 'expected.json').read_text())

    @property
    def shapes(self) -> dict[str, Any]:
        return json.loads((self.path / 'shapes.json').read_text())

    def weights(self, shapes: dict[str, list[int]]) -> dict[str, Tensor]:
        """The deterministic weights of the parameters named, as the source names them."""
        spec = importlib.util.spec_from_file_location('reference_weights', self._beside('weights.py'))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        gain = self.expected.get('classifier_gain')
        return module.fill(shapes) if gain is None else module.fill(shapes, classifier_gain=gain)

    def image(self) -> Path:
        """The photograph.

        Raises:
            FileNotFoundError: it is not where it was looked for.
        """
        name = self.expected['image']
        folder = self.images or self._beside('data/coco128/images')
        if not (folder / name).is_file():
            raise FileNotFoundError(f'{folder / name}: no such photograph; say where it is with --images')
        return folder / name

    def batch(self) -> dict:
        """The photograph as a batch of one, scaled for the test but not yet preprocessed."""
        pipeline = Pipeline(
            [
                dict(type='LoadImageFromFile'),
                dict(type='Resize', scale=tuple(self.expected['test_scale']), keep_ratio=True),
                dict(type='PackDetInputs'),
            ]
        )
        return pseudo_collate([pipeline(dict(img_path=str(self.image()), img_id=0))])

    def outputs(self) -> Outputs:
        """What the reference computed, as double precision, which ours is computed in."""
        expected = self.expected
        with np.load(self.path / 'expected.npz') as file:
            arrays = {name: torch.from_numpy(file[name]).double() for name in file.files}
        masks = expected.get('rle')
        levels = [name for name in (f'fpn{i}' for i in range(len(arrays))) if name in arrays]
        return Outputs(
            bboxes=arrays['bboxes'],
            scores=arrays['scores'],
            labels=arrays['labels'].long(),
            masks=masks and [dict(mask, counts=mask['counts'].encode()) for mask in masks],
            proposals=arrays.get('proposals'),
            input_shape=expected.get('input_shape'),
            input_mean=expected.get('input_mean'),
            fpn_stats=torch.tensor(expected['fpn_mean_std']) if 'fpn_mean_std' in expected else None,
            fpn_corners=[arrays[name] for name in levels] or None,
            logits={name: array for name, array in arrays.items() if 'logits' in name},
        )

    def _beside(self, name: str) -> Path:
        """A file or folder by its name in the nearest of the folders above."""
        above = self.path.resolve().parents
        return next((folder / name for folder in above if (folder / name).exists()), above[0] / name)


def differences(found: Outputs, wanted: Outputs) -> list[Difference]:
    """Everything that `wanted` knows, compared, from the input to the masks."""
    rows = []
    if wanted.input_shape is not None:
        shape = list(found.input_shape)
        rows.append(Difference('input shape', 'x'.join(map(str, shape)), shape == list(wanted.input_shape)))
    if wanted.input_mean is not None:
        rows.append(_number('input mean', abs(found.input_mean - wanted.input_mean)))
    if wanted.fpn_stats is not None:
        spread = wanted.fpn_stats[:, 1:]
        rows.append(_number('FPN mean, std', ((found.fpn_stats - wanted.fpn_stats).abs() / spread).max().item()))
    if wanted.fpn_corners is not None:
        pairs = zip(found.fpn_corners, wanted.fpn_corners, strict=True)
        worst = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
        rows.append(_number('FPN corners', worst))
    if wanted.proposals is not None:
        rows.append(_proposals(found.proposals, wanted.proposals, max(found.input_shape[-2:])))
    for name, logits in wanted.logits.items():
        rows.append(_number(name, ((found.logits[name] - logits).abs().max() / logits.abs().max()).item()))
    return rows + _detections(found, wanted)


def _number(what: str, worst: float) -> Difference:
    return Difference(what, f'{worst:.1e}', worst <= CLOSE)


def _proposals(found: Tensor, wanted: Tensor, longer_side: int) -> Difference:
    """As sets: coordinates to 1e-4 of the input's longer side, and scores, where both have them, to 1e-4."""
    columns = min(found.shape[1], wanted.shape[1])
    unit = torch.tensor([float(longer_side)] * 4 + [1.0])[:columns]
    distance = torch.cdist(found[:, :columns] / unit, wanted[:, :columns] / unit, p=torch.inf)
    nearest = torch.cat([distance.amin(dim=0), distance.amin(dim=1)]) if distance.numel() else torch.zeros(0)
    shares = _shares(distance <= CLOSE)
    worst = nearest[nearest <= CLOSE].max().item() if (nearest <= CLOSE).any() else 0.0
    return Difference(
        'proposals',
        f'{worst:.1e} of the matched; {_in_words(shares)} of {len(found)}/{len(wanted)}',
        min(shares) >= ENOUGH,
    )


def _detections(found: Outputs, wanted: Outputs) -> list[Difference]:
    """Matched: same class, same place, score within 1e-4; and the masks of those."""
    shift = torch.cdist(found.bboxes, wanted.bboxes, p=torch.inf)
    score_gap = (found.scores[:, None] - wanted.scores).abs()
    same_place = box_iou(found.bboxes, wanted.bboxes) > SAME_PLACE
    same_place |= shift <= CLOSE * max(*found.input_shape[-2:])  # a box without area has no IoU, not even with itself
    matches = (found.labels[:, None] == wanted.labels) & same_place & (score_gap <= CLOSE)
    shares = _shares(matches)
    pairs = _best_pairs(matches, shift)
    rows = [
        Difference(
            'detections',
            f'{_in_words(shares)} of {len(found.labels)}/{len(wanted.labels)}; of the matched: '
            f'box {_most(shift[pairs]):.1e} px, score {_most(score_gap[pairs]):.1e}',
            min(shares) >= ENOUGH,
        )
    ]
    if wanted.masks is not None:
        matched = zip(*map(Tensor.tolist, pairs), strict=True)
        rows.append(_masks([(found.masks[i], wanted.masks[j]) for i, j in matched]))
    return rows


def _masks(pairs: list[tuple[dict, dict]]) -> Difference:
    """Alike: IoU > 0.99, or a single pixel apart, which in a mask of fewer than 100 is a lower IoU."""
    common = np.array([coco_mask.area(coco_mask.merge(list(pair), intersect=True)) for pair in pairs], dtype=int)
    either = np.array([coco_mask.area(coco_mask.merge(list(pair))) for pair in pairs], dtype=int)
    iou = np.where(either > 0, common / np.maximum(either, 1), 1.0)
    alike = (iou > SAME_PLACE) | (either - common <= 1)
    share = alike.mean() if len(pairs) else 1.0
    return Difference(
        'masks of the matched', f'{share:.1%} alike; least IoU {iou.min(initial=1.0):.4f}', bool(share >= ENOUGH)
    )


def _shares(matches: Tensor) -> tuple[float, float]:
    """How many of the rows and of the columns have a match; of none, all have."""
    return tuple(matches.any(dim=axis).float().mean().item() if matches.shape[1 - axis] else 1.0 for axis in (1, 0))


def _best_pairs(matches: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of each column that has a match and of its nearest match among the rows."""
    columns = matches.any(dim=0).nonzero().flatten()
    if not len(columns):
        return columns, columns
    return distance.masked_fill(~matches, torch.inf)[:, columns].argmin(dim=0), columns


def _most(values: Tensor) -> float:
    return values.max().item() if values.numel() else 0.0


def _in_words(shares: tuple[float, float]) -> str:
    return f'{shares[0]:.1%} / {shares[1]:.1%} found'
