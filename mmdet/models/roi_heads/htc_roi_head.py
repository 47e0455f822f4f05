"""Hybrid Task Cascade (arXiv 1901.07518): boxes, masks and a semantic map that help one another through the stages."""
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet.errors import ConfigError
from mmdet.models.layers.precision import at_least_float32
from mmdet.models.task_modules import SampledRoIs
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample

from .cascade_roi_head import CascadeRoIHead


class SemanticPyramid(NamedTuple):
    """A pyramid of (B, D, H_l, W_l) and, where there is a semantic branch, what it makes of it.

    Attributes:
        levels: the pyramid.
        logits: (B, classes, H, W) of the semantic segmentation, or None.
        embedding: (B, D, H, W) semantic features, or None.
    """

    levels: Sequence[Tensor]
    logits: Tensor | None
    embedding: Tensor | None


@MODELS.register_module()
class HybridTaskCascadeRoIHead(CascadeRoIHead):
    """A cascade with three more connections.

    * interleaved: in training, a stage's mask head learns on boxes that its box head has just refined, sampled anew;
    * mask information flow: a mask head also sees the features of the mask head before it;
    * semantic branch: a segmentation of the whole image is learnt too, and its features are added to RoI features.

    Args:
        num_stages, stage_loss_weights: as of `CascadeRoIHead`.
        semantic_roi_extractor, semantic_head: configs of the semantic branch, if any.
        semantic_fusion: the branches that see its features, of `'bbox'` and `'mask'`.
        interleaved, mask_info_flow: see above.
        cascade_kwargs: further arguments of `CascadeRoIHead`.
    """

    def __init__(
        self,
        num_stages: int,
        stage_loss_weights: Sequence[float],
        semantic_roi_extractor: dict | None = None,
        semantic_head: dict | None = None,
        semantic_fusion: Sequence[str] = ('bbox', 'mask'),
        interleaved: bool = True,
        mask_info_flow: bool = True,
        **cascade_kwargs,
    ):
        super().__init__(num_stages, stage_loss_weights, **cascade_kwargs)
        self.with_semantic = semantic_head is not None
        if self.with_semantic:
            self.semantic_roi_extractor = MODELS.build(semantic_roi_extractor)
            self.semantic_head = MODELS.build(semantic_head)
        self.semantic_fusion = tuple(semantic_fusion)
        self.interleaved = interleaved
        self.mask_info_flow = mask_info_flow

    # Features

    def context(self, feats: Sequence[Tensor] | SemanticPyramid) -> SemanticPyramid:
        """The pyramid with the semantic branch's share, which is computed here if it has not been yet."""
        if isinstance(feats, SemanticPyramid):
            return feats
        return SemanticPyramid(feats, *(self.semantic_head(feats) if self.with_semantic else (None, None)))

    def context_of_image(self, feats: SemanticPyramid, image: int) -> SemanticPyramid:
        """The share of one image of the batch in what `context` returned, as of a batch of one."""
        levels, *maps = feats
        of_image = (None if of_batch is None else of_batch[image : image + 1] for of_batch in maps)
        return SemanticPyramid(super().context_of_image(levels, image), *of_image)

    def box_feats(self, feats: Sequence[Tensor] | SemanticPyramid, rois: Tensor, stage: int = 0) -> Tensor:
        """What the box head of a stage sees of (R, 5) RoIs, semantic features included: (R, D, S, S)."""
        feats = self.context(feats)
        return self._fused('bbox', super().box_feats(feats.levels, rois, stage), feats, rois)

    def mask_feats(self, feats: Sequence[Tensor] | SemanticPyramid, rois: Tensor, stage: int = 0) -> Tensor:
        """What the mask head of a stage sees of (R, 5) RoIs, semantic features included: (R, D, S, S)."""
        feats = self.context(feats)
        return self._fused('mask', super().mask_feats(feats.levels, rois, stage), feats, rois)

    def _fused(self, branch: str, roi_feats: Tensor, feats: SemanticPyramid, rois: Tensor) -> Tensor:
        """RoI features plus the semantic ones, averaged down to their size."""
        if feats.embedding is None or branch not in self.semantic_fusion:
            return roi_feats
        semantic = self.semantic_roi_extractor([feats.embedding], rois)
        if semantic.shape[-2:] != roi_feats.shape[-2:]:
            semantic = F.adaptive_avg_pool2d(semantic, roi_feats.shape[-2:])
        return roi_feats + semantic

    def mask_logits(
        self, feats: Sequence[Tensor] | SemanticPyramid, rois: Tensor, labels: Tensor, stage: int = 0
    ) -> Tensor:
        """A stage's masks of (R, 5) RoIs, each of the class its label (R,) says: (R, M, M)."""
        roi_feats = self.mask_feats(feats, rois, stage)
        previous = None
        if self.mask_info_flow:
            for head in self.mask_head[:stage]:
                previous = head.hidden(roi_feats, previous)
        head = self.mask_head[stage]
        return head.predict(head.hidden(roi_feats, previous), labels)

    def mask_probabilities(self, feats: Sequence[Tensor] | SemanticPyramid, rois: Tensor, labels: Tensor) -> Tensor:
        """(K, 5) boxes and (K,) classes -> (K, M, M) in [0, 1]: the last stage's alone, as in mmdetection 3."""
        return at_least_float32(self.mask_logits(feats, rois, labels, self.num_stages - 1)).sigmoid()

    # Training

    def loss(
        self, feats: Sequence[Tensor], proposals: Sequence[InstanceData], data_samples: Sequence[DetDataSample]
    ) -> dict[str, Tensor]:
        """Losses of one step: the cascade's, and `loss_semantic_seg` with a semantic branch.

        Args:
            feats: pyramid of (B, D, H_l, W_l).
            proposals: of each image, with `bboxes` in pixels of the network input.
            data_samples: with `gt_instances`, `ignored_instances` and, for the semantic branch, `gt_sem_seg`.

        Raises:
            ConfigError: the semantic branch has no maps to learn from.
        """
        feats = self.context(feats)
        losses = {}
        if self.with_semantic:
            losses['loss_semantic_seg'] = self.semantic_head.loss(feats.logits, semantic_targets(data_samples))
        losses.update(super().loss(feats, proposals, data_samples))
        return losses

    def _sample_for_masks(
        self,
        sampled: list[SampledRoIs],
        refined: Sequence[Tensor],
        data_samples: Sequence[DetDataSample],
        stage: int,
    ) -> list[SampledRoIs]:
        return self.sample(refined, data_samples, stage) if self.interleaved else sampled

    # Calibration and testing

    def stages_of_rois(
        self, feats: Sequence[Tensor], proposals: Sequence[InstanceData], data_samples: Sequence[DetDataSample]
    ) -> Iterator[list[SampledRoIs]]:
        """The training RoIs of every image, stage by stage, each from the boxes that the stage before it refined."""
        return super().stages_of_rois(self.context(feats), proposals, data_samples)

    def predict(
        self,
        feats: Sequence[Tensor],
        proposals: Sequence[InstanceData],
        data_samples: Sequence[DetDataSample],
        rescale: bool = True,
    ) -> list[dict[str, InstanceData]]:
        """Detections of every image under every score setting, as `BaseRoIHead.predict` says."""
        return super().predict(self.context(feats), proposals, data_samples, rescale)


def semantic_targets(data_samples: Sequence[DetDataSample]) -> Tensor:
    """The semantic maps of a batch, (B, 1, H, W) labels in pixels of the network input.

    Raises:
        ConfigError: an image without one, or maps of several sizes.
    """
    if not all('gt_sem_seg' in sample for sample in data_samples):
        raise ConfigError(
            'model.roi_head.semantic_head learns from semantic maps, and images come without: give data_prefix.seg and '
            'LoadAnnotations with_seg=True, or drop semantic_head and semantic_roi_extractor'
        )
    maps = [sample.gt_sem_seg.sem_seg for sample in data_samples]
    if len({of_image.shape for of_image in maps}) > 1:
        raise ConfigError('semantic maps of a batch differ in size: set model.data_preprocessor.pad_seg=True')
    return torch.stack(maps)
