"""Per-class NMS at LVIS scale: `multiclass_nms` against `torchvision.ops.batched_nms` over all candidates.

    python benchmarks/nms.py

1,000 proposals around 25 objects, 1,230 classes, 300 detections kept. Both go from scores to detections: torchvision
by selecting the candidates above the threshold and `batched_nms` over all of them, whose part of the time is printed
beside. Memory is what one run adds to the peak of a fresh process. About a minute.
"""
import argparse
from functools import partial

import torch
from common import added_megabytes, machine, milliseconds, paired, print_table
from torch import Tensor
from torchvision.ops import batched_nms

from mmdet.models.post_processing import multiclass_nms

PROPOSALS, CLASSES, OBJECTS, DETECTIONS = 1000, 1230, 25, 300
IOU_THRESHOLD = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--score-thr', type=float, nargs='+', default=[0.0, 1e-4, 1e-3, 0.05])
    thresholds = parser.parse_args().score_thr

    memory = {
        score_thr: [added_megabytes(proposals, partial(run, score_thr=score_thr)) for run in (theirs, ours)]
        for score_thr in thresholds
    }
    boxes, scores = proposals()
    print(f'{PROPOSALS} proposals x {CLASSES} classes, IoU {IOU_THRESHOLD}, {DETECTIONS} kept. {machine()}')
    header = 'threshold', 'candidates', 'torchvision', 'of it batched_nms', 'ours', 'ratio', 'outputs'
    print_table(
        [*header, 'MB theirs', 'MB ours'],
        [row(boxes, scores, score_thr, *memory[score_thr]) for score_thr in thresholds],
    )


def row(boxes: Tensor, scores: Tensor, score_thr: float, megabytes_theirs: float, megabytes_ours: float) -> list[str]:
    candidates = select(boxes, scores, score_thr)
    (selection, suppression, whole), (_, keep, detections) = paired(
        lambda: select(boxes, scores, score_thr),
        lambda: suppress(*candidates),
        lambda: ours(boxes, scores, score_thr),
    )
    equal = all(torch.equal(a[keep[:DETECTIONS]], b) for a, b in zip(candidates, detections, strict=True))
    return [
        f'{score_thr:g}',
        f'{len(candidates[1]):,}',
        milliseconds(selection + suppression),
        milliseconds(suppression),
        milliseconds(whole),
        f'{(selection + suppression) / whole:,.1f} x',
        'equal' if equal else 'DIFFER',
        f'{megabytes_theirs:.0f}',
        f'{megabytes_ours:.0f}',
    ]


def proposals(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Boxes (R, 4) and foreground scores (R, C) as a trained detector's: near an object its class stands out of the
    long tail of classes, far from any the background does."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.tensor([1216.0, 800.0])
    centre = torch.rand(OBJECTS, 2, generator=generator) * image
    size = torch.exp(3.2 + 2.5 * torch.rand(OBJECTS, 2, generator=generator))
    label = torch.randint(CLASSES, (OBJECTS,), generator=generator)

    nearest = torch.randint(OBJECTS, (PROPOSALS,), generator=generator)
    distance = torch.rand(PROPOSALS, 1, generator=generator)
    jitter = torch.randn(2, PROPOSALS, 2, generator=generator) * 0.5 * distance
    middle, half = centre[nearest] + size[nearest] * jitter[0], size[nearest] * jitter[1].exp() / 2
    boxes = torch.cat([middle - half, middle + half], dim=1).clamp(min=0).minimum(image.repeat(2))

    frequency = -1.2 * torch.randn(CLASSES, generator=generator).abs()
    look = 1.5 * torch.randn(OBJECTS, CLASSES, generator=generator)
    logits = frequency + look[nearest] * (1 - distance)
    logits += 1.5 * torch.randn(PROPOSALS, CLASSES, generator=generator)
    logits[torch.arange(PROPOSALS), label[nearest]] += 9 * (1 - distance[:, 0])
    background = 8 + 3 * distance
    return boxes, torch.softmax(torch.cat([logits, background], dim=1), dim=1)[:, :-1]


def ours(boxes: Tensor, scores: Tensor, score_thr: float) -> tuple[Tensor, ...]:
    return multiclass_nms(boxes, scores, score_thr, dict(type='nms', iou_threshold=IOU_THRESHOLD), DETECTIONS)


def theirs(boxes: Tensor, scores: Tensor, score_thr: float) -> tuple[Tensor, ...]:
    candidates = select(boxes, scores, score_thr)
    keep = suppress(*candidates)[:DETECTIONS]
    return tuple(part[keep] for part in candidates)


def select(boxes: Tensor, scores: Tensor, score_thr: float) -> tuple[Tensor, ...]:
    roi_index, labels = (scores > score_thr).nonzero(as_tuple=True)
    return boxes[roi_index], scores[roi_index, labels], labels, roi_index


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, roi_index: Tensor) -> Tensor:
    return batched_nms(boxes, scores, labels, IOU_THRESHOLD)


if __name__ == '__main__':
    main()
