"""Converted torchvision detectors detect what torchvision detects: boxes, scores, classes and masks."""
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from mmengine.dataset import pseudo_collate
from PIL import Image
from torchvision.models import detection

from mmdet.datasets import Pipeline
from mmdet.engine import load_config, load_weights, read_checkpoint
from mmdet.errors import CheckpointError, ConfigError
from mmdet.model_converters import convert_torchvision, read_class_names
from mmdet.model_converters.class_names import COCO_IDS
from mmdet.models.post_processing import rle_to_bitmaps
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample

ROOT = Path(__file__).resolve().parents[2]
NUM_CLASSES = 12
ARCHITECTURES = {
    'maskrcnn_resnet50_fpn': 'mask-rcnn_r50_fpn',
    'maskrcnn_resnet50_fpn_v2': 'mask-rcnn_r50-v2_fpn',
    'fasterrcnn_resnet50_fpn': 'faster-rcnn_r50_fpn',
    'fasterrcnn_resnet50_fpn_v2': 'faster-rcnn_r50-v2_fpn',
}
SMALL = dict(min_size=128, max_size=180)  # torchvision's sizes scaled down
PROPOSALS, DETECTIONS = 100, 40


def random_detector(architecture, photograph, num_classes=NUM_CLASSES):
    """A torchvision detector with random weights, whose scores, boxes and masks are spread out on a photograph."""
    torch.manual_seed(0)
    detector = getattr(detection, architecture)(
        weights=None,
        weights_backbone=None,
        num_classes=num_classes + 1,
        rpn_post_nms_top_n_test=PROPOSALS,
        box_detections_per_img=DETECTIONS,
        **SMALL,
    ).eval()
    layers = (torch.nn.Conv2d, torch.nn.Linear)
    spread = {layer: 1.0 for layer in detector.modules() if isinstance(layer, layers) and layer.bias is not None}
    spread |= {detector.rpn.head.cls_logits: 1.5, detector.rpn.head.bbox_pred: 0.2}
    predictor = detector.roi_heads.box_predictor
    spread |= {predictor.cls_score: 2.0, predictor.bbox_pred: 0.7}
    if 'mask' in architecture:
        spread[detector.roi_heads.mask_predictor.mask_fcn_logits] = 2.0
    spread_outputs(detector, spread, lambda: detector([load(photograph)]))
    return detector


def load(path):
    """A photograph as torchvision takes it."""
    return TF.to_tensor(Image.open(path).convert('RGB'))


@torch.no_grad()
def spread_outputs(network, spread, run):
    """Scale random weights so that signals neither vanish nor explode, and outputs have mean 0 and these deviations."""

    def scale(layer, inputs, output):
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.copy_(inputs[0].mean((0, 2, 3)))
            layer.running_var.copy_(inputs[0].var((0, 2, 3)) + 1e-3)
            return torch.nn.functional.batch_norm(inputs[0], layer.running_mean, layer.running_var, eps=layer.eps)
        if layer in done:
            return None
        done.add(layer)
        rows = output.transpose(0, 1).flatten(1)
        factor = spread[layer] / rows.std(1)
        layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.ndim - 1)))
        layer.bias.copy_((layer.bias - rows.mean(1)) * factor)
        return layer(*inputs)

    done = set()
    layers = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d) or module in spread]
    hooks = [layer.register_forward_hook(scale) for layer in layers]
    run()
    for hook in hooks:
        hook.remove()


@pytest.fixture
def photographs(shared_data):
    """Two photographs of COCO."""
    return sorted((shared_data / 'coco128/images').glob('*.jpg'))[:2]


def converted(detector, architecture, folder, **options):
    """The config and the checkpoint that a file of torchvision's becomes."""
    torch.save(detector.state_dict(), folder / 'torchvision.pth')
    found = convert_torchvision(folder / 'torchvision.pth', folder / 'ours.pth', **options)
    assert found['config'] == f'configs/torchvision/{ARCHITECTURES[architecture]}_coco.py'
    config = load_config(ROOT / found['config'])
    config.model.roi_head.bbox_head.num_classes = found['num_classes']
    if config.model.roi_head.mask_head is not None:
        config.model.roi_head.mask_head.num_classes = found['num_classes']
    config.model.test_cfg.rpn.max_per_img, config.model.test_cfg.rcnn.max_per_img = PROPOSALS, DETECTIONS
    resize = next(each for each in config.test_dataloader.dataset.pipeline if each.type == 'TorchvisionResize')
    resize.update(SMALL)
    return config, folder / 'ours.pth'


def built(config, checkpoint):
    """Our detector in the layout it is trained in, so that its layers round as torchvision's do.

    Random weights enlarge rounding: channels-last and with norms folded a few boxes are some 0.05 pixels off.
    """
    detector = MODELS.build(config.model).eval()
    load_weights(detector, read_checkpoint(checkpoint), checkpoint)
    return detector


def detections_of_input(ours, theirs, image):
    """Both detectors' detections from one and the same tensor of the network's input."""
    inputs, _ = theirs.transform([image])
    (size,), original = inputs.image_sizes, tuple(image.shape[-2:])
    scale_factor = (size[1] / original[1], size[0] / original[0])
    meta = dict(img_shape=tuple(size), ori_shape=original, scale_factor=scale_factor)
    (sample,) = ours.predict(inputs.tensors, [DetDataSample(metainfo=meta)])
    return sample.pred_instances


def assert_same(found, wanted, tolerance):
    """The same detections: boxes in pixels, scores and masks to a tolerance."""
    assert len(found) == len(wanted['labels'])
    distance = torch.cdist(found.bboxes, wanted['boxes'], p=torch.inf)
    distance[found.labels[:, None] != wanted['labels'] - 1] = torch.inf
    partner = distance.argmin(dim=0)
    assert torch.equal(partner.sort().values, torch.arange(len(found)))
    torch.testing.assert_close(found.scores[partner], wanted['scores'], rtol=0, atol=tolerance)
    torch.testing.assert_close(found.bboxes[partner], wanted['boxes'], rtol=tolerance / 10, atol=tolerance)
    if 'masks' in wanted:
        probabilities = wanted['masks'][:, 0].numpy()
        differs = rle_to_bitmaps([found.masks[i] for i in partner]) != (probabilities >= 0.5)
        assert differs.mean() <= tolerance / 10
        # A pixel differs only where its probability is within rounding of the threshold, or where the box's corner is
        # within rounding of a whole pixel, to which torchvision moves the mask with it.
        moved = (found.bboxes[partner] - wanted['boxes']).abs().amax(1).numpy() > 1e-3
        assert np.abs(probabilities[differs & ~moved[:, None, None]] - 0.5).max(initial=0) <= tolerance


@pytest.mark.parametrize('architecture', ['maskrcnn_resnet50_fpn_v2', 'fasterrcnn_resnet50_fpn'])
@torch.no_grad()
def test_same_detections_from_the_same_input(architecture, photographs, tmp_path):
    theirs = random_detector(architecture, photographs[0])
    ours = built(*converted(theirs, architecture, tmp_path))
    image = load(photographs[1])
    (wanted,) = theirs([image])
    assert len(wanted['labels']) == DETECTIONS and len(wanted['labels'].unique()) > 5
    assert_same(detections_of_input(ours, theirs, image), wanted, 1e-3)


@torch.no_grad()
def test_same_detections_of_mask_rcnn_from_the_same_input_and_from_the_file(photographs, tmp_path):
    theirs = random_detector('maskrcnn_resnet50_fpn', photographs[0])
    config, checkpoint = converted(theirs, 'maskrcnn_resnet50_fpn', tmp_path)
    ours, pipeline = built(config, checkpoint), Pipeline(config.test_dataloader.dataset.pipeline)
    for path in photographs:
        image = load(path)
        (wanted,) = theirs([image])
        assert len(wanted['labels']) == DETECTIONS and len(wanted['labels'].unique()) > 5
        assert_same(detections_of_input(ours, theirs, image), wanted, 1e-3)
        (sample,) = ours.test_step(pseudo_collate([pipeline(dict(img_path=str(path), img_id=0))]))
        assert_same(sample.pred_instances, wanted, 1e-2)


@pytest.fixture(scope='module')
def without_photographs():
    """The state dict of a detector with all of COCO's 91 numbers."""
    torch.manual_seed(0)
    return detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()


def predictors(weights):
    """Rows of the predictors: classifier, boxes (one row a class) and masks."""
    head = 'roi_head.bbox_head'
    return (
        weights[f'{head}.fc_cls.weight'],
        weights[f'{head}.fc_reg.weight'].unflatten(0, (-1, 4)),
        weights['roi_head.mask_head.conv_logits.weight'],
    )


@pytest.mark.parametrize(('options', 'ids'), [({}, COCO_IDS), (dict(num_classes=90), range(1, 91))])
def test_rows_of_coco(without_photographs, tmp_path, options, ids):
    torch.save(without_photographs, tmp_path / 'torchvision.pth')
    found = convert_torchvision(tmp_path / 'torchvision.pth', tmp_path / 'ours.pth', **options)
    assert found['num_classes'] == len(ids)
    checkpoint = read_checkpoint(tmp_path / 'ours.pth')
    classes, boxes, masks = predictors(checkpoint['state_dict'])
    heads = 'roi_heads.box_predictor'
    for label, number in enumerate(ids):
        assert torch.equal(classes[label], without_photographs[f'{heads}.cls_score.weight'][number])
        deltas = without_photographs[f'{heads}.bbox_pred.weight'][4 * number : 4 * number + 4]
        assert torch.equal(boxes[label], deltas)
        mask = without_photographs['roi_heads.mask_predictor.mask_fcn_logits.weight'][number]
        assert torch.equal(masks[label], mask)
    assert torch.equal(classes[-1], without_photographs[f'{heads}.cls_score.weight'][0])
    assert (len(classes), len(boxes), len(masks)) == (len(ids) + 1, len(ids), len(ids))
    meta = checkpoint['meta']['dataset_meta']
    if not options:
        assert (meta['category_ids'], meta['classes'][0], meta['classes'][-1]) == (list(ids), 'person', 'toothbrush')
    else:
        assert meta == {}


def test_older_names_and_frozen_norms(without_photographs, tmp_path):
    """torchvision's published files: names of its first years, batch norms frozen and with eps 0."""
    older = {}
    for name, tensor in without_photographs.items():
        name = name.replace('rpn.head.conv.0.0.', 'rpn.head.conv.')
        name = re.sub(r'((?:inner|layer)_blocks\.\d)\.0\.', r'\1.', name)
        name = re.sub(r'mask_head\.(\d)\.0\.', lambda match: f'mask_head.mask_fcn{int(match[1]) + 1}.', name)
        if not name.endswith('num_batches_tracked'):
            older[name] = tensor
    torch.save(dict(model=older, args=Namespace(epochs=26)), tmp_path / 'older.pth')
    torch.save(without_photographs, tmp_path / 'newer.pth')
    assert convert_torchvision(tmp_path / 'older.pth', tmp_path / 'a.pth')['bn_eps'] == 0
    assert convert_torchvision(tmp_path / 'newer.pth', tmp_path / 'b.pth')['bn_eps'] == 1e-5
    a, b = (read_checkpoint(tmp_path / f'{name}.pth')['state_dict'] for name in 'ab')
    assert a.keys() == {name for name in b if not name.endswith('num_batches_tracked')}
    for name in a:
        difference = 1e-5 if name.endswith('running_var') else 0
        torch.testing.assert_close(a[name] + difference, b[name], rtol=0, atol=1e-7)


def test_names_of_wrapped_models(tmp_path, soiled):
    with torch.device('meta'):
        shapes = detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    # One number a parameter.
    weights = {name: torch.tensor(i).expand(tensor.shape) for i, (name, tensor) in enumerate(shapes.items())}
    found = []
    for number, state in enumerate((weights, soiled(weights))):
        torch.save(dict(model=state), tmp_path / f'{number}.pth')
        convert_torchvision(tmp_path / f'{number}.pth', tmp_path / 'ours.pth')
        found.append(read_checkpoint(tmp_path / 'ours.pth')['state_dict'])
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_files_and_classes_that_do_not_fit(without_photographs, tmp_path):
    torch.save(without_photographs, tmp_path / 'whole.pth')
    torch.save({'conv1.weight': torch.zeros(1)}, tmp_path / 'resnet.pth')
    with pytest.raises(CheckpointError, match=r'resnet\.pth: `conv1.weight` is no parameter of a torchvision Faster'):
        convert_torchvision(tmp_path / 'resnet.pth', tmp_path / 'out.pth')
    with pytest.raises(ConfigError, match='--classes: 2 classes, but the detector in .* has 90 and background'):
        convert_torchvision(tmp_path / 'whole.pth', tmp_path / 'out.pth', classes=['a', 'b'])
    with pytest.raises(ConfigError, match='--num-classes: 80'):
        convert_torchvision(tmp_path / 'whole.pth', tmp_path / 'out.pth', num_classes=80)
    assert not (tmp_path / 'out.pth').exists()


def test_class_names_of_a_file(tmp_path):
    path = tmp_path / 'classes.txt'
    path.write_text('cat\n dog \n\n')
    assert read_class_names(path) == ['cat', 'dog']
    path.write_text('cat\n\ndog')
    with pytest.raises(ConfigError, match='line 2 is empty'):
        read_class_names(path)
    path.write_text('cat\ndog\ncat')
    with pytest.raises(ConfigError, match="line 3 is 'cat' again"):
        read_class_names(path)
    with pytest.raises(ConfigError, match='cannot be read as class names'):
        read_class_names(tmp_path / 'none.txt')
