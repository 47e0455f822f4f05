"""One image from pixels to run lengths: ours, torchvision's Mask R-CNN with the same weights, and the bare arithmetic.

    python benchmarks/whole_image.py [--score-thr 0] [--dual] [--peer PYTHON] [--rounds N] [--cpu-time] [--skip-memory]

800 x 1216 pixels, Mask R-CNN R50-FPN, 1,230 classes, class-wise boxes and masks, 1,000 proposals, 300 detections; the
weights and the image are those of `workload.py`. The bare arithmetic is every convolution, matrix product and RoIAlign
of ours, run alone on tensors of the same shapes, channels-last: what is left if all else cost nothing. Contenders run
in turns, medians are printed. Memory is what one image adds to the peak of a fresh process that holds the model.

With `--peer`, the Python of an environment with mmdetection 3, its Mask R-CNN with the same weights runs there as
often, after the others.

torchvision rounds boxes to whole pixels where it pastes masks, so masks are compared before that: its probabilities,
pasted as ours are.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import workload
from common import added_megabytes, machine, milliseconds, print_table
from mmengine.config import Config
from pycocotools import mask as coco_mask
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import paste_masks_in_image

from mmdet.models import optimize_for_inference
from mmdet.models.post_processing import paste_masks_to_rle
from mmdet.models.roi_heads import RoIAlign
from mmdet.models.roi_heads.roi_extractors.roi_align import pooled_by_gathering

TRUNK, RPN, BOXES, SUPPRESSION, MASKS, PASTE = STAGES = (
    'backbone + FPN',
    'RPN',
    'RoI features, box heads',
    'per-class NMS',
    'masks',
    'paste + RLE',
)
SIZE = (workload.HEIGHT, workload.WIDTH)

Stages = Sequence[tuple[str, Any, str]]  # name, and the object and its method that make it up
Clock = Callable[[], float]
Contender = Callable[[Clock], tuple[dict[str, float], Any]]  # one run: seconds by stage and in `total`, and its result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--score-thr', type=float, default=1e-4)
    parser.add_argument('--dual', action='store_true', help='detect by dual-head scores; torchvision has base scores')
    parser.add_argument('--peer', help='Python of an environment with mmdetection 3')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--cpu-time', action='store_true', help="CPU seconds of a thread, for a machine that is busy")
    parser.add_argument('--skip-memory', action='store_true')
    args = parser.parse_args()
    make = partial(workload.detector, args.score_thr, calibrated=args.dual)
    memory = {}
    if not args.skip_memory:
        memory = {
            'ours': added_megabytes(partial(inputs_of_ours, make), detect),
            'torchvision': added_megabytes(partial(inputs_of_torchvision, make), detect_by_torchvision),
        }

    image, detector = workload.test_image(), make()
    peer, products = WithPaste(workload.torchvision_detector(detector)), products_of(detector, image)
    optimize_for_inference(detector)
    contenders = {
        'ours': timed_stages(partial(detect, detector, image), stages_of_ours(detector)),
        'torchvision': timed_stages(partial(detect_by_torchvision, peer, image), stages_of_torchvision(peer)),
        'bare arithmetic': partial(compute, products),
    }
    if args.dual or args.score_thr != 1e-4:
        plain = optimize_for_inference(workload.detector())
        contenders['ours, base at 1e-4'] = timed_stages(partial(detect, plain, image), stages_of_ours(plain))
    clock = (lambda: time.process_time() / torch.get_num_threads()) if args.cpu_time else time.perf_counter
    seconds, results = in_turns(contenders, clock, args.rounds)

    print(f'threshold {args.score_thr:g}, {"dual" if args.dual else "base"} scores. {machine()}')
    print('CPU seconds of a thread' if args.cpu_time else 'seconds')
    rows = [[stage, *(milliseconds(of[stage]) for of in seconds.values())] for stage in (*STAGES, 'total')]
    rows.append(['ours / this', *(f'{seconds["ours"]["total"] / of["total"]:.2f}' for of in seconds.values())])
    if memory:
        rows.append(['MB', *(f'{memory[name]:.0f}' if name in memory else '' for name in contenders)])
    print_table(['', *contenders], rows)
    if not args.dual:
        print(agreement(results['ours'], results['torchvision']))
    if args.peer:
        print(against_mmdetection(args, make(), seconds['ours']['total'], results['ours']))


def in_turns(
    contenders: dict[str, Contender], clock: Clock, num_rounds: int
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """For each contender the median seconds of its stages and in `total`, and its result."""
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    results = {}
    for _ in range(num_rounds):
        for name, run in contenders.items():
            spent, results[name] = run(clock)
            rounds[name].append(spent)
    medians = {
        name: {stage: statistics.median(spent[stage] for spent in of_contender) for stage in (*STAGES, 'total')}
        for name, of_contender in rounds.items()
    }
    return medians, results


def timed_stages(run: Callable[[], Any], stages: Stages) -> Contender:
    """A contender whose stages are methods called on the way; the total is that of the whole run."""

    def timed_run(clock: Clock) -> tuple[dict[str, float], Any]:
        spent = dict.fromkeys(STAGES, 0.0)

        def around(stage: str, method: Callable[..., Any]) -> Any:
            start = clock()
            result = method()
            spent[stage] += clock() - start
            return result

        with wrapped(stages, around):
            start = clock()
            result = run()
            spent['total'] = clock() - start
        return spent, result

    return timed_run


@contextmanager
def wrapped(stages: Stages, around: Callable[[str, Callable[[], Any]], Any]) -> Iterator[None]:
    """Have each stage's method called through `around(stage, call)`."""

    def call(stage: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return around(stage, partial(method, *args, **kwargs))

    for stage, owner, name in stages:
        setattr(owner, name, partial(call, stage, getattr(owner, name)))
    yield
    for _, owner, name in stages:
        delattr(owner, name)


# Ours


def inputs_of_ours(make: Callable[[], nn.Module]) -> tuple[nn.Module, Tensor]:
    return optimize_for_inference(make()), workload.test_image()


@torch.inference_mode()
def detect(detector: nn.Module, image: Tensor) -> dict[str, Any]:
    (sample,) = detector.predict(image, [workload.data_sample()])
    found = sample.pred_instances
    return dict(boxes=found.bboxes, scores=found.scores, labels=found.labels, masks=found.masks)


def stages_of_ours(detector: nn.Module) -> Stages:
    head = detector.roi_head
    return [
        (TRUNK, detector, 'extract_feat'),
        (RPN, detector.rpn_head, 'predict'),
        (BOXES, head, '_score'),
        (SUPPRESSION, head, '_detect'),
        (MASKS, head, 'mask_probabilities'),
        (PASTE, head, 'paste'),
    ]


# torchvision's


class WithPaste(nn.Module):
    """torchvision's parts, and its paste followed by pycocotools' encoder."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        feats = self.model.backbone(image)
        proposals, _ = self.model.rpn(ImageList(image, [SIZE]), feats)
        (found,), _ = self.model.roi_heads(feats, proposals, [SIZE])
        return dict(found, rles=self.encoded(found['masks'], found['boxes']))

    def encoded(self, probabilities: Tensor, boxes: Tensor) -> list[dict]:
        bitmaps = (paste_masks_in_image(probabilities, boxes, SIZE)[:, 0] >= 0.5).numpy()
        return [coco_mask.encode(np.asfortranarray(bitmap, dtype=np.uint8)) for bitmap in bitmaps]


def inputs_of_torchvision(make: Callable[[], nn.Module]) -> tuple[nn.Module, Tensor]:
    return WithPaste(workload.torchvision_detector(make())), workload.test_image()


@torch.inference_mode()
def detect_by_torchvision(model: nn.Module, image: Tensor) -> dict[str, Any]:
    return model(image)


def stages_of_torchvision(model: WithPaste) -> Stages:
    heads = model.model.roi_heads
    return [
        (TRUNK, model.model.backbone, 'forward'),
        (RPN, model.model.rpn, 'forward'),
        *((BOXES, part, 'forward') for part in (heads.box_roi_pool, heads.box_head, heads.box_predictor)),
        (SUPPRESSION, heads, 'postprocess_detections'),
        *((MASKS, part, 'forward') for part in (heads.mask_roi_pool, heads.mask_head, heads.mask_predictor)),
        (PASTE, model, 'encoded'),
    ]


# The bare arithmetic


Product = Callable[[], Callable[[], Tensor]]  # makes inputs, and returns what computes on them


def products_of(detector: nn.Module, image: Tensor) -> dict[str, list[Product]]:
    """For each stage the convolutions, matrix products and RoIAligns that a detector as built computes for an image."""
    recorder = Recorder()

    def around(stage: str, method: Callable[[], Any]) -> Any:
        recorder.stage = stage
        return method()

    pooling = [module for module in detector.modules() if isinstance(module, RoIAlign)]
    hooks = [layer.register_forward_hook(recorder.write_down_pooling) for layer in pooling]
    with wrapped(stages_of_ours(detector), around), torch.no_grad(), recorder:
        detector.predict(image, [workload.data_sample()])
    for hook in hooks:
        hook.remove()
    return recorder.products


class Recorder(TorchDispatchMode):
    """Writes down products by their shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = TRUNK
        self.products: dict[str, list[Product]] = {stage: [] for stage in STAGES}

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator.overloadpacket.__name__ in ('convolution', 'addmm', 'mm', 'bmm'):
            like = [arg.to('meta') if isinstance(arg, Tensor) else arg for arg in args]
            self.products[self.stage].append(partial(product, operator, like))
        return operator(*args, **(kwargs or {}))

    def write_down_pooling(self, layer: RoIAlign, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        feats, rois = inputs
        settings = (rois, layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned)
        self.products[self.stage].append(partial(product, pooled_by_gathering, [feats.to('meta'), *settings]))


def product(operator: Callable[..., Tensor], like: Sequence[Any]) -> Callable[[], Tensor]:
    """An operator on inputs of the shapes given by tensors without data; maps and filters are channels-last."""
    args = []
    for arg in like:
        if isinstance(arg, Tensor) and arg.is_meta:
            arg = torch.full_like(arg, 0.5, device='cpu')
            arg = arg.contiguous(memory_format=torch.channels_last) if arg.dim() == 4 else arg
        args.append(arg)
    return partial(operator, *args)


@torch.inference_mode()
def compute(products: dict[str, list[Product]], clock: Clock) -> tuple[dict[str, float], None]:
    """A contender: each product alone; making its inputs does not count."""
    spent = dict.fromkeys(STAGES, 0.0)
    for stage, of_stage in products.items():
        for make_inputs in of_stage:
            run = make_inputs()
            start = clock()
            run()
            spent[stage] += clock() - start
    return dict(spent, total=sum(spent.values())), None


# mmdetection's


def against_mmdetection(
    args: argparse.Namespace, detector: nn.Module, our_seconds: float, ours: dict[str, Any]
) -> str:
    """Seconds and memory of mmdetection with the same weights, and how many of its detections are also ours."""
    with tempfile.TemporaryDirectory() as folder:
        Config(dict(model=workload.model_config(args.score_thr))).dump(f'{folder}/model.py')
        weights = {name: value for name, value in detector.state_dict().items() if 'calibrator' not in name}
        torch.save(weights, f'{folder}/weights.pth')
        torch.save(workload.test_image(), f'{folder}/image.pth')
        script = Path(__file__).with_name('whole_image_mmdetection.py')
        command = [args.peer, script, folder, str(args.rounds)]
        environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
        process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    run = json.loads(process.stdout.splitlines()[-1])
    total = statistics.median(run['seconds'])
    same = alike(ours, *(torch.tensor(run[name]) for name in ('bboxes', 'scores', 'labels')))
    equal = '' if args.dual else f'; {int(same.any(1).sum())} of {len(same)} detections equal'
    return f'mmdetection: {total:.2f} s, {run["mb"]:.0f} MB; ours / this {our_seconds / total:.2f}{equal}'


# What they detect


def alike(ours: dict[str, Any], boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """(n, m) bool: same class, corners within 0.05 pixels, scores within 1e-4."""
    same = ours['labels'][:, None] == labels
    same &= (ours['boxes'][:, None] - boxes).abs().amax(2) < 0.05
    return same & ((ours['scores'][:, None] - scores).abs() < 1e-4)


def agreement(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """How many detections ours and torchvision have in common, and how alike their masks are."""
    same = alike(ours, theirs['boxes'], theirs['scores'], theirs['labels'] - 1)
    i, partner = same.any(1).nonzero().flatten(), same.float().argmax(1)
    pasted = paste_masks_to_rle(theirs['masks'][:, 0], theirs['boxes'], SIZE)
    ious = [coco_mask.iou([ours['masks'][a]], [pasted[partner[a]]], [0]).item() for a in i.tolist()]
    return (
        f"{len(i)} of {len(same)} detections equal torchvision's (class, box within 0.05 px, score within 1e-4); "
        f'their masks have a mean IoU of {statistics.mean(ious):.5f}, the least {min(ious):.4f}'
    )


if __name__ == '__main__':
    main()
