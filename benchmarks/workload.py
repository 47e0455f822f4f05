"""One test image, and a Mask R-CNN R50-FPN at LVIS scale whose random weights make a trained detector's work.

Random weights alone make no work at all, or too much: every RoI scores alike, boxes collapse, nothing or everything is
above a threshold. So, on this very image,

* the statistics of each batch norm are those of what it is given, so that activations keep their size, and residual
  blocks add little to their shortcut, without which 50 random layers make chaos of every rounding;
* pyramid levels have deviations of 1, 1.5, 2, ..., without which all proposals came from the finest;
* predictors are shifted and scaled so that each of their outputs has over the image a mean and a deviation as trained
  ones have: RPN logits -4 and 1.2, RPN deltas 0 and 0.2, RoI deltas 0 and 0.5 (before they are divided by 10 and 5),
  mask logits 0 and 2, class logits 1.5 around means of `-1.2 * |N(0, 1)|` and, for background, 9.

From 1,000 proposals in 1,230 classes these make 1,230,000 candidates above a threshold of 0, and about a quarter of
them above 1e-4, as many as `nms.py` has.
"""
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection import maskrcnn_resnet50_fpn

from mmdet.calibration import SimCal
from mmdet.models.backbones.resnet import ResidualBlock
from mmdet.models.roi_heads.base_roi_head import boxes_to_rois
from mmdet.registry import MODELS
from mmdet.structures import ClassFrequency, DetDataSample

HEIGHT, WIDTH, CLASSES, DETECTIONS = 800, 1216, 1230, 300
MODEL_CONFIG = Path(__file__).parents[1] / 'configs/_base_/models/mask-rcnn_r50_fpn.py'


def test_image(seed: int = 0) -> Tensor:
    """(1, 3, H, W) float32, normalised: blobs of all sizes."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(1, 3, HEIGHT, WIDTH)
    for size in (4, 16, 32):
        blobs = torch.randn(1, 3, HEIGHT // size, WIDTH // size, generator=generator)
        image += F.interpolate(blobs, (HEIGHT, WIDTH), mode='bicubic')
    return image / 3**0.5


def data_sample() -> DetDataSample:
    """What the detector is told of the image."""
    size = (HEIGHT, WIDTH)
    return DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size, scale_factor=(1.0, 1.0)))


def model_config(score_thr: float = 1e-4, num_classes: int = CLASSES) -> ConfigDict:
    """The model of `detector` in mmdetection's words; NMS takes boxes as they are, as torchvision's does."""
    config = Config.fromfile(MODEL_CONFIG).model
    config.backbone.init_cfg = None
    last_cells = math.ceil(WIDTH / 64), math.ceil(HEIGHT / 64)
    last_stride = WIDTH // last_cells[0], HEIGHT // last_cells[1]
    config.rpn_head.anchor_generator.strides = [4, 8, 16, 32, last_stride]
    config.rpn_head.anchor_generator.base_sizes = [4, 8, 16, 32, 64]
    for extractor in (config.roi_head.bbox_roi_extractor, config.roi_head.mask_roi_extractor):
        extractor.roi_layer.update(sampling_ratio=2, aligned=False)
    config.roi_head.bbox_head.num_classes = config.roi_head.mask_head.num_classes = num_classes
    config.test_cfg.rcnn.update(score_thr=score_thr, max_per_img=DETECTIONS, shift_classes=False)
    return config


def detector(score_thr: float = 1e-4, num_classes: int = CLASSES, calibrated: bool = False, seed: int = 0) -> nn.Module:
    """Ours, in eval mode; where `calibrated` with a `3fc` SimCal head of which dual scores are made.

    It pools and places its anchors as torchvision's does: two samples a cell and no half-pixel shift, and on the last
    level, 13 cells high, anchors every 800 // 13 pixels.
    """
    torch.manual_seed(seed)
    model = MODELS.build(model_config(score_thr, num_classes))
    with torch.no_grad():
        _make_trained(model.eval(), test_image(seed))
        if calibrated:
            counts = [10 ** (i % 4) for i in range(num_classes)]
            names = [str(i) for i in range(num_classes)]
            frequency = ClassFrequency(names, instance_count=counts, image_count=counts)
            calibrator = SimCal('3fc_ft', threshold=100).bind(model.roi_head.bbox_heads, frequency)
            calibrator.heads[0].path.fc_cls.weight.mul_(0.9)
            model.roi_head.calibrator = calibrator
            model.roi_head.score_settings = ['dual']
    return model.eval()


def _make_trained(model: nn.Module, image: Tensor) -> None:
    """See the module's documentation."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, _BatchNorm):
            module.momentum = 1.0
            module.train()
        elif isinstance(module, ResidualBlock):
            nn.init.constant_(module.last_norm.weight, 0.2)
    maps = model.backbone(image)
    model.eval()

    # Without biases the pyramid is linear: a level grows with its convolution.
    feats = list(model.neck(maps))
    for level, conv in enumerate(model.neck.fpn_convs):
        scale = (1 + level / 2) / feats[level].std()
        conv.conv.weight.mul_(scale)
        feats[level] *= scale
    feats[-1] *= scale
    rpn, head = model.rpn_head, model.roi_head
    hidden = torch.cat([F.relu(rpn.rpn_conv(level)).flatten(2)[0].T for level in feats])
    _spread(rpn.rpn_cls, hidden, -4.0, 1.2)
    _spread(rpn.rpn_reg, hidden, 0.0, 0.2)

    proposals = rpn.predict(feats, [data_sample()])[0].bboxes
    shared = head.bbox_head.shared(head.box_feats(feats, boxes_to_rois([proposals])))
    frequency = -1.2 * torch.randn(head.bbox_head.num_classes).abs()
    _spread(head.bbox_head.fc_cls, shared, torch.cat([frequency, torch.tensor([9.0])]), 1.5)
    _spread(head.bbox_head.fc_reg, shared, 0.0, 0.5)

    cells = head.mask_head.hidden(head.mask_roi_extractor(feats, boxes_to_rois([proposals[:30]])))
    cells = F.relu(head.mask_head.upsample(cells)).permute(0, 2, 3, 1).flatten(0, 2)
    _spread(head.mask_head.conv_logits, cells, 0.0, 2.0)


def _spread(predictor: nn.Linear | nn.Conv2d, inputs: Tensor, mean: float | Tensor, deviation: float) -> None:
    """Give the outputs over `inputs` (N, D) this mean and deviation, each of them for itself."""
    outputs = inputs @ predictor.weight.flatten(1).T
    scale = deviation / outputs.std(0)
    predictor.weight.mul_(scale.view(-1, *[1] * (predictor.weight.dim() - 1)))
    predictor.bias.copy_(mean - outputs.mean(0) * scale)


def torchvision_detector(ours: nn.Module) -> TorchvisionMaskRCNN:
    """torchvision's Mask R-CNN with the weights, the anchors and the thresholds of `detector`."""
    num_classes = ours.roi_head.bbox_head.num_classes
    test_cfg = ours.roi_head.test_cfg
    model = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=num_classes + 1,
        rpn_pre_nms_top_n_test=1000,
        rpn_post_nms_top_n_test=1000,
        rpn_nms_thresh=0.7,
        box_score_thresh=test_cfg.score_thr,
        box_nms_thresh=test_cfg.nms.iou_threshold,
        box_detections_per_img=test_cfg.max_per_img,
    )
    model.rpn.anchor_generator.cell_anchors = ours.rpn_head.anchor_generator.base_anchors
    neck, rpn, bbox_head, mask_head = ours.neck, ours.rpn_head, ours.roi_head.bbox_head, ours.roi_head.mask_head
    fpn, roi_heads = model.backbone.fpn, model.roi_heads
    model.backbone.body.load_state_dict(ours.backbone.state_dict())
    pairs = [
        *((theirs[0], conv.conv) for theirs, conv in zip(fpn.inner_blocks, neck.lateral_convs, strict=True)),
        *((theirs[0], conv.conv) for theirs, conv in zip(fpn.layer_blocks, neck.fpn_convs, strict=True)),
        (model.rpn.head.conv[0][0], rpn.rpn_conv),
        (model.rpn.head.cls_logits, rpn.rpn_cls),
        (model.rpn.head.bbox_pred, rpn.rpn_reg),
        (roi_heads.box_head.fc6, bbox_head.shared_fcs[0]),
        (roi_heads.box_head.fc7, bbox_head.shared_fcs[1]),
        *((theirs[0], conv.conv) for theirs, conv in zip(roi_heads.mask_head, mask_head.convs, strict=True)),
        (roi_heads.mask_predictor.conv5_mask, mask_head.upsample),
    ]
    for theirs, layer in pairs:
        theirs.load_state_dict(layer.state_dict())
    # Background is their class 0, and has a box and a mask too.
    for theirs, layer, background in (
        (roi_heads.box_predictor.cls_score, bbox_head.fc_cls, slice(num_classes, None)),
        (roi_heads.box_predictor.bbox_pred, bbox_head.fc_reg, slice(0, 4)),
        (roi_heads.mask_predictor.mask_fcn_logits, mask_head.conv_logits, slice(0, 1)),
    ):
        rows = len(theirs.weight) - len(theirs.weight[background]) if background.start == 0 else num_classes
        for name, parameter in theirs.named_parameters():
            own = getattr(layer, name)
            parameter.data.copy_(torch.cat([own[background], own[:rows]]))
    return model.eval()
