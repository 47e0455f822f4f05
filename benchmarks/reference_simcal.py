"""This project's outputs for a folder that the SimCal release made: its files, converted and loaded as a user would.

`shapes.json` has the parameters of `detector` and of `calibrated_head` (or one such group for each stage, in order) by
their released names, and `expected.json` the threshold T. Training counts are those of the index of as many classes
beside the photographs.
"""
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from double_precision import in_double_precision
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from reference_outputs import Outputs, ReferenceFolder
from torch import Tensor, nn

from mmdet.apis import init_detector
from mmdet.datasets.pipeline import Pipeline
from mmdet.engine import load_config, save_checkpoint
from mmdet.model_converters import convert_simcal_release, read_counts
from mmdet.model_converters.class_counts import ClassCounts
from mmdet.models.roi_heads.roi_outputs import RoIOutputs
from mmdet.structures.boxes import boxes_to_rois

CONFIGS = Path(__file__).resolve().parents[1] / 'configs/simcal/released'


@torch.no_grad()
def outputs(folder: ReferenceFolder, device: torch.device | str = 'cpu') -> Outputs:
    """What the converted detector computes for the folder's photograph, in double precision."""
    config = released_config(folder)
    detector = in_double_precision(build(folder, config, device))
    batch = detector.data_preprocessor(_batch(folder, config))
    inputs, samples = batch['inputs'], batch['data_samples']
    feats = detector.extract_feat(inputs)
    (proposals,) = detector.rpn_head.predict(feats, samples)
    logits = {
        name: first_stage_logits(detector, feats, boxes.to(device), calibrated='calibrated' in name)
        for name, boxes in boxes_of_logits(folder).items()
    }
    (detections,) = detector.roi_head.predict(feats, [proposals], samples)
    (found,) = (instances.to('cpu') for instances in detections.values())
    return Outputs(
        bboxes=found.bboxes,
        scores=found.scores,
        labels=found.labels,
        masks=found.masks,
        proposals=proposals.bboxes.cpu(),
        input_shape=list(inputs.shape),
        input_mean=inputs.mean().item(),
        fpn_stats=torch.tensor([[level.mean().item(), level.std().item()] for level in feats]),
        fpn_corners=[level[0, :4, :3, :3].cpu() for level in feats],
        logits=logits,
    )


def released_config(folder: ReferenceFolder) -> Config:
    """The config of `configs/simcal/released` for the folder's detector, with the number of classes of its own.

    Raises:
        FileNotFoundError: the folder is not of the release.
    """
    if 'detector' not in folder.shapes:
        raise FileNotFoundError(f'{folder.path}: of no kind known here; shapes.json has no `detector`, as SimCal has')
    shapes, expected = folder.shapes['detector'], folder.expected
    staged = 'bbox_head.0.fc_cls.weight' in shapes
    box_head, mask_head = ('bbox_head.0', 'mask_head.0') if staged else ('bbox_head', 'mask_head')
    num_classes = shapes[f'{box_head}.fc_cls.weight'][0] - 1
    name = 'htc-x101.py' if staged else 'r50-ag-coco-lt.py' if num_classes == 80 else 'r50.py'
    config = load_config(CONFIGS / name)
    roi_head = config.model.roi_head
    for head in roi_head.bbox_head if staged else [roi_head.bbox_head]:
        head.update(num_classes=num_classes, reg_class_agnostic=shapes[f'{box_head}.fc_reg.weight'][0] == 4)
    for head in roi_head.mask_head if staged else [roi_head.mask_head]:
        head.update(num_classes=num_classes, class_agnostic=shapes[f'{mask_head}.conv_logits.weight'][0] == 1)
    test_cfg = config.model.test_cfg.rcnn
    test_cfg.update({key: expected[key] for key in ('score_thr', 'max_per_img') if key in expected})
    return config


def build(folder: ReferenceFolder, config: Config, device: torch.device | str) -> nn.Module:
    """The folder's weights as the release's files, through the converter, into the config's detector."""
    groups = folder.shapes
    heads = [name for name in groups if name.startswith('calibrated_head')]
    counts = training_counts(folder, groups['detector'])
    with TemporaryDirectory() as temporary:
        files = {name: Path(temporary) / f'{name}.pth' for name in ('detector', *heads)}
        for name, file in files.items():
            save_checkpoint(dict(state_dict=folder.weights(groups[name]), meta={}), file)
        out = Path(temporary) / 'out.pth'
        expected = folder.expected
        threshold = expected['threshold'] if 'threshold' in expected else expected['T']
        convert_simcal_release(files['detector'], [files[name] for name in heads], out, counts, threshold)
        return init_detector(config, out, device, scores=[expected.get('scores', 'dual')])


def training_counts(folder: ReferenceFolder, detector: Mapping[str, list[int]]) -> ClassCounts:
    """The counts of the training index of as many classes as the detector has.

    Raises:
        FileNotFoundError: there is no such index.
    """
    num_classes = next(shape[0] for name, shape in detector.items() if name.endswith('fc_cls.weight')) - 1
    places = [above / 'data' for above in folder.path.resolve().parents]
    places += folder.image().resolve().parents
    for index in (file for place in places for file in sorted(place.glob('*_train_index.json*'))):
        counts = read_counts(index)
        if len(counts.frequency) == num_classes:
            return counts
    raise FileNotFoundError(
        f'{folder.path}: needs training counts, a *_train_index.json.gz of {num_classes} classes in a folder `data` '
        'beside it or above its photograph'
    )


def boxes_of_logits(folder: ReferenceFolder) -> dict[str, Tensor]:
    """For each array of logits that the folder holds the boxes (K, 4) they are of, its first proposals."""
    outputs = folder.outputs()
    return {name: outputs.proposals[: len(logits), :4] for name, logits in outputs.logits.items()}


def first_stage_logits(
    detector: nn.Module, feats: tuple[Tensor, ...], boxes: Tensor, calibrated: bool
) -> Tensor:
    """Base or calibrated logits of (K, 4) boxes of the network input, as the release has them: background first."""
    roi_head = detector.roi_head
    head = roi_head.bbox_heads[0]
    roi_feats = roi_head.box_feats(roi_head.context(feats), boxes_to_rois([boxes]))
    outputs = RoIOutputs(head, roi_feats)
    logits = roi_head.calibrator.logits(outputs) if calibrated else outputs.logits
    return torch.cat([logits[:, -1:], logits[:, :-1]], dim=1).cpu()


def _batch(folder: ReferenceFolder, config: Config) -> dict:
    """The photograph as a batch of one, scaled for the test but not yet preprocessed."""
    steps = config.test_dataloader.dataset.pipeline
    scale = tuple(folder.expected['test_scale'])
    pipeline = Pipeline([dict(step, scale=scale) if 'scale' in step else step for step in steps])
    return pseudo_collate([pipeline(dict(img_path=str(folder.image()), img_id=0))])
