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
from mmdet.models import optimize_for_inference
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
EXACT = 1e-6


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
    )
    detector = detector.eval().double()
    layers = (torch.nn.Conv2d, torch.nn.Linear)
    spread = {layer: 1.0 for layer in detector.modules() if isinstance(layer, layers) and layer.bias is not None}
    spread |= {detector.rpn.head.cls_logits: 1.5, detector.rpn.head.bbox_pred: 0.2}
    predictor = detector.roi_heads.box_predictor
    spread |= {predictor.cls_score: 2.0, predictor.bbox_pred: 0.7}
    if 'mask' in architecture:
        spread[detector.roi_heads.mask_predictor.mask_fcn_logits] = 2.0
    spread_outputs(detector, spread, lambda: detector([load(photograph)]))
    return detector.float()  # as files have it


def load(path):
    """A photograph as torchvision takes it, in double precision."""
    return TF.to_tensor(Image.open(path).convert('RGB')).double()


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
    """Our detector."""
    detector = MODELS.build(config.model).eval()
    load_weights(detector, read_checkpoint(checkpoint), checkpoint)
    return detector


def torchvisions_input(theirs, image):
    """An image as torchvision's network gets it, (1, 3, H, W), and what a data sample has to say of it."""
    inputs, _ = theirs.transform([image])
    (size,), original = inputs.image_sizes, tuple(image.shape[-2:])
    scale_factor = (size[1] / original[1], size[0] / original[0])
    return inputs.tensors, dict(img_shape=tuple(size), ori_shape=original, scale_factor=scale_factor)


def assert_same(found, wanted):
    """The same detections, both computed in double precision, but for what is rounded to single at their end.

    Boxes in pixels are of the original image, to which torchvision brings them by a ratio in single precision; masks
    differ where a pixel's probability is within rounding of the threshold.
    """
    assert len(found) == len(wanted['labels'])
    distance = torch.cdist(found.bboxes, wanted['boxes'], p=torch.inf)
    distance[found.labels[:, None] != wanted['labels'] - 1] = torch.inf
    partner = distance.argmin(dim=0)
    assert torch.equal(partner.sort().values, torch.arange(len(found)))
    torch.testing.assert_close(found.scores[partner], wanted['scores'], rtol=0, atol=EXACT)
    torch.testing.assert_close(found.bboxes[partner], wanted['boxes'], rtol=0, atol=1e-4)
    if 'masks' in wanted:
        probabilities = wanted['masks'][:, 0].numpy()
        differs = rle_to_bitmaps([found.masks[i] for i in partner]) != (probabilities >= 0.5)
        assert (probabilities >= 0.5).any() and np.abs(probabilities[differs] - 0.5).max(initial=0) <= EXACT


@pytest.mark.slow
@pytest.mark.parametrize(
    'architecture', ['maskrcnn_resnet50_fpn', 'maskrcnn_resnet50_fpn_v2', 'fasterrcnn_resnet50_fpn']
)
@torch.no_grad()
def test_same_detections(architecture, photographs, tmp_path):
    """In double precision: random weights enlarge what single precision rounds off to a tenth of a pixel."""
    theirs = random_detector(architecture, photographs[0])
    ours = built(*converted(theirs, architecture, tmp_path)).double()
    (wanted,) = theirs.double()([load(photographs[1])])
    assert len(wanted['labels']) == DETECTIONS and len(wanted['labels'].unique()) > 5
    inputs, meta = torchvisions_input(theirs, load(photographs[1]))
    (sample,) = ours.predict(inputs, [DetDataSample(metainfo=meta)])
    assert_same(sample.pred_instances, wanted)


@pytest.mark.slow
def test_from_the_file_in_single_precision(photographs, tmp_path):
    """As detectors are used: the network's input is torchvision's, and so are 9 of 10 detections to a pixel."""
    theirs = random_detector('maskrcnn_resnet50_fpn', photographs[0])
    config, checkpoint = converted(theirs, 'maskrcnn_resnet50_fpn', tmp_path)
    ours = optimize_for_inference(built(config, checkpoint))
    pipeline = Pipeline(config.test_dataloader.dataset.pipeline)
    image, data = load(photographs[1]), pseudo_collate([pipeline(dict(img_path=str(photographs[1]), img_id=0))])
    with torch.inference_mode():
        wanted_input, meta = torchvisions_input(theirs, image)
        (wanted,) = theirs([image.float()])
        inputs = ours.data_preprocessor(data)['inputs']
        (sample,) = ours.test_step(data)
    torch.testing.assert_close(inputs, wanted_input, rtol=0, atol=5e-4, check_dtype=False)
    assert {key: sample.metainfo[key] for key in meta} == meta
    found = sample.pred_instances
    same = found.labels[:, None] == wanted['labels'] - 1
    same &= torch.cdist(found.bboxes, wanted['boxes'], p=torch.inf) < 1
    same &= (found.scores[:, None] - wanted['scores']).abs() < 0.02
    assert same.shape == (DETECTIONS, DETECTIONS)
    assert min(same.any(axis).float().mean() for axis in (0, 1)) >= 0.9


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
