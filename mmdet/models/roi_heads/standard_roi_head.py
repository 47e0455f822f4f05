"""The second stage of Faster and Mask R-CNN, and where a calibrator's scores enter it."""
from collections.abc import Iterator, Sequence

import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet.models.post_processing import multiclass_nms, paste_masks_to_rle
from mmdet.models.task_modules import SampledRoIs
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import DetDataSample
from mmdet.structures.boxes import boxes_to_rois, scale_boxes


@MODELS.register_module()
class StandardRoIHead(BaseModule):
    """One box head and, for Mask R-CNN, one mask head.

    Attributes:
        calibrator: None, or the module that gives the classes their calibrated scores.
        score_settings: which scores detections are made from. Each of several settings is detected from the same
            pass of trunk and heads; `'base'` is the box head's own classifier, the others are the calibrator's.

    Args:
        bbox_roi_extractor, bbox_head: configs of the box branch.
        mask_roi_extractor, mask_head: configs of the mask branch, if any.
        train_cfg: `assigner`, `sampler` and `mask_size`; None for a head that is only tested.
        test_cfg: `score_thr`, `nms`, `max_per_img` and `mask_thr_binary`.
    """

    num_stages = 1

    def __init__(
        self,
        bbox_roi_extractor: dict,
        bbox_head: dict,
        mask_roi_extractor: dict | None = None,
        mask_head: dict | None = None,
        train_cfg: ConfigDict | None = None,
        test_cfg: ConfigDict | None = None,
        init_cfg: dict | list | None = None,
    ):
        super().__init__(init_cfg)
        self.train_cfg = train_cfg
        self.test_cfg = test_cfg
        self.bbox_roi_extractor = MODELS.build(bbox_roi_extractor)
        self.bbox_head = MODELS.build(bbox_head)
        self.with_mask = mask_head is not None
        if self.with_mask:
            self.mask_roi_extractor = MODELS.build(mask_roi_extractor or bbox_roi_extractor)
            self.mask_head = MODELS.build(mask_head)
        if train_cfg is not None:
            self.bbox_assigner = TASK_UTILS.build(train_cfg.assigner)
            self.bbox_sampler = TASK_UTILS.build(train_cfg.sampler)
        self.calibrator: nn.Module | None = None
        self.score_settings: list[str] = ['base']

    @property
    def bbox_heads(self) -> list[nn.Module]:
        """The box heads, stage by stage."""
        return [self.bbox_head]

    # Training

    def loss(
        self, feats: Sequence[Tensor], proposals: Sequence[InstanceData], data_samples: Sequence[DetDataSample]
    ) -> dict[str, Tensor]:
        """Losses of one step: sample RoIs, classify and refine them, and draw the masks of the positive ones.

        Args:
            feats: pyramid of (B, D, H_l, W_l).
            proposals: of each image, with `bboxes` in pixels of the network input.
            data_samples: with `gt_instances` and `ignored_instances`.
        """
        sampled = self.sample(proposals, data_samples)
        rois = boxes_to_rois([image.boxes for image in sampled])
        losses = self.bbox_head.loss(*self.bbox_head(self.bbox_roi_extractor(feats, rois)), sampled)
        if self.with_mask:
            losses.update(self._mask_loss(feats, sampled, data_samples))
        return losses

    def sample(
        self, proposals: Sequence[InstanceData], data_samples: Sequence[DetDataSample]
    ) -> list[SampledRoIs]:
        """Match every image's proposals with its ground truth and draw the RoIs to train on."""
        return [
            self._sample_image(image_proposals.bboxes, sample)
            for image_proposals, sample in zip(proposals, data_samples, strict=True)
        ]

    def _sample_image(self, boxes: Tensor, sample: DetDataSample) -> SampledRoIs:
        gt, ignored = sample.gt_instances, sample.ignored_instances
        assignment = self.bbox_assigner.assign(boxes, gt.bboxes, gt.labels, ignored.bboxes)
        return self.bbox_sampler.sample(assignment, boxes, gt.bboxes, gt.labels)

    def _mask_loss(
        self, feats: Sequence[Tensor], sampled: Sequence[SampledRoIs], data_samples: Sequence[DetDataSample]
    ) -> dict[str, Tensor]:
        labels = torch.cat([image.pos_gt_labels for image in sampled])
        rois = boxes_to_rois([image.pos_boxes for image in sampled])
        logits = self.mask_head(self.mask_roi_extractor(feats, rois), labels)
        targets = mask_targets(sampled, data_samples, self.train_cfg.mask_size)
        return self.mask_head.loss(logits, targets)

    # Calibration

    def stages_of_rois(
        self, feats: Sequence[Tensor], proposals: Sequence[InstanceData], data_samples: Sequence[DetDataSample]
    ) -> Iterator[list[SampledRoIs]]:
        """The training RoIs of every image, stage by stage; here there is one stage."""
        yield self.sample(proposals, data_samples)

    def box_feats(self, feats: Sequence[Tensor], rois: Tensor, stage: int = 0) -> Tensor:
        """What the box head of a stage sees of (R, 5) RoIs: (R, D, S, S)."""
        return self.bbox_roi_extractor(feats, rois)

    # Testing

    def predict(
        self,
        feats: Sequence[Tensor],
        proposals: Sequence[InstanceData],
        data_samples: Sequence[DetDataSample],
        rescale: bool = True,
    ) -> list[dict[str, InstanceData]]:
        """Detections of every image under every score setting.

        Args:
            feats: pyramid of (B, D, H_l, W_l).
            proposals: of each image, with `bboxes` in pixels of the network input.
            data_samples: with `img_shape`, `ori_shape` and `scale_factor`.
            rescale: whether boxes are given in pixels of the original image; masks always are.

        Returns:
            For each image {setting: instances with `bboxes`, `scores`, `labels` and, with a mask head, `masks`}.
        """
        rois = boxes_to_rois([image.bboxes for image in proposals])
        scores, deltas = self._score(feats, rois)
        counts = [len(image.bboxes) for image in proposals]
        detections = []
        for i, (boxes, image_deltas, sample) in enumerate(
            zip(rois[:, 1:].split(counts), deltas.split(counts), data_samples, strict=True)
        ):
            image_scores = {setting: of_all.split(counts)[i] for setting, of_all in scores.items()}
            detections.append(self._detect(boxes, image_deltas, image_scores, sample))
        if self.with_mask:
            self._add_masks(feats, detections, data_samples)
        for image, sample in zip(detections, data_samples, strict=True):
            for instances in image.values():
                if rescale:
                    instances.bboxes = to_original_size(instances.bboxes, sample)
                del instances.roi_index
        return detections

    def _score(self, feats: Sequence[Tensor], rois: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Every setting's (R, C + 1) scores of the RoIs, and their box deltas."""
        roi_feats = self.box_feats(feats, rois)
        shared_feats = self.bbox_head.shared(roi_feats)
        base_logits = self.bbox_head.classify(shared_feats)
        base_scores = self.bbox_head.class_scores(base_logits)
        scores = dict.fromkeys(self.score_settings, base_scores)
        calibrated = [setting for setting in scores if setting != 'base']
        if calibrated:
            logits = self.calibrator.logits(roi_feats, shared_feats, base_logits)
            scores.update({setting: self.calibrator.scores(base_scores, logits, setting) for setting in calibrated})
        return scores, self.bbox_head.regress(shared_feats)

    def _detect(
        self, rois: Tensor, deltas: Tensor, scores: dict[str, Tensor], sample: DetDataSample
    ) -> dict[str, InstanceData]:
        """Per-class non-maximum suppression of one image's RoIs under every setting."""

        def boxes_of(roi_index: Tensor, labels: Tensor) -> Tensor:
            candidates = self.bbox_head.deltas_of_class(deltas, roi_index, labels)
            return self.bbox_head.decode(rois[roi_index], candidates, sample.img_shape)

        detections = {}
        for setting, setting_scores in scores.items():
            boxes, kept_scores, labels, roi_index = multiclass_nms(
                boxes_of, setting_scores[:, :-1], self.test_cfg.score_thr, self.test_cfg.nms, self.test_cfg.max_per_img
            )
            detections[setting] = InstanceData(bboxes=boxes, scores=kept_scores, labels=labels, roi_index=roi_index)
        return detections

    def _add_masks(
        self,
        feats: Sequence[Tensor],
        detections: Sequence[dict[str, InstanceData]],
        data_samples: Sequence[DetDataSample],
    ) -> None:
        """Give every detection its mask; settings that detect the same RoI as the same class share one."""
        unique, places = zip(*[_unique_detections(image) for image in detections], strict=True)
        labels = torch.cat([image.labels for image in unique])
        rois = boxes_to_rois([image.bboxes for image in unique])
        probabilities = self._mask_probabilities(feats, rois, labels).split([len(image) for image in unique])
        for i, (image, sample) in enumerate(zip(detections, data_samples, strict=True)):
            boxes = to_original_size(unique[i].bboxes, sample)
            masks = paste_masks_to_rle(probabilities[i], boxes, sample.ori_shape, self.test_cfg.mask_thr_binary)
            for setting, instances in image.items():
                instances.masks = [masks[place] for place in places[i][setting]]

    def _mask_probabilities(self, feats: Sequence[Tensor], rois: Tensor, labels: Tensor) -> Tensor:
        """(K, 5) detected boxes and (K,) classes -> (K, M, M) in [0, 1]."""
        return self.mask_head(self.mask_roi_extractor(feats, rois), labels).float().sigmoid()


def _unique_detections(image: dict[str, InstanceData]) -> tuple[InstanceData, dict[str, list[int]]]:
    """The distinct (RoI, class) pairs among the settings' detections, and where each setting's are among them."""
    together = InstanceData.cat([instances for instances in image.values()])
    pairs = torch.stack([together.roi_index, together.labels], dim=1)
    _, place = torch.unique(pairs, dim=0, return_inverse=True)
    num_pairs = int(place.max()) + 1 if len(place) else 0
    representative = place.new_zeros(num_pairs).scatter_(0, place, torch.arange(len(place), device=place.device))
    places = place.split([len(instances) for instances in image.values()])
    return together[representative], {setting: part.tolist() for setting, part in zip(image, places, strict=True)}


def mask_targets(sampled: Sequence[SampledRoIs], data_samples: Sequence[DetDataSample], mask_size: int) -> Tensor:
    """The ground-truth masks of all positive RoIs, rasterised on each RoI's own grid.

    Returns:
        (P, mask_size, mask_size) float32 in {0, 1}, image by image.
    """
    return torch.cat(
        [
            sample.gt_instances.masks.crop_and_resize(image.pos_boxes, mask_size, image.pos_gt_index)
            for image, sample in zip(sampled, data_samples, strict=True)
        ]
    )


def to_original_size(boxes: Tensor, sample: DetDataSample) -> Tensor:
    """Boxes in pixels of the network input -> in pixels of the original image."""
    width_factor, height_factor = sample.scale_factor
    return scale_boxes(boxes, (1 / width_factor, 1 / height_factor))
