"""The cost of one test image as classes grow: 80, 1,230, 12,000, at fixed proposals, boxes and masks class by class.

    python benchmarks/class_scaling.py [--classes 80 1230 12000] [--rounds N] [--cpu-time]

The image, the weights and the 1,000 proposals are those of `workload.py`; what comes before the proposals knows nothing
of classes and is left out. Beside the time stands what the classifier, a matrix product, takes alone: by no more than
its growth may the time of an image grow. Medians of runs in turns. Memory is what one run adds to the peak of a fresh
process that holds the model, the features and the proposals.
"""
import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
import workload
from common import added_megabytes, machine, milliseconds, print_table
from mmengine.structures import InstanceData
from torch import Tensor, nn
from whole_image import BOXES, MASKS, PASTE, SUPPRESSION, in_turns, product, stages_of_ours, timed_stages

from mmdet.models import optimize_for_inference

PROPOSALS = 1000
SECOND_STAGE = (BOXES, SUPPRESSION, MASKS, PASTE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--classes', type=int, nargs='+', default=[80, 1230, 12000])
    parser.add_argument('--score-thr', type=float, default=0.0)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--cpu-time', action='store_true', help='CPU seconds of a thread, for a machine that is busy')
    args = parser.parse_args()
    makers = {num_classes: partial(inputs, args.score_thr, num_classes) for num_classes in args.classes}
    memory = {num_classes: added_megabytes(make, detect) for num_classes, make in makers.items()}
    contenders = {}
    feats = proposals = None
    for num_classes in args.classes:
        detector = optimize_for_inference(workload.detector(args.score_thr, num_classes))
        if feats is None:
            feats, proposals = features_and_proposals(detector)
        stages = [stage for stage in stages_of_ours(detector) if stage[0] in SECOND_STAGE]
        contenders[f'{num_classes:,}'] = timed_stages(partial(detect, detector.roi_head, feats, proposals), stages)
        contenders[f'{num_classes:,} classifier'] = timed_stages(classify(num_classes), [])
    clock = (lambda: time.process_time() / torch.get_num_threads()) if args.cpu_time else time.perf_counter
    seconds, _ = in_turns(contenders, clock, args.rounds)

    print(f'{PROPOSALS:,} proposals, threshold {args.score_thr:g}. {machine()}')
    print('CPU seconds of a thread' if args.cpu_time else 'seconds')
    rows = []
    for num_classes in args.classes:
        spent, classifier = seconds[f'{num_classes:,}'], seconds[f'{num_classes:,} classifier']['total']
        times = [*(spent[stage] for stage in SECOND_STAGE), spent['total'], classifier, spent['total'] - classifier]
        rows.append([f'{num_classes:,}', *map(milliseconds, times), f'{memory[num_classes]:.0f}'])
    print_table(['classes', *SECOND_STAGE, 'total', 'classifier alone', 'total without it', 'MB'], rows)


def inputs(score_thr: float, num_classes: int) -> tuple[nn.Module, tuple[Tensor, ...], InstanceData]:
    """Of `detect`; what a process has freed before `optimize_for_inference` it does not keep."""
    detector = workload.detector(score_thr, num_classes)
    feats, proposals = features_and_proposals(detector)
    feats = tuple(level.contiguous(memory_format=torch.channels_last) for level in feats)
    return optimize_for_inference(detector).roi_head, feats, proposals


@torch.inference_mode()
def features_and_proposals(detector: nn.Module) -> tuple[tuple[Tensor, ...], InstanceData]:
    feats = detector.extract_feat(workload.test_image())
    (proposals,) = detector.rpn_head.predict(feats, [workload.data_sample()])
    return feats, proposals[:PROPOSALS]


@torch.inference_mode()
def detect(roi_head: nn.Module, feats: tuple[Tensor, ...], proposals: InstanceData) -> dict:
    return roi_head.predict(feats, [proposals], [workload.data_sample()])


def classify(num_classes: int) -> Callable[[], Tensor]:
    """The product of all proposals' features and the weights of all classes, background included."""
    shapes = [torch.empty(rows, 1024, device='meta') for rows in (PROPOSALS, num_classes + 1)]
    return torch.inference_mode()(product(F.linear, shapes))


if __name__ == '__main__':
    main()
