"""What RoI heads of one stage and of several have in common: sampling, scores, suppression and masks."""
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet.models.layers.precision import at_least_float32
from mmdet.models.post_processing import RLE, BoxesOf, multiclass_nms, paste_masks_to_rle
from mmdet.models.task_modules import MaxIoUAssigner, RandomSampler, SampledRoIs
from mmdet.structures import DetDataSample
from mmdet.structures.boxes import boxes_to_rois, scale_boxes

from .roi_outputs import RoIOutputs

ScoresOf = Callable[[str, slice], Tensor]


class BaseRoIHead(BaseModule):
    """From proposals to detections, through any number of stages.

    A stage scores the RoIs and moves their boxes; the moved boxes are the next stage's RoIs. A detection's score
    comes from the mean of all stages' logits, its box from the last stage.

    Attributes:
        num_stages: at least 1.
        with_mask: whether there are mask heads.
        calibrator: None, or the module that gives the classes their calibrated scores.
        last_pixel: 1 where a box's last pixel is part of it (its width is x2 - x1 + 1), else 0.
        score_settings: which scores detections are made from. Each of several settings is detected from the same
            pass of trunk and heads; `'base'` is the box head's own classifier, the others are the calibrator's.

    Args:
        test_cfg: `score_thr`, `nms`, `max_per_img`, `mask_thr_binary` and, optional, `min_bbox_size` and
            `shift_classes` (as mmcv does before it computes IoU, see `multiclass_nms`; True).
    """

    num_stages = 1
    last_pixel = 0

    def __init__(self, test_cfg: ConfigDict | None = None, init_cfg: dict | list | None = None):
        super().__init__(init_cfg)
        self.test_cfg = test_cfg
        self.with_mask = False
        self.calibrator: nn.Module | None = None
        self.score_settings: list[str] = ['base']

    @property
    @abstractmethod
    def bbox_heads(self) -> Sequence[nn.Module]:
        """The box heads, stage by stage."""

    def context(self, feats: Sequence[Tensor]) -> Sequence[Tensor]:
        """The pyramid as `box_feats` and `mask_logits` take it, with whatever a head computes once for all RoIs."""
        return feats

    def context_of_image(self, feats: Sequence[Tensor], image: int) -> Sequence[Tensor]:
        """The share of one image of the batch in what `context` returned, as of a batch of one."""
        return [level[image : image + 1] for level in feats]

    @abstractmethod
    def box_feats(self, feats: Sequence[Tensor], rois: Tensor, stage: int = 0) -> Tensor:
        """What the box head of a stage sees of (R, 5) RoIs: (R, D, S, S)."""

    @abstractmethod
    def mask_logits(self, feats: Sequence[Tensor], rois: Tensor, labels: Tensor, stage: int = 0) -> Tensor:
        """A stage's masks of (R, 5) RoIs, each of the class its label (R,) says: (R, M, M)."""

    def mask_probabilities(self, feats: Sequence[Tensor], rois: Tensor, labels: Tensor) -> Tensor:
        """(K, 5) detected boxes and (K,) classes -> (K, M, M) in [0, 1], the mean of all stages'."""
        logits = (self.mask_logits(feats, rois, labels, stage) for stage in range(self.num_stages))
        return sum(at_least_float32(of_stage).sigmoid() for of_stage in logits) / self.num_stages

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
        detections = self.predict_boxes(feats, proposals, data_samples)
        if self.with_mask:
            share_masks(detections, lambda unique: self._masks(feats, unique, data_samples))
        for image, sample in zip(detections, data_samples, strict=True):
            for instances in image.values():
                if rescale:
                    instances.bboxes = to_original_size(instances.bboxes, sample)
                del instances.roi_index
        return detections

    def predict_boxes(
        self, feats: Sequence[Tensor], proposals: Sequence[InstanceData], data_samples: Sequence[DetDataSample]
    ) -> list[dict[str, InstanceData]]:
        """Detections of every image under every score setting, without masks.

        Args:
            feats: what `context` makes of the pyramid.
            proposals, data_samples: as of `predict`.

        Returns:
            For each image {setting: instances with `bboxes` in pixels of the network input, `scores`, `labels` and
            `roi_index`, the proposal each comes from}.
        """
        boxes, scores_of, reg_feats = self._score(feats, [image.bboxes for image in proposals], data_samples)
        detections, first = [], 0
        for image_boxes, sample in zip(boxes, data_samples, strict=True):
            of_image = slice(first, first + len(image_boxes))
            detections.append(self._detect(image_boxes, reg_feats[of_image], scores_of, of_image, sample))
            first = of_image.stop
        return detections

    def _score(
        self, feats: Sequence[Tensor], boxes: Sequence[Tensor], data_samples: Sequence[DetDataSample]
    ) -> tuple[Sequence[Tensor], ScoresOf, Tensor]:
        """Through all stages.

        Returns:
            The last stage's boxes of every image; a function from a setting and a slice of all images' RoIs to their
            (R, C + 1) scores, so that no two settings' scores need be in memory together; and (R, D) features from
            which the last stage regresses boxes.
        """
        calibrated = any(setting != 'base' for setting in self.score_settings)
        base_logits, calibrated_logits = [], []
        for stage, head in enumerate(self.bbox_heads):
            outputs = RoIOutputs(head, self.box_feats(feats, boxes_to_rois(boxes), stage))
            base_logits.append(outputs.logits)
            if calibrated:
                calibrated_logits.append(outputs.logits_of(self.calibrator, stage))
            if stage + 1 < self.num_stages:
                labels, deltas = head.foreground_class(outputs.logits), head.regress(outputs.shared_feats)
                boxes = _moved(head, boxes, labels, deltas, data_samples)
        base_scores = self.bbox_heads[-1].class_scores(_mean(base_logits))
        logits = _mean(calibrated_logits) if calibrated else None

        def scores_of(setting: str, rois: slice) -> Tensor:
            if setting == 'base':
                return base_scores[rois]
            return self.calibrator.scores(base_scores[rois], _rows(logits, rois), setting)

        return boxes, scores_of, self.bbox_heads[-1].reg_branch(outputs.shared_feats)

    def _detect(
        self, rois: Tensor, reg_feats: Tensor, scores_of: ScoresOf, of_image: slice, sample: DetDataSample
    ) -> dict[str, InstanceData]:
        """Per-class non-maximum suppression of one image's RoIs under every setting."""
        head = self.bbox_heads[-1]

        def boxes_of(roi_index: Tensor, labels: Tensor) -> Tensor:
            return head.decode(rois[roi_index], head.candidate_deltas(reg_feats, roi_index, labels), sample.img_shape)

        detections = {}
        for setting in self.score_settings:
            scores = scores_of(setting, of_image)[:, :-1]
            boxes, kept_scores, labels, roi_index = self._suppress(boxes_of, scores, sample)
            detections[setting] = InstanceData(bboxes=boxes, scores=kept_scores, labels=labels, roi_index=roi_index)
        return detections

    def _suppress(
        self, boxes_of: BoxesOf, scores: Tensor, sample: DetDataSample
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `multiclass_nms` by `test_cfg` leaves of one image's candidates, in pixels of the network input."""
        return multiclass_nms(
            boxes_of,
            scores,
            self.test_cfg.score_thr,
            self.test_cfg.nms,
            self.test_cfg.max_per_img,
            self.test_cfg.get('min_bbox_size', -1),
            max(sample.img_shape) if self.test_cfg.get('shift_classes', True) else None,
        )

    def _masks(
        self, feats: Sequence[Tensor], instances: Sequence[InstanceData], data_samples: Sequence[DetDataSample]
    ) -> list[list[RLE]]:
        """The masks of every image's instances, whose boxes are in pixels of the network input."""
        labels = torch.cat([image.labels for image in instances])
        rois = boxes_to_rois([image.bboxes for image in instances])
        probabilities = self.mask_probabilities(feats, rois, labels).split([len(image) for image in instances])
        return [
            self.paste(of_image, to_original_size(image.bboxes, sample), sample)
            for of_image, image, sample in zip(probabilities, instances, data_samples, strict=True)
        ]

    def paste(self, probabilities: Tensor, boxes: Tensor, sample: DetDataSample) -> list[RLE]:
        """(K, M, M) masks of (K, 4) boxes, in pixels of the original image, as run-length encodings of it."""
        return paste_masks_to_rle(probabilities, boxes, sample.ori_shape, self.test_cfg.mask_thr_binary)


def _mean(logits: Sequence[Any]) -> Any:
    """The mean of the stages' logits, at least float32; a calibrator's may be tuples of tensors."""
    if isinstance(logits[0], tuple):
        return tuple(_mean(of_all_stages) for of_all_stages in zip(*logits, strict=True))
    return sum(at_least_float32(of_stage) for of_stage in logits) / len(logits)


def _rows(logits: Any, rois: slice) -> Any:
    """Of logits of all RoIs, those of some."""
    return tuple(_rows(part, rois) for part in logits) if isinstance(logits, tuple) else logits[rois]


def _moved(
    head: nn.Module,
    boxes: Sequence[Tensor],
    labels: Tensor,
    deltas: Tensor,
    data_samples: Sequence[DetDataSample],
) -> list[Tensor]:
    """The boxes of every image, all of them moved by a stage's box head."""
    counts = [len(image_boxes) for image_boxes in boxes]
    return [
        head.regress_by_class(image_boxes, image_labels, image_deltas, sample.img_shape)
        for image_boxes, image_labels, image_deltas, sample in zip(
            boxes, labels.split(counts), deltas.split(counts), data_samples, strict=True
        )
    ]


def share_masks(
    detections: Sequence[dict[str, InstanceData]],
    masks_of: Callable[[Sequence[InstanceData]], Sequence[Sequence[RLE]]],
) -> None:
    """Give every detection its `masks`; settings that detect the same RoI as the same class share one.

    Args:
        detections: of every image, {setting: instances with `labels` and `roi_index`}.
        masks_of: from the distinct instances of every image to the masks of each.
    """
    unique, places = zip(*[_unique_detections(image) for image in detections], strict=True)
    for image, masks, of_image in zip(detections, masks_of(unique), places, strict=True):
        for setting, instances in image.items():
            instances.masks = [masks[place] for place in of_image[setting]]


def _unique_detections(image: dict[str, InstanceData]) -> tuple[InstanceData, dict[str, list[int]]]:
    """The distinct (RoI, class) pairs among the settings' detections, and where each setting's are among them."""
    together = InstanceData.cat([instances for instances in image.values()])
    pairs = torch.stack([together.roi_index, together.labels], dim=1)
    _, place = torch.unique(pairs, dim=0, return_inverse=True)
    num_pairs = int(place.max()) + 1 if len(place) else 0
    representative = place.new_zeros(num_pairs).scatter_(0, place, torch.arange(len(place), device=place.device))
    places = place.split([len(instances) for instances in image.values()])
    return together[representative], {setting: part.tolist() for setting, part in zip(image, places, strict=True)}


def sample_rois(
    assigner: MaxIoUAssigner,
    sampler: RandomSampler,
    boxes: Sequence[Tensor],
    data_samples: Sequence[DetDataSample],
) -> list[SampledRoIs]:
    """Match every image's boxes (N_i, 4) with its ground truth and draw the RoIs to train on."""
    sampled = []
    for image_boxes, sample in zip(boxes, data_samples, strict=True):
        gt, ignored = sample.gt_instances, sample.ignored_instances
        assignment = assigner.assign(image_boxes, gt.bboxes, gt.labels, ignored.bboxes)
        sampled.append(sampler.sample(assignment, image_boxes, gt.bboxes, gt.labels))
    return sampled


def positives(sampled: Sequence[SampledRoIs]) -> tuple[Tensor, Tensor]:
    """The RoIs that have a mask to learn, (P, 5), and their classes (P,)."""
    return boxes_to_rois([image.pos_boxes for image in sampled]), torch.cat([image.pos_gt_labels for image in sampled])


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
