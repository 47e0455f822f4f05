"""The second stage of Faster and Mask R-CNN."""
from collections.abc import Iterator, Sequence

from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet.models.task_modules import SampledRoIs
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import DetDataSample
from mmdet.structures.boxes import boxes_to_rois

from .base_roi_head import BaseRoIHead, mask_targets, positives, sample_rois


@MODELS.register_module()
class StandardRoIHead(BaseRoIHead):
    """One box head and, for Mask R-CNN, one mask head.

    Args:
        bbox_roi_extractor, bbox_head: configs of the box branch.
        mask_roi_extractor, mask_head: configs of the mask branch, if any.
        train_cfg: `assigner`, `sampler` and `mask_size`; None for a head that is only tested.
        test_cfg: `score_thr`, `nms`, `max_per_img` and `mask_thr_binary`.
    """

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
        super().__init__(test_cfg, init_cfg)
        self.train_cfg = train_cfg
        self.bbox_roi_extractor = MODELS.build(bbox_roi_extractor)
        self.bbox_head = MODELS.build(bbox_head)
        self.with_mask = mask_head is not None
        if self.with_mask:
            self.mask_roi_extractor = MODELS.build(mask_roi_extractor or bbox_roi_extractor)
            self.mask_head = MODELS.build(mask_head)
        if train_cfg is not None:
            self.bbox_assigner = TASK_UTILS.build(train_cfg.assigner)
            self.bbox_sampler = TASK_UTILS.build(train_cfg.sampler)

    @property
    def bbox_heads(self) -> list[nn.Module]:
        """The one box head."""
        return [self.bbox_head]

    def box_feats(self, feats: Sequence[Tensor], rois: Tensor, stage: int = 0) -> Tensor:
        """What the box head sees of (R, 5) RoIs: (R, D, S, S)."""
        return self.bbox_roi_extractor(feats, rois)

    def mask_logits(self, feats: Sequence[Tensor], rois: Tensor, labels: Tensor, stage: int = 0) -> Tensor:
        """The masks of (R, 5) RoIs, each of the class its label (R,) says: (R, M, M)."""
        return self.mask_head(self.mask_roi_extractor(feats, rois), labels)

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
        losses = self.bbox_head.loss(*self.bbox_head(self.box_feats(feats, rois)), sampled)
        if self.with_mask:
            logits = self.mask_logits(feats, *positives(sampled))
            losses.update(self.mask_head.loss(logits, mask_targets(sampled, data_samples, self.train_cfg.mask_size)))
        return losses

    def sample(
        self, proposals: Sequence[InstanceData], data_samples: Sequence[DetDataSample]
    ) -> list[SampledRoIs]:
        """Match every image's proposals with its ground truth and draw the RoIs to train on."""
        boxes = [image.bboxes for image in proposals]
        return sample_rois(self.bbox_assigner, self.bbox_sampler, boxes, data_samples)

    def stages_of_rois(
        self, feats: Sequence[Tensor], proposals: Sequence[InstanceData], data_samples: Sequence[DetDataSample]
    ) -> Iterator[list[SampledRoIs]]:
        """The training RoIs of every image, stage by stage; here there is one stage."""
        yield self.sample(proposals, data_samples)
