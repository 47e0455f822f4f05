"""Cascade R-CNN and Hybrid Task Cascade: what goes from stage to stage, in training, calibration and testing."""
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData

from mmdet.calibration import CalibrationModel, DrawnClassSelector, build_calibrator
from mmdet.errors import ConfigError
from mmdet.models.roi_heads import FusedSemanticHead, HTCMaskHead, Shared2FCBBoxHead
from mmdet.models.roi_heads.roi_outputs import RoIOutputs
from mmdet.models.task_modules import SampledRoIs
from mmdet.registry import MODELS
from mmdet.structures import ClassFrequency, DetDataSample
from mmdet.structures.boxes import boxes_to_rois
from mmdet.structures.masks import InstanceMasks

CONFIGS = Path(__file__).resolve().parents[3] / 'configs'
NUM_CLASSES = 4
SIZE = 64


def cascade_config() -> Config:
    model = Config.fromfile(CONFIGS / 'glyph_lt/cascade-mask-rcnn_r18_fpn_glyph-lt.py').model
    model.backbone.base_channels, model.neck.in_channels = 8, [8, 16, 32, 64]
    for head in (*model.roi_head.bbox_head, model.roi_head.mask_head):
        head.num_classes = NUM_CLASSES
    for head in model.roi_head.bbox_head:
        head.fc_out_channels = 32
    model.train_cfg.rpn_proposal.max_per_img = model.test_cfg.rpn.max_per_img = 30
    return model


def htc_config() -> Config:
    model = cascade_config()
    stock = Config.fromfile(CONFIGS / '_base_/models/htc_r50_fpn.py').model.roi_head
    roi_head = model.roi_head
    model.type, roi_head.type = 'HybridTaskCascade', 'HybridTaskCascadeRoIHead'
    roi_head.mask_head = [
        dict(roi_head.mask_head, type='HTCMaskHead', with_conv_res=head.with_conv_res, conv_out_channels=64)
        for head in stock.mask_head
    ]
    roi_head.semantic_roi_extractor = dict(stock.semantic_roi_extractor, out_channels=64)
    roi_head.semantic_head = dict(
        stock.semantic_head, num_ins=4, num_convs=2, in_channels=64, conv_out_channels=64, num_classes=5
    )
    return model


def built(config) -> torch.nn.Module:
    torch.manual_seed(0)
    detector = MODELS.build(config)
    detector.init_weights()
    for head in detector.roi_head.bbox_heads:
        # So that boxes move from stage to stage, and classes differ.
        torch.nn.init.normal_(head.fc_reg.weight, std=0.1)
        torch.nn.init.normal_(head.fc_cls.weight, std=0.1)
    return detector


KINDS = pytest.mark.parametrize('config', [cascade_config, htc_config])


def batch() -> dict:
    """Two images of three objects each."""
    rng = torch.Generator().manual_seed(1)
    samples = []
    for i in range(2):
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(SIZE, SIZE),
                pad_shape=(SIZE, SIZE),
                ori_shape=(SIZE, SIZE),
                scale_factor=(1.0, 1.0),
                drawn_class=i,
                draw_key=(7, i),
            )
        )
        corners = 30 * torch.rand(3, 2, generator=rng)
        boxes = torch.cat([corners, corners + 25], dim=1)
        outlines = [[box[[0, 1, 2, 1, 2, 3, 0, 3]].double().view(4, 2).numpy()] for box in boxes]
        sample.gt_instances = InstanceData(
            bboxes=boxes, labels=torch.tensor([0, 1, 2]), masks=InstanceMasks(outlines, SIZE, SIZE)
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
        sample.gt_sem_seg = PixelData(sem_seg=torch.randint(0, 5, (1, SIZE, SIZE), generator=rng, dtype=torch.uint8))
        samples.append(sample)
    return dict(inputs=torch.randn(2, 3, SIZE, SIZE, generator=rng), data_samples=samples)


def pyramid() -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(2)
    return [torch.randn(2, 64, SIZE // stride, SIZE // stride, generator=rng) for stride in (4, 8, 16, 32)]


def proposals() -> list[InstanceData]:
    rng = torch.Generator().manual_seed(3)
    corners = 40 * torch.rand(2, 12, 2, generator=rng)
    boxes = torch.cat([corners, corners + 5 + 19 * torch.rand(2, 12, 2, generator=rng)], dim=2)
    return [InstanceData(bboxes=of_image) for of_image in boxes]


# Refinement


def moved_by_hand(box, delta, size) -> list[float]:
    """One box moved by one delta, in scalars; targets have standard deviations 0.1 and 0.2."""
    width, height = box[2] - box[0], box[3] - box[1]
    x = (box[0] + box[2]) / 2 + 0.1 * delta[0] * width
    y = (box[1] + box[3]) / 2 + 0.1 * delta[1] * height
    width, height = width * np.exp(0.2 * delta[2]), height * np.exp(0.2 * delta[3])
    corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    return [min(max(corner, 0), limit) for corner, limit in zip(corners, size[::-1] * 2, strict=True)]


@pytest.mark.parametrize('agnostic', [False, True])
def test_refinement_moves_each_roi_as_its_class_and_drops_ground_truths(agnostic):
    head = Shared2FCBBoxHead(in_channels=2, fc_out_channels=4, num_classes=3, reg_class_agnostic=agnostic)
    rng = torch.Generator().manual_seed(0)
    sampled, sizes = [], [(60, 80), (90, 50)]
    for num_pos, num_neg in ((3, 4), (0, 5)):
        corners = 30 * torch.rand(num_pos + num_neg, 2, generator=rng)
        boxes = torch.cat([corners, corners + 1 + 30 * torch.rand(num_pos + num_neg, 2, generator=rng)], dim=1)
        labels = torch.randint(0, 3, (num_pos,), generator=rng)
        index = torch.arange(num_pos)
        is_gt = index < 1
        sampled.append(
            SampledRoIs(
                index, torch.arange(num_neg), boxes[:num_pos], boxes[num_pos:], index, boxes[:num_pos], labels, is_gt
            )
        )
    logits = torch.randn(12, 4, generator=rng)
    logits[:, 3] += 2  # mostly background, which must not be the class of a box
    deltas = torch.randn(12, 4 if agnostic else 12, generator=rng)

    expected, row = [], 0
    for image, size in zip(sampled, sizes, strict=True):
        kept = []
        for i, box in enumerate(image.boxes.tolist()):
            label = int(image.pos_gt_labels[i]) if i < len(image.pos_boxes) else int(logits[row, :3].argmax())
            delta = deltas[row] if agnostic else deltas[row, 4 * label : 4 * label + 4]
            if i >= len(image.pos_boxes) or not image.pos_is_gt[i]:
                kept.append(moved_by_hand(box, delta.tolist(), size))
            row += 1
        expected.append(torch.tensor(kept, dtype=torch.float32))

    refined = head.refine_bboxes(logits, deltas, sampled, sizes)
    assert [len(boxes) for boxes in refined] == [6, 5]
    for found, wanted in zip(refined, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-4)


@KINDS
def test_a_stage_samples_from_the_boxes_the_stage_before_refined(config):
    model = config()
    for stage in model.train_cfg.rcnn:
        stage.sampler.update(num=1000, pos_fraction=1.0)
    roi_head, feats, samples = built(model).roi_head.eval(), pyramid(), batch()['data_samples']
    offered = [image.bboxes for image in proposals()]
    for stage, sampled in enumerate(roi_head.stages_of_rois(feats, proposals(), samples)):
        for image, (sample, boxes, rois) in enumerate(zip(samples, offered, sampled, strict=True)):
            everything = torch.cat([sample.gt_instances.bboxes, boxes])
            found = rois.boxes[rois.boxes.sum(1).argsort()]
            torch.testing.assert_close(found, everything[everything.sum(1).argsort()], atol=1e-3, rtol=1e-4)
            roi_feats = roi_head.box_feats(feats, torch.cat([torch.full((len(boxes), 1), image), boxes], 1), stage)
            head = roi_head.bbox_head[stage]
            offered[image] = head.bbox_coder.decode(boxes, head(roi_feats)[1].detach(), (SIZE, SIZE))


# Training


@KINDS
def test_a_training_step_reaches_every_parameter(config):
    detector = built(config()).train()
    losses = detector(**batch(), mode='loss')
    named = {f's{stage}.{loss}' for stage in range(3) for loss in ('loss_cls', 'loss_bbox', 'loss_mask')}
    assert named <= losses.keys()
    assert ('loss_semantic_seg' in losses) == (config is htc_config)
    total, _ = detector.parse_losses(losses)
    assert total.isfinite()
    total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in detector.parameters())
    assert all(parameter.grad.any() for parameter in detector.roi_head.parameters())


@KINDS
def test_losses_are_weighed_by_stage(config):
    losses = []
    for weights in ([1, 1, 1], [1, 0.5, 0.25]):
        model = config()
        model.roi_head.stage_loss_weights = weights
        roi_head = built(model).roi_head
        torch.manual_seed(5)
        losses.append(roi_head.loss(pyramid(), proposals(), batch()['data_samples']))
    for name, value in losses[0].items():
        weight = {'s1': 0.5, 's2': 0.25}.get(name[:2], 1) if 'loss' in name else 1
        torch.testing.assert_close(losses[1][name], weight * value)


def test_interleaved_masks_are_learnt_on_refined_boxes(monkeypatch):
    seen = {}
    for interleaved in (True, False):
        model = htc_config()
        model.roi_head.interleaved = interleaved
        roi_head, boxes = built(model).roi_head, []
        extract = roi_head.mask_roi_extractor[0].forward
        monkeypatch.setattr(
            roi_head.mask_roi_extractor[0],
            'forward',
            lambda feats, rois, seen=boxes, extract=extract: (seen.append(rois), extract(feats, rois))[1],
        )
        torch.manual_seed(5)
        roi_head.loss(pyramid(), proposals(), batch()['data_samples'])
        torch.manual_seed(5)
        sampled = next(roi_head.stages_of_rois(pyramid(), proposals(), batch()['data_samples']))
        positives = boxes_to_rois([image.pos_boxes for image in sampled])
        seen[interleaved] = boxes[0].shape == positives.shape and torch.equal(boxes[0], positives)
    assert seen == {True: False, False: True}


def test_the_semantic_branch_without_maps_is_refused_in_one_line():
    samples = batch()['data_samples']
    del samples[1].gt_sem_seg
    with pytest.raises(ConfigError, match='with_seg=True') as error:
        built(htc_config()).roi_head.loss(pyramid(), proposals(), samples)
    assert '\n' not in str(error.value)


def test_stages_and_heads_must_be_as_many():
    model = cascade_config()
    model.roi_head.num_stages = 2
    with pytest.raises(ConfigError, match='num_stages is 2'):
        MODELS.build(model)


# Features of Hybrid Task Cascade


def test_semantic_features_are_added_to_roi_features():
    roi_head, feats = built(htc_config()).roi_head, pyramid()
    rois = boxes_to_rois([image.bboxes for image in proposals()])
    _, embedding = roi_head.semantic_head(feats)
    semantic = roi_head.semantic_roi_extractor([embedding], rois)
    pooled = semantic.view(len(rois), 64, 7, 2, 7, 2).mean(dim=(3, 5))
    expected = roi_head.bbox_roi_extractor[1](feats, rois)
    assert pooled.abs().max() > 1e-3
    torch.testing.assert_close(roi_head.box_feats(feats, rois, 1), expected + pooled)
    torch.testing.assert_close(
        roi_head.mask_feats(feats, rois, 1), roi_head.mask_roi_extractor[1](feats, rois) + semantic
    )
    roi_head.semantic_fusion = ('mask',)
    assert torch.equal(roi_head.box_feats(feats, rois, 1), expected)


@pytest.mark.parametrize('mask_info_flow', [True, False])
def test_mask_features_flow_through_the_stages_before(mask_info_flow):
    model = htc_config()
    model.roi_head.mask_info_flow = mask_info_flow
    roi_head, feats = built(model).roi_head, pyramid()
    rois, labels = boxes_to_rois([image.bboxes for image in proposals()]), torch.zeros(24, dtype=torch.int64)
    hidden = first = roi_head.mask_feats(feats, rois, 2)
    for stage, head in enumerate(roi_head.mask_head):
        hidden = first + head.conv_res(hidden) if stage and mask_info_flow else first
        for conv in head.convs:
            hidden = conv(hidden)
    expected = head.conv_logits(head.upsample(hidden).relu())[:, 0]
    found = roi_head.mask_logits(feats, rois, labels, 2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(roi_head.mask_probabilities(feats, rois, labels), found.sigmoid())


def test_the_first_mask_head_has_no_residual_convolution():
    arguments = dict(num_convs=1, in_channels=4, conv_out_channels=4, num_classes=2)
    assert not hasattr(HTCMaskHead(with_conv_res=False, **arguments), 'conv_res')
    assert HTCMaskHead(**arguments).conv_res.conv.weight.shape == (4, 4, 1, 1)
    with pytest.raises(ConfigError, match='in_channels=8 and conv_out_channels=4'):
        HTCMaskHead(**dict(arguments, in_channels=8))


def test_cascade_masks_are_the_mean_of_the_stages():
    roi_head, feats = built(cascade_config()).roi_head, pyramid()
    rois, labels = boxes_to_rois([image.bboxes for image in proposals()]), torch.zeros(24, dtype=torch.int64)
    roi_feats = roi_head.mask_roi_extractor[0](feats, rois)
    expected = torch.stack([head(roi_feats, labels).sigmoid() for head in roi_head.mask_head]).mean(0)
    torch.testing.assert_close(roi_head.mask_probabilities(feats, rois, labels), expected)


def test_semantic_head_sums_levels_and_learns_at_its_own_size():
    head = FusedSemanticHead(num_ins=4, fusion_level=1, num_convs=1, in_channels=64, conv_out_channels=8, num_classes=5)
    feats = pyramid()
    fused = 0
    for i, (lateral, level) in enumerate(zip(head.lateral_convs, feats, strict=True)):
        resized = level if i == 1 else F.interpolate(level, size=(8, 8), mode='bilinear', align_corners=True)
        fused = fused + lateral.conv(resized).relu()
    hidden = head.convs[0].conv(fused).relu()
    logits, embedding = head(feats)
    torch.testing.assert_close(logits, head.conv_logits(hidden))
    torch.testing.assert_close(embedding, head.conv_embedding.conv(hidden).relu())

    labels = torch.randint(0, 5, (2, 1, SIZE, SIZE), dtype=torch.uint8)
    labels[0, :, :32] = 255
    at_level = labels[:, 0, ::8, ::8].long()
    per_pixel = F.cross_entropy(logits, at_level, ignore_index=255, reduction='none')
    torch.testing.assert_close(head.loss(logits, labels), 0.2 * per_pixel.mean())


# Calibration


def calibrated(config) -> torch.nn.Module:
    detector = built(config())
    counts = np.array([1, 10, 100, 1000])
    frequency = ClassFrequency(('a', 'b', 'c', 'd'), counts, counts)
    build_calibrator(dict(type='SimCal', head='3fc_ft', threshold=100), detector, frequency)
    return detector.eval()


@KINDS
@torch.no_grad()
def test_calibrated_heads_start_as_the_base_of_their_stage(config):
    roi_head, feats = calibrated(config).roi_head, pyramid()
    rois = boxes_to_rois([image.bboxes for image in proposals()])
    logits = []
    for stage, head in enumerate(roi_head.bbox_heads):
        roi_feats = roi_head.box_feats(feats, rois, stage)
        outputs = RoIOutputs(head, roi_feats)
        logits.append(outputs.logits)
        assert torch.equal(logits[-1], head.classify(head.shared(roi_feats)))
        assert torch.equal(roi_head.calibrator.logits(outputs, stage), logits[-1])
    assert not torch.allclose(logits[0], logits[1])


@KINDS
@torch.no_grad()
def test_scores_come_from_logits_averaged_over_stages(config):
    roi_head, feats, samples = calibrated(config).roi_head, pyramid(), batch()['data_samples']
    for parameter in roi_head.calibrator.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape))
    roi_head.with_mask = False
    roi_head.score_settings = ['dual', 'base']
    # Suppression that suppresses nothing: every RoI is detected as every class.
    roi_head.test_cfg.update(score_thr=-1.0, nms=dict(type='nms', iou_threshold=1.0), max_per_img=1000)

    boxes = [image.bboxes for image in proposals()]
    base, other = [], []
    for stage, head in enumerate(roi_head.bbox_heads):
        roi_feats = roi_head.box_feats(feats, boxes_to_rois(boxes), stage)
        logits, deltas = head(roi_feats)
        base.append(logits)
        other.append(roi_head.calibrator.heads[stage](roi_feats))
        boxes = head.bbox_coder.decode(torch.cat(boxes), deltas, (SIZE, SIZE)).split(12)
    p = torch.stack(base).mean(0).softmax(1)
    q = torch.stack(other).mean(0).softmax(1)
    dual = torch.cat([q[:, :2], p[:, 2:4]], dim=1)  # T = 100: classes of 1 and 10 instances are rare

    for image, detections in enumerate(roi_head.predict(feats, proposals(), samples)):
        here = slice(12 * image, 12 * (image + 1))
        for setting, scores in dict(dual=dual, base=p[:, :4]).items():
            found = detections[setting]
            for label in range(4):
                of_class = found[found.labels == label]
                wanted = scores[here, label].sort(descending=True)
                torch.testing.assert_close(of_class.scores, wanted.values)
                torch.testing.assert_close(of_class.bboxes, boxes[image][wanted.indices], atol=1e-3, rtol=1e-4)


@KINDS
def test_a_calibration_step_teaches_every_stages_head_and_nothing_else(config):
    model = CalibrationModel(calibrated(config), DrawnClassSelector()).train()
    losses = model(**batch())
    assert losses.keys() == {'s0.loss_cls', 's1.loss_cls', 's2.loss_cls'}
    sum(losses.values()).backward()
    for head in model.calibrator.heads:
        assert all(parameter.grad.any() for parameter in head.parameters())
    frozen = (p for name, p in model.named_parameters() if not name.startswith('detector.roi_head.calibrator.'))
    assert all(parameter.grad is None for parameter in frozen)


@torch.no_grad()
def test_the_semantic_branch_runs_once_a_step_and_every_image_has_its_share():
    model = CalibrationModel(calibrated(htc_config), DrawnClassSelector()).train()
    roi_head, runs = model.detector.roi_head, []
    roi_head.semantic_head.register_forward_hook(lambda head, feats, maps: runs.append(len(maps[0])))
    inputs, samples = (batch()[key] for key in ('inputs', 'data_samples'))
    losses = model(inputs, samples)
    assert runs == [2] and losses.keys() == {'s0.loss_cls', 's1.loss_cls', 's2.loss_cls'}

    feats = model.detector.extract_feat(inputs)
    proposed = model.detector.rpn_head.predict(feats, samples, model.detector.proposal_cfg)
    found = model.draw_rois(roi_head.context(feats), proposed, samples)
    for i, sample in enumerate(samples):
        alone = [roi_head.context([level[i : i + 1] for level in feats]), proposed[i : i + 1], [sample]]
        for (together, priorities), (separate, own) in zip(found, model.draw_rois(*alone), strict=True):
            # A convolution of one image rounds otherwise than one of two.
            torch.testing.assert_close(together[i].boxes, separate[0].boxes, atol=1e-4, rtol=1e-5)
            assert torch.equal(together[i].pos_gt_labels, separate[0].pos_gt_labels)
            assert torch.equal(priorities[i], own[0])


@KINDS
@torch.no_grad()
def test_an_image_without_proposals_has_no_detections(config):
    roi_head, samples = calibrated(config).roi_head, batch()['data_samples']
    nothing = [InstanceData(bboxes=torch.zeros(0, 4)) for _ in samples]
    for image in roi_head.predict(pyramid(), nothing, samples):
        assert len(image['dual']) == 0 and image['dual'].masks == []
