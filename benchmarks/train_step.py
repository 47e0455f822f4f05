"""One training step of Mask R-CNN R50-FPN with 1,230 classes: ours against torchvision's and mmdetection's.

    python benchmarks/train_step.py [--peer PYTHON] [--steps N] [--rounds N]

One 800 x 1067 image with 20 polygons, class-wise boxes and masks, 512 RoIs of which 128 positive; forward, losses,
backward and a step of SGD, stem and first stage frozen. Every contender runs in a fresh process, `--peer` (the Python
of an environment with mmdetection 3) in its own environment. All begin with the same weights, sample the same anchors
(the first ones instead of random ones) and the same RoIs (the RPN proposes as always, and then the same boxes take the
place of what it proposed), so that their losses can be compared. Ours runs twice: as mmdetection's model and as
torchvision's, whose RoIAlign takes other points. torchvision's mask targets are bitmaps resampled on the RoI, with
values between 0 and 1, and its mask loss another for that.

The two of a pair run in turns, a process for each of `--rounds`. Printed are medians, over rounds and over their steps
after the first, of the clock and of the CPU time of all threads, and `ru_maxrss`.
"""
import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from fresh_process import in_fresh_process, machine, peak_mb

ROOT = Path(__file__).resolve().parents[1]
CLASSES, HEIGHT, WIDTH = 1230, 800, 1067
OBJECTS, POSITIVES, ROIS = 20, 128, 512
LOSSES = ('loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--peer', help='Python of an environment with mmdetection 3')
    parser.add_argument('--steps', type=int, default=3, help='timed steps in a process')
    parser.add_argument('--rounds', type=int, default=2, help='processes of each contender')
    parser.add_argument('--part', choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument('--folder', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(PARTS[args.part](args)))
        return

    print(f'{machine()}\n')
    with tempfile.TemporaryDirectory() as folder:
        options = [f'--folder={folder}', f'--steps={args.steps}']
        in_fresh_process(__file__, 'prepare', options)
        pairs = {'torchvision': ('ours_as_torchvision', 'torchvision', sys.executable, LOSSES[:-1])}
        if args.peer:
            pairs['mmdetection'] = ('ours', 'mmdetection', args.peer, LOSSES)
        failed = False
        for name, (our_part, their_part, python, comparable) in pairs.items():
            rounds = [
                (in_fresh_process(__file__, our_part, options), in_fresh_process(__file__, their_part, options, python))
                for _ in range(args.rounds)
            ]
            ours, theirs = map(median_of_rounds, zip(*rounds, strict=True))
            failed |= not compare(name, ours, theirs, comparable)
    sys.exit(failed)


def median_of_rounds(rounds: tuple[dict, ...]) -> dict:
    """The medians of what was measured, and the losses, which do not vary."""
    measured = {key: statistics.median(run[key] for run in rounds) for key in rounds[0] if key != 'losses'}
    return measured | {'losses': rounds[0]['losses']}


def compare(name: str, ours: dict, theirs: dict, comparable: tuple[str, ...]) -> bool:
    """Prints both; whether their losses are equal."""
    print(f'{"":14}{"seconds":>9}{"CPU s":>9}{"peak MB":>9}{"of it before":>14}')
    for who, run in ((name, theirs), ('ours', ours)):
        print(f'{who:14}{run["seconds"]:9.2f}{run["cpu_seconds"]:9.2f}{run["peak_mb"]:9.0f}{run["built_mb"]:14.0f}')
    ratios = (ours[key] / theirs[key] for key in ('seconds', 'cpu_seconds', 'peak_mb'))
    print('ours / {}: {:.2f} x the time, {:.2f} x the CPU time, {:.2f} x the memory'.format(name, *ratios))
    for loss in LOSSES:
        print(f'  {loss:14}{theirs["losses"][loss]:12.6f}{ours["losses"][loss]:12.6f}')
    equal = all(abs(ours['losses'][loss] / theirs['losses'][loss] - 1) < 1e-4 for loss in comparable)
    print(f'{", ".join(comparable)} {"equal" if equal else "NOT EQUAL"}\n')
    return equal


# ---------------------------------------------------------------------- what all are given


def prepare(args: argparse.Namespace) -> dict:
    """Writes weights under both names, an image, its objects, and proposals."""
    import torch

    sys.path.insert(0, str(ROOT))
    from mmdet.model_converters import convert_torchvision

    torch.manual_seed(0)
    weights = torchvision_model().state_dict()
    for key in weights:
        if key.endswith('bn3.weight'):
            weights[key].fill_(0.2)  # or the activations of a ResNet with made-up weights grow without bound
    torch.save(weights, args.folder / 'torchvision.pth')
    convert_torchvision(args.folder / 'torchvision.pth', args.folder / 'ours.pth', num_classes=CLASSES, bn_eps=1e-5)
    polygons, boxes = objects(np.random.default_rng(0))
    content = dict(
        image=torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8),
        polygons=[torch.from_numpy(polygon) for polygon in polygons],
        boxes=boxes,
        labels=torch.randint(CLASSES, (OBJECTS,)),
        proposals=proposals(boxes),
    )
    torch.save(content, args.folder / 'sample.pth')
    return {}


def objects(rng: np.random.Generator):
    """Polygons [(k, 2) float64] in pixels, of the sizes that LVIS's have, and their boxes (OBJECTS, 4) float32."""
    import torch

    polygons = []
    for radius in rng.lognormal(3.8, 0.8, OBJECTS).clip(12, 350):
        centre = rng.uniform(0.9 * radius, [WIDTH - 0.9 * radius, HEIGHT - 0.9 * radius])
        angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(12, 120)))
        points = centre + radius * rng.uniform(0.6, 1, (len(angle), 1)) * np.stack([np.cos(angle), np.sin(angle)], 1)
        polygons.append(points.clip(0, [WIDTH, HEIGHT]))
    corners = [np.concatenate([polygon.min(axis=0), polygon.max(axis=0)]) for polygon in polygons]
    return polygons, torch.from_numpy(np.stack(corners)).float()


def proposals(boxes):
    """Boxes of which, with the objects' own, exactly POSITIVES are positive and ROIS - POSITIVES are not."""
    import torch
    from torchvision.ops import box_iou

    def overlap(candidates):
        return box_iou(candidates, boxes).amax(dim=1)

    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2).repeat(50, 1)
    near = boxes.repeat(50, 1) + sides * torch.empty(50 * OBJECTS, 4).uniform_(-0.2, 0.2)
    far = torch.rand(5000, 4) * torch.tensor([WIDTH, HEIGHT, 200, 200]) + torch.tensor([0, 0, 8, 8])
    far = torch.cat([far[:, :2], far[:, :2] + far[:, 2:]], dim=1)
    inside = torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    near, far = (candidates.clamp(min=0).minimum(inside) for candidates in (near, far))
    far = far[(far[:, 2:] - far[:, :2]).amin(dim=1) > 8]
    return torch.cat([near[overlap(near) > 0.55][: POSITIVES - OBJECTS], far[overlap(far) < 0.45][: ROIS - POSITIVES]])


def made(args: argparse.Namespace) -> dict:
    import torch

    return torch.load(args.folder / 'sample.pth', weights_only=True)


def run_steps(model, losses_of_step, steps: int) -> dict:
    """The first step's losses, and the median cost of those after it."""
    import torch

    torch.randperm = lambda length, **options: torch.arange(length, **options)
    optimizer = torch.optim.SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-5, momentum=0.9
    )
    built_mb = peak_mb()
    spent = []
    for step in range(1 + steps):
        start, cpu_start = time.perf_counter(), time.process_time()
        losses = losses_of_step()
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        spent.append((time.perf_counter() - start, time.process_time() - cpu_start))
        if step == 0:
            first = {name: loss.item() for name, loss in losses.items()}
    seconds, cpu_seconds = (statistics.median(each) for each in zip(*spent[1:], strict=True))
    return {
        'losses': first, 'seconds': seconds, 'cpu_seconds': cpu_seconds, 'peak_mb': peak_mb(), 'built_mb': built_mb
    }  # fmt: skip


# ---------------------------------------------------------------------- torchvision


def torchvision_model():
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    backbone = resnet_fpn_backbone(backbone_name='resnet50', weights=None, trainable_layers=3)
    return MaskRCNN(backbone, num_classes=CLASSES + 1, box_batch_size_per_image=ROIS).train()


def torchvision(args: argparse.Namespace) -> dict:
    import torch

    from mmdet.structures.masks import InstanceMasks

    sample = made(args)
    model = torchvision_model()
    model.load_state_dict(torch.load(args.folder / 'torchvision.pth', weights_only=True))
    propose = model.rpn.forward

    def propose_the_given(*inputs):
        found, losses = propose(*inputs)
        return [sample['proposals'] for _ in found], losses

    model.rpn.forward = propose_the_given
    polygons = [[polygon.numpy()] for polygon in sample['polygons']]

    def losses_of_step():
        masks = InstanceMasks(polygons, HEIGHT, WIDTH).to_bitmaps()
        target = dict(boxes=sample['boxes'], labels=sample['labels'] + 1, masks=torch.from_numpy(masks))
        losses = model([sample['image'] / 255], [target])
        names = ('loss_objectness', 'loss_rpn_box_reg', 'loss_classifier', 'loss_box_reg', 'loss_mask')
        return {ours: losses[theirs] for ours, theirs in zip(LOSSES, names, strict=True)}

    return run_steps(model, losses_of_step, args.steps)


# ---------------------------------------------------------------------- mmdetection's interface, of theirs and of ours


def ours(args: argparse.Namespace) -> dict:
    from mmdet.models import optimize_for_training
    from mmdet.structures.masks import InstanceMasks

    polygons = [[polygon.numpy()] for polygon in made(args)['polygons']]
    masks = InstanceMasks(polygons, HEIGHT, WIDTH)
    return steps_of_config('mask-rcnn_r50_fpn.py', masks, {}, args, prepare=optimize_for_training)


def ours_as_torchvision(args: argparse.Namespace) -> dict:
    from mmdet.models import optimize_for_training
    from mmdet.structures.masks import InstanceMasks

    polygons = [[polygon.numpy()] for polygon in made(args)['polygons']]
    masks = InstanceMasks(polygons, HEIGHT, WIDTH)
    smooth = dict(_delete_=True, type='SmoothL1Loss', beta=1 / 9)
    options = {
        'rpn_head.loss_bbox': smooth,
        'roi_head.bbox_head.loss_bbox': smooth,
        'train_cfg.rpn.assigner.min_pos_iou': 0.0,
    }
    return steps_of_config('mask-rcnn_r50_fpn_torchvision.py', masks, options, args, prepare=optimize_for_training)


def mmdetection(args: argparse.Namespace) -> dict:
    from mmdet.structures.mask import PolygonMasks

    from mmdet.utils import register_all_modules

    register_all_modules()
    polygons = [[polygon.numpy().ravel()] for polygon in made(args)['polygons']]
    return steps_of_config('mask-rcnn_r50_fpn.py', PolygonMasks(polygons, HEIGHT, WIDTH), {}, args)


def steps_of_config(config: str, masks, options: dict, args: argparse.Namespace, prepare=lambda model: model) -> dict:
    import torch
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmengine.structures import InstanceData

    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample

    init_default_scope('mmdet')
    cfg = Config.fromfile(ROOT / 'configs/_base_/models' / config)
    common = {'backbone.init_cfg': None, 'train_cfg.rcnn.sampler.num': ROIS}
    common |= {f'roi_head.{head}.num_classes': CLASSES for head in ('bbox_head', 'mask_head')}
    cfg.merge_from_dict({f'model.{key}': value for key, value in (common | options).items()})
    model = MODELS.build(cfg.model).train()
    weights = torch.load(args.folder / 'ours.pth', weights_only=True)['state_dict']
    wrong = model.load_state_dict(weights, strict=False)
    unknown = [key for key in (*wrong.missing_keys, *wrong.unexpected_keys) if not key.endswith('num_batches_tracked')]
    if unknown:
        raise SystemExit(f'weights do not fit: {unknown[:5]}')
    del weights
    model = prepare(model)

    given = made(args)
    propose = model.rpn_head.loss_and_predict

    def propose_the_given(*inputs, **options):
        losses, found = propose(*inputs, **options)
        boxes = given['proposals']
        chosen = InstanceData(bboxes=boxes, scores=torch.ones(len(boxes)), labels=torch.zeros(len(boxes)).long())
        return losses, [chosen for _ in found]

    model.rpn_head.loss_and_predict = propose_the_given

    def losses_of_step():
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(HEIGHT, WIDTH), ori_shape=(HEIGHT, WIDTH), scale_factor=(1.0, 1.0), pad_shape=(HEIGHT, WIDTH)
            )
        )
        sample.gt_instances = InstanceData(bboxes=given['boxes'], labels=given['labels'], masks=masks)
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long(), masks=masks[:0])
        # The preprocessor's input is BGR, as images are read.
        batch = model.data_preprocessor(dict(inputs=[given['image'].flip(0)], data_samples=[sample]), True)
        losses = model(**batch, mode='loss')
        return {name: sum(losses[name]) if isinstance(losses[name], list) else losses[name] for name in LOSSES}

    return run_steps(model, losses_of_step, args.steps)


PARTS = {
    'prepare': prepare,
    'ours': ours,
    'ours_as_torchvision': ours_as_torchvision,
    'mmdetection': mmdetection,
    'torchvision': torchvision,
}

if __name__ == '__main__':
    main()
