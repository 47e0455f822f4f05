"""The two predictors of a box head, their targets, losses and decoding."""
from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet.errors import ConfigError
from mmdet.models.layers.precision import at_least_float32
from mmdet.models.losses import accuracy
from mmdet.models.task_modules import SampledRoIs
from mmdet.registry import MODELS, TASK_UTILS

# To regress one (RoI, class) pair alone costs so many times its share of the product of all RoIs with all classes.
PRICE_OF_A_PAIR = 16
PAIRS_AT_A_TIME = 1024  # each brings its class's weights along, 16 KB of them


@MODELS.register_module()
class BBoxHead(BaseModule):
    """Linear class and box predictors on flattened RoI features.

    The forward pass is split in three, so that a calibrator can share what it shares with the base:
    `shared` (RoI features -> (R, D)), then `classify` (-> class logits) and `regress` (-> box deltas).
    Classes are 0..C-1, background is C.

    Args:
        roi_feat_size: side of the RoI feature map, in cells.
        in_channels: its channels.
        num_classes: C, without background.
        bbox_coder: config of the box coder.
        reg_class_agnostic: one box for all classes, or one for each.
        reg_decoded_bbox: whether the box loss compares boxes instead of deltas.
        cls_predictor_cfg, reg_predictor_cfg: configs of the predictor layers.
        loss_cls, loss_bbox: configs of the losses.

    Raises:
        ConfigError: a classification loss for another number of classes.
    """

    def __init__(
        self,
        roi_feat_size: int = 7,
        in_channels: int = 256,
        num_classes: int = 80,
        bbox_coder: dict | None = None,
        reg_class_agnostic: bool = False,
        reg_decoded_bbox: bool = False,
        cls_predictor_cfg: dict | None = None,
        reg_predictor_cfg: dict | None = None,
        loss_cls: dict | None = None,
        loss_bbox: dict | None = None,
        init_cfg: dict | list | None = None,
    ):
        super().__init__(init_cfg)
        self.roi_feat_size = roi_feat_size
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.reg_class_agnostic = reg_class_agnostic
        self.reg_decoded_bbox = reg_decoded_bbox
        self.cls_predictor_cfg = cls_predictor_cfg or dict(type='Linear')
        self.reg_predictor_cfg = reg_predictor_cfg or dict(type='Linear')
        self.bbox_coder = TASK_UTILS.build(
            bbox_coder or dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2])
        )
        self.loss_cls = MODELS.build(loss_cls or dict(type='CrossEntropyLoss'))
        self.loss_bbox = MODELS.build(loss_bbox or dict(type='SmoothL1Loss'))
        self.init_cfg = self.init_cfg or self.default_init_cfg()
        self._check_loss_classes()
        self._build_predictors(in_channels * roi_feat_size**2, in_channels * roi_feat_size**2)

    def default_init_cfg(self) -> list[dict]:
        """Small normal predictors, so that training starts from near-uniform scores and unmoved boxes.

        Biases are 0, or give every class the score from which a sigmoid loss wants to start.
        """
        return [
            dict(
                type='Normal',
                std=0.01,
                bias_prob=getattr(self.loss_cls, 'prior_prob', None),
                override=dict(name='fc_cls'),
            ),
            dict(type='Normal', std=0.001, override=dict(name='fc_reg')),
        ]

    def _check_loss_classes(self) -> None:
        of_loss = getattr(self.loss_cls, 'num_classes', self.num_classes)
        if of_loss != self.num_classes:
            raise ConfigError(
                f'model.roi_head.bbox_head: num_classes is {self.num_classes}, but loss_cls.num_classes is {of_loss}: '
                'make the two agree'
            )

    def _build_predictors(self, cls_features: int, reg_features: int) -> None:
        num_boxes = 1 if self.reg_class_agnostic else self.num_classes
        self.fc_cls = MODELS.build(
            dict(self.cls_predictor_cfg, in_features=cls_features, out_features=self.num_cls_logits)
        )
        self.fc_reg = MODELS.build(dict(self.reg_predictor_cfg, in_features=reg_features, out_features=4 * num_boxes))

    @property
    def has_custom_cls_logits(self) -> bool:
        """Whether the classification loss says itself how many logits there are and what scores they mean.

        Otherwise they are C + 1, and scores are their softmax.
        """
        return getattr(self.loss_cls, 'custom_cls_channels', False)

    @property
    def num_cls_logits(self) -> int:
        """Width of the classifier's output."""
        return self.loss_cls.get_cls_channels(self.num_classes) if self.has_custom_cls_logits else self.num_classes + 1

    def shared(self, roi_feats: Tensor) -> Tensor:
        """(R, D, S, S) RoI features -> what both branches start from; here (R, D * S * S)."""
        return roi_feats.flatten(1)

    def cls_branch(self, shared_feats: Tensor) -> Tensor:
        """From the shared features to the input of `fc_cls`."""
        return shared_feats

    def reg_branch(self, shared_feats: Tensor) -> Tensor:
        """From the shared features to the input of `fc_reg`."""
        return shared_feats

    def classify(self, shared_feats: Tensor) -> Tensor:
        """Shared features -> (R, num_cls_logits) class logits."""
        return self.fc_cls(self.cls_branch(shared_feats))

    def regress(self, shared_feats: Tensor) -> Tensor:
        """Shared features -> (R, 4) or (R, 4 * C) box deltas."""
        return self.fc_reg(self.reg_branch(shared_feats))

    def forward(self, roi_feats: Tensor) -> tuple[Tensor, Tensor]:
        """(R, D, S, S) RoI features -> class logits and box deltas."""
        shared_feats = self.shared(roi_feats)
        return self.classify(shared_feats), self.regress(shared_feats)

    def class_scores(self, cls_logits: Tensor) -> Tensor:
        """Class logits -> (R, C + 1) scores, at least float32, background last."""
        if self.has_custom_cls_logits:
            return self.loss_cls.get_activation(at_least_float32(cls_logits))
        return at_least_float32(cls_logits).softmax(dim=-1)

    def decode(self, boxes: Tensor, deltas: Tensor, max_shape: Sequence[int] | None) -> Tensor:
        """(K, 4) RoIs moved by (K, 4) deltas of one class each, clipped to `max_shape` (height, width)."""
        return self.bbox_coder.decode(boxes, deltas, max_shape=max_shape)

    def deltas_of_class(self, deltas: Tensor, roi_index: Tensor, labels: Tensor) -> Tensor:
        """Of all deltas, (R, 4) or (R, 4 * C), those of RoIs `roi_index` (K,) for classes `labels` (K,): (K, 4)."""
        if self.reg_class_agnostic:
            return deltas[roi_index]
        return deltas.view(len(deltas), -1, 4)[roi_index, labels]

    def candidate_deltas(self, reg_feats: Tensor, roi_index: Tensor, labels: Tensor) -> Tensor:
        """The deltas of K (RoI, class) pairs, where K is small without those of the other R * C.

        Args:
            reg_feats: (R, D), what `reg_branch` gives.
            roi_index, labels: (K,) int64.

        Returns:
            (K, 4), of `deltas_of_class(fc_reg(reg_feats), roi_index, labels)`.
        """
        all_at_once = len(labels) * PRICE_OF_A_PAIR > len(reg_feats) * self.num_classes
        linear = type(self.fc_reg) is nn.Linear and self.fc_reg.bias is not None
        if self.reg_class_agnostic or all_at_once or not linear:
            return self.deltas_of_class(self.fc_reg(reg_feats), roi_index, labels)
        weight = self.fc_reg.weight.view(self.num_classes, 4, -1)
        bias = self.fc_reg.bias.view(self.num_classes, 4)
        pairs = zip(roi_index.split(PAIRS_AT_A_TIME), labels.split(PAIRS_AT_A_TIME), strict=True)
        deltas = [torch.baddbmm(bias[label, :, None], weight[label], reg_feats[roi, :, None]) for roi, label in pairs]
        return torch.cat(deltas).squeeze(2)

    def foreground_class(self, cls_logits: Tensor) -> Tensor:
        """Class logits -> (R,) int64, the highest class of each RoI, background left aside."""
        scores = self.class_scores(cls_logits) if self.has_custom_cls_logits else cls_logits
        return scores[:, : self.num_classes].argmax(dim=1)

    def regress_by_class(
        self, boxes: Tensor, labels: Tensor, deltas: Tensor, image_size: Sequence[int]
    ) -> Tensor:
        """Boxes moved as RoIs of a class: where a stage of a cascade leaves them to the next.

        Args:
            boxes: (R, 4).
            labels: (R,) int64, the class by whose deltas each is moved, where every class has its own.
            deltas: (R, 4) or (R, 4 * C).
            image_size: (height, width) to which boxes are cut, in pixels.
        """
        every_roi = torch.arange(len(boxes), device=boxes.device)
        return self.decode(boxes, self.deltas_of_class(deltas, every_roi, labels), image_size)

    @torch.no_grad()
    def refine_bboxes(
        self,
        cls_logits: Tensor,
        deltas: Tensor,
        sampled: Sequence[SampledRoIs],
        image_sizes: Sequence[Sequence[int]],
    ) -> list[Tensor]:
        """The next stage's proposals in training: this one's RoIs, moved.

        Positives are moved by the deltas of their ground truth's class, negatives by those of the class that scores
        highest. RoIs that are ground truths themselves are left out; the next stage's sampler adds them again.

        Args:
            cls_logits, deltas, sampled: as of `loss`.
            image_sizes: (height, width) of every image.

        Returns:
            For each image (R_i, 4).
        """
        labels = torch.cat([self._labels(rois) for rois in sampled])
        labels = torch.where(labels == self.num_classes, self.foreground_class(cls_logits), labels)
        counts = [len(rois.boxes) for rois in sampled]
        refined = []
        for rois, image_labels, image_deltas, image_size in zip(
            sampled, labels.split(counts), deltas.split(counts), image_sizes, strict=True
        ):
            moved = self.regress_by_class(rois.boxes, image_labels, image_deltas, image_size)
            is_gt = torch.cat([rois.pos_is_gt, rois.pos_is_gt.new_zeros(len(rois.neg_boxes))])
            refined.append(moved[~is_gt])
        return refined

    def loss(self, cls_logits: Tensor, deltas: Tensor, sampled: Sequence[SampledRoIs]) -> dict[str, Tensor]:
        """Classification and box losses of the step's RoIs, ordered image by image, positives first.

        Args:
            cls_logits: (R, num_cls_logits).
            deltas: (R, 4) or (R, 4 * C).
            sampled: the RoIs of every image; their `boxes` concatenated are the R RoIs.

        Returns:
            `loss_cls` (mean over RoIs), `loss_bbox` (sum over positives, divided by all RoIs), `acc` (per cent). A loss
            with logits of its own may name its parts and accuracies otherwise.
        """
        labels = torch.cat([self._labels(rois) for rois in sampled])
        losses = self._classification_loss(cls_logits, labels)
        losses['loss_bbox'] = self._box_loss(deltas, labels, sampled)
        return losses

    def _labels(self, rois: SampledRoIs) -> Tensor:
        background = rois.pos_gt_labels.new_full((len(rois.neg_boxes),), self.num_classes)
        return torch.cat([rois.pos_gt_labels, background])

    def _classification_loss(self, cls_logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        weight = torch.ones(len(labels), device=labels.device)
        loss = self.loss_cls(cls_logits, labels, weight, avg_factor=len(labels))
        losses = loss if isinstance(loss, dict) else dict(loss_cls=loss)
        if self.has_custom_cls_logits:
            losses.update(self.loss_cls.get_accuracy(cls_logits, labels))
        else:
            losses['acc'] = accuracy(cls_logits, labels)
        return losses

    def _box_loss(self, deltas: Tensor, labels: Tensor, sampled: Sequence[SampledRoIs]) -> Tensor:
        positive = (labels < self.num_classes).nonzero().squeeze(1)
        if not len(positive):
            return deltas.sum() * 0
        predicted = self.deltas_of_class(deltas, positive, labels[positive])
        boxes = torch.cat([rois.pos_boxes for rois in sampled])
        gt_boxes = torch.cat([rois.pos_gt_boxes for rois in sampled])
        if self.reg_decoded_bbox:
            return self.loss_bbox(self.bbox_coder.decode(boxes, predicted), gt_boxes, avg_factor=len(labels))
        return self.loss_bbox(predicted, self.bbox_coder.encode(boxes, gt_boxes), avg_factor=len(labels))


MODELS.register_module('Linear', module=nn.Linear)
