"""The stages of Cascade R-CNN (arXiv 1712.00726): each learns from boxes that the stage before it moved."""
from collections.abc import Iterator, Sequence

import torch
from mmengine.config import ConfigDict
from mmengine.model import ModuleList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet.errors import ConfigError
from mmdet.models.task_modules import SampledRoIs
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import DetDataSample
from mmdet.structures.boxes import boxes_to_rois

from .base_roi_head import BaseRoIHead, mask_targets, positives, sample_rois


@MODELS.register_module()
class CascadeRoIHead(BaseRoIHead):
    """A box head and, for Cascade Mask R-CNN, a mask head at every stage.

    Args:
        num_stages: at least 1.
        stage_loss_weights: by which the losses of each stage are multiplied.
        bbox_roi_extractor, bbox_head: configs of the box branch, one for each stage, or one for all.
        mask_roi_extractor, mask_head: likewise of the mask branch, if any.
        train_cfg: for each stage `assigner`, `sampler` and `mask_size`; None for a head that is only tested.
        test_cfg: `score_thr`, `nms`, `max_per_img` and `mask_thr_binary`.

    Raises:
        ConfigError: a list of another length than `num_stages`.
    """

    def __init__(
        self,
        num_stages: int,
        stage_loss_weights: Sequence[float],
        bbox_roi_extractor: dict | Sequence[dict],
        bbox_head: dict | Sequence[dict],
        mask_roi_extractor: dict | Sequence[dict] | None = None,
        mask_head: dict | Sequence[dict] | None = None,
        train_cfg: Sequence[ConfigDict] | None = None,
        test_cfg: ConfigDict | None = None,
        init_cfg: dict | list | None = None,
    ):
        super().__init__(test_cfg, init_cfg)
        self.num_stages = num_stages
        self.stage_loss_weights = self._of_every_stage('stage_loss_weights', list(stage_loss_weights))
        self.train_cfg = train_cfg
        self.bbox_roi_extractor = self._build('bbox_roi_extractor', bbox_roi_extractor)
        self.bbox_head = self._build('bbox_head', bbox_head)
        self.with_mask = mask_head is not None
        if self.with_mask:
            self.mask_roi_extractor = self._build('mask_roi_extractor', mask_roi_extractor or bbox_roi_extractor)
            self.mask_head = self._build('mask_head', mask_head)
        if train_cfg is not None:
            stages = self._of_every_stage('train_cfg', train_cfg)
            self.bbox_assigner = [TASK_UTILS.build(stage.assigner) for stage in stages]
            self.bbox_sampler = [TASK_UTILS.build(stage.sampler) for stage in stages]

    def _of_every_stage(self, key: str, value: dict | float | Sequence) -> list:
        values = list(value) if isinstance(value, (list, tuple)) else [value] * self.num_stages
        if len(values) != self.num_stages:
            place = 'model.train_cfg.rcnn' if key == 'train_cfg' else f'model.roi_head.{key}'
            raise ConfigError(f'{place} has {len(values)} items, and model.roi_head.num_stages is {self.num_stages}')
        return values

    def _build(self, key: str, config: dict | Sequence[dict]) -> ModuleList:
        return ModuleList(MODELS.build(of_stage) for of_stage in self._of_every_stage(key, config))

    @property
    def bbox_heads(self) -> Sequence[nn.Module]:
        """The box heads, stage by stage."""
        return self.bbox_head

    def box_feats(self, feats: Sequence[Tensor], rois: Tensor, stage: int = 0) -> Tensor:
        """What the box head of a stage sees of (R, 5) RoIs: (R, D, S, S)."""
        return self.bbox_roi_extractor[stage](feats, rois)

    def mask_feats(self, feats: Sequence[Tensor], rois: Tensor, stage: int = 0) -> Tensor:
        """What the mask head of a stage sees of (R, 5) RoIs: (R, D, S, S)."""
        return self.mask_roi_extractor[stage](feats, rois)

    def mask_logits(self, feats: Sequence[Tensor], rois: Tensor, labels: Tensor, stage: int = 0) -> Tensor:
        """A stage's masks of (R, 5) RoIs, each of the class its label (R,) says: (R, M, M)."""
        return self.mask_head[stage](self.mask_feats(feats, rois, stage), labels)

    def loss(
        self, feats: Sequence[Tensor], proposals: Sequence[InstanceData], data_samples: Sequence[DetDataSample]
    ) -> dict[str, Tensor]:
        """Losses of one step, those of stage i under names that begin with `s{i}.`.

        Args:
            feats: pyramid of (B, D, H_l, W_l).
            proposals: of each image, with `bboxes` in pixels of the network input.
            data_samples: with `gt_instances` and `ignored_instances`.
        """
        losses = {}
        boxes = [image.bboxes for image in proposals]
        for stage, head in enumerate(self.bbox_head):
            sampled = self.sample(boxes, data_samples, stage)
            cls_logits, deltas = head(self.box_feats(feats, boxes_to_rois([image.boxes for image in sampled]), stage))
            of_stage = head.loss(cls_logits, deltas, sampled)
            boxes = head.refine_bboxes(cls_logits, deltas, sampled, [sample.img_shape for sample in data_samples])
            if self.with_mask:
                masked = self._sample_for_masks(sampled, boxes, data_samples, stage)
                targets = mask_targets(masked, data_samples, self.train_cfg[stage].mask_size)
                logits = self.mask_logits(feats, *positives(masked), stage)
                of_stage.update(self.mask_head[stage].loss(logits, targets))
            weight = self.stage_loss_weights[stage]
            for name, value in of_stage.items():
                losses[f's{stage}.{name}'] = value * weight if 'loss' in name else value
        return losses

    def sample(
        self, boxes: Sequence[Tensor], data_samples: Sequence[DetDataSample], stage: int
    ) -> list[SampledRoIs]:
        """Match every image's boxes (N_i, 4) with its ground truth as a stage does, and draw its RoIs."""
        return sample_rois(self.bbox_assigner[stage], self.bbox_sampler[stage], boxes, data_samples)

    def _sample_for_masks(
        self,
        sampled: list[SampledRoIs],
        refined: Sequence[Tensor],
        data_samples: Sequence[DetDataSample],
        stage: int,
    ) -> list[SampledRoIs]:
        """The RoIs whose masks a stage learns; here, those of its box head."""
        return sampled

    @torch.no_grad()
    def stages_of_rois(
        self, feats: Sequence[Tensor], proposals: Sequence[InstanceData], data_samples: Sequence[DetDataSample]
    ) -> Iterator[list[SampledRoIs]]:
        """The training RoIs of every image, stage by stage, each from the boxes that the stage before it refined."""
        boxes = [image.bboxes for image in proposals]
        for stage, head in enumerate(self.bbox_head):
            sampled = self.sample(boxes, data_samples, stage)
            yield sampled
            if stage + 1 < self.num_stages:
                rois = boxes_to_rois([image.boxes for image in sampled])
                cls_logits, deltas = head(self.box_feats(feats, rois, stage))
                boxes = head.refine_bboxes(cls_logits, deltas, sampled, [sample.img_shape for sample in data_samples])
