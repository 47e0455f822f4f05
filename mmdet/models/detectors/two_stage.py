"""Two-stage detectors: a trunk, an RPN that proposes boxes, a RoI head that names them."""
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet.errors import ConfigError
from mmdet.models.task_modules import RandomSampler, SampledRoIs
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample

from .base import BaseDetector

Seen = tuple[Any, list[InstanceData]]


@MODELS.register_module()
class TwoStageDetector(BaseDetector):
    """A detector built from the parts its config names.

    Args:
        backbone, neck, rpn_head, roi_head: configs of the parts.
        train_cfg: `rpn`, `rpn_proposal` (which proposals the RoI head trains on) and `rcnn`.
        test_cfg: `rpn` and `rcnn`.
        data_preprocessor: config of what turns a batch of images into the network's input.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict | None = None,
        rpn_head: dict | None = None,
        roi_head: dict | None = None,
        train_cfg: ConfigDict | None = None,
        test_cfg: ConfigDict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ):
        # Built here, because mmengine would look it up in the default scope, which need not be ours.
        super().__init__(MODELS.build(data_preprocessor or dict(type='DetDataPreprocessor')), init_cfg)
        train_cfg, test_cfg = ConfigDict(train_cfg or {}), ConfigDict(test_cfg or {})
        self.proposal_cfg = train_cfg.get('rpn_proposal', test_cfg.get('rpn'))
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck) if neck is not None else torch.nn.Identity()
        _check_channels(self.backbone, self.neck)
        self.rpn_head = MODELS.build(
            ConfigDict(rpn_head, train_cfg=train_cfg.get('rpn'), test_cfg=test_cfg.get('rpn'))
        )
        self.roi_head = MODELS.build(
            ConfigDict(roi_head, train_cfg=train_cfg.get('rcnn'), test_cfg=test_cfg.get('rcnn'))
        )

    def forward(self, inputs: Tensor, data_samples: Sequence[DetDataSample] | None = None, mode: str = 'tensor'):
        """One pass in mmengine's three modes.

        Args:
            inputs: (B, 3, H, W) normalised images.
            data_samples: one for each image.
            mode: `'loss'` gives {name: loss}, `'predict'` the data samples with their predictions, `'tensor'` the
                feature pyramid.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return self.extract_feat(inputs)

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) images -> pyramid of (B, D, H_l, W_l)."""
        return self.neck(self.backbone(inputs))

    def loss(self, inputs: Tensor, data_samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        """The losses of both stages."""
        feats = self.extract_feat(inputs)
        losses, proposals = self.rpn_head.loss_and_predict(feats, data_samples, proposal_cfg=self.proposal_cfg)
        losses.update(self.roi_head.loss(feats, proposals, data_samples))
        return losses

    def predict(
        self, inputs: Tensor, data_samples: Sequence[DetDataSample], rescale: bool = True
    ) -> list[DetDataSample]:
        """Detections, in pixels of the original images where `rescale`.

        `pred_instances` are those of the RoI head's first score setting; where it has several, each is also
        in `pred_instances_<setting>`.
        """
        feats = self.extract_feat(inputs)
        return self.detect(feats, self.rpn_head.predict(feats, data_samples), data_samples, rescale)

    def detect(
        self,
        feats: Sequence[Tensor],
        proposals: Sequence[InstanceData],
        data_samples: Sequence[DetDataSample],
        rescale: bool = True,
    ) -> list[DetDataSample]:
        """The second half of `predict`: from every image's proposals to its detections."""
        for sample, detections in zip(
            data_samples, self.roi_head.predict(feats, proposals, data_samples, rescale), strict=True
        ):
            set_predictions(sample, detections)
        return data_samples

    # What `BaseDetector` asks for

    @property
    def calibrator(self) -> nn.Module | None:
        """The RoI head's."""
        return self.roi_head.calibrator

    def set_calibrator(self, calibrator: nn.Module | None) -> None:
        """Give it to the RoI head."""
        self.roi_head.calibrator = calibrator

    @property
    def score_settings(self) -> list[str]:
        """The RoI head's."""
        return self.roi_head.score_settings

    @score_settings.setter
    def score_settings(self, settings: Sequence[str]) -> None:
        self.roi_head.score_settings = list(settings)

    @property
    def with_mask(self) -> bool:
        """Whether the RoI head has a mask branch."""
        return self.roi_head.with_mask

    @property
    def last_pixel(self) -> int:
        """The RoI head's."""
        return self.roi_head.last_pixel

    def num_classes_of_heads(self) -> dict[str, int]:
        """Of every box head, and of every mask head that has a mask for each class."""
        return dict(_num_classes(self.roi_head))

    def look(self, inputs: Tensor, data_samples: Sequence[DetDataSample]) -> Seen:
        """The pyramid, as the RoI head takes it, and every image's proposals."""
        feats = self.extract_feat(inputs)
        proposals = self.test_proposals(feats, data_samples)
        return self.context(feats), proposals

    def predict_boxes(self, seen: Seen, data_samples: Sequence[DetDataSample]) -> list[dict[str, InstanceData]]:
        """Detections without masks, see `BaseRoIHead.predict_boxes`."""
        return self.roi_head.predict_boxes(*seen, data_samples)

    def mask_probabilities(self, seen: Seen, rois: Tensor, labels: Tensor) -> Tensor:
        """(K, 5) detected boxes and (K,) classes -> (K, M, M) in [0, 1]."""
        return self.roi_head.mask_probabilities(seen[0], rois, labels)

    def paste(self, probabilities: Tensor, boxes: Tensor, sample: DetDataSample) -> list[Mapping[str, Any]]:
        """(K, M, M) masks of (K, 4) boxes, in pixels of the original image, as run-length encodings of it."""
        return self.roi_head.paste(probabilities, boxes, sample)

    @property
    def is_class_agnostic(self) -> bool:
        """Whether a box and a mask are the same whatever class they are of."""
        boxes_are = all(head.reg_class_agnostic for head in self.box_heads)
        return boxes_are and not any('mask_head' in key for key in self.num_classes_of_heads())

    @property
    def max_per_img(self) -> int:
        """By `test_cfg.rcnn`."""
        return self.roi_head.test_cfg.max_per_img

    def set_max_per_img(self, most: int) -> None:
        """Change `test_cfg.rcnn`."""
        self.roi_head.test_cfg.max_per_img = most

    @property
    def box_heads(self) -> Sequence[nn.Module]:
        """The RoI head's, stage by stage."""
        return self.roi_head.bbox_heads

    def test_proposals(self, feats: Sequence[Tensor], data_samples: Sequence[DetDataSample]) -> list[InstanceData]:
        """Every image's proposals by `test_cfg.rpn`."""
        return self.rpn_head.predict(feats, data_samples)

    def train_proposals(self, feats: Sequence[Tensor], data_samples: Sequence[DetDataSample]) -> list[InstanceData]:
        """Every image's proposals by `train_cfg.rpn_proposal`."""
        return self.rpn_head.predict(feats, data_samples, self.proposal_cfg)

    def context(self, feats: Sequence[Tensor]) -> Any:
        """The pyramid as the RoI head takes it."""
        return self.roi_head.context(feats)

    def context_of_image(self, feats: Any, image: int) -> Any:
        """What `context` gave of a batch, for one of its images alone."""
        return self.roi_head.context_of_image(feats, image)

    def stages_of_rois(
        self, feats: Any, proposals: Sequence[InstanceData], data_samples: Sequence[DetDataSample]
    ) -> Iterator[list[SampledRoIs]]:
        """The RoIs that a training step samples of every image, stage by stage."""
        return self.roi_head.stages_of_rois(feats, proposals, data_samples)

    def box_feats(self, feats: Any, rois: Tensor, stage: int = 0) -> Tensor:
        """What the box head of a stage sees of (R, 5) RoIs: (R, D, S, S)."""
        return self.roi_head.box_feats(feats, rois, stage)

    def most_rois(self) -> list[tuple[int, int]]:
        """The most positives, and the most RoIs, that a training step samples of an image, stage by stage.

        Raises:
            ConfigError: a sampler that bounds them not.
        """
        samplers = self.roi_head.bbox_sampler
        samplers = samplers if isinstance(samplers, list) else [samplers]
        for sampler in samplers:
            if not isinstance(sampler, RandomSampler):
                raise ConfigError(
                    'calibration.feature_bank needs model.train_cfg.rcnn.sampler of type RandomSampler, whose RoIs are '
                    f'bounded in number, not {type(sampler).__name__}; calibrate without it'
                )
        return [(int(sampler.num * sampler.pos_fraction), sampler.num) for sampler in samplers]


def _num_classes(roi_head: nn.Module) -> Iterator[tuple[str, int]]:
    """Of the heads that have something for every class, with their keys in `model`."""
    for kind in ('bbox_head', 'mask_head'):
        heads = getattr(roi_head, kind, None)
        if isinstance(heads, nn.ModuleList):
            named = [(f'roi_head.{kind}.{stage}', head) for stage, head in enumerate(heads)]
        else:
            named = [(f'roi_head.{kind}', heads)] if heads is not None else []
        yield from ((key, head.num_classes) for key, head in named if not getattr(head, 'class_agnostic', False))


def _check_channels(backbone: torch.nn.Module, neck: torch.nn.Module) -> None:
    """See that a neck is made for the feature maps of a backbone, where that tells their channels."""
    given, taken = getattr(backbone, 'out_channels', None), getattr(neck, 'in_channels', None)
    if given is not None and taken is not None and list(given) != list(taken):
        raise ConfigError(
            f'model.neck.in_channels is {list(taken)}, but model.backbone gives maps of {list(given)} channels: make '
            f'the two agree'
        )


def set_predictions(sample: DetDataSample, detections: dict[str, InstanceData]) -> None:
    """Give a sample what was detected under every score setting, as `TwoStageDetector.predict` says."""
    sample.pred_instances = next(iter(detections.values()))
    if len(detections) > 1:
        for setting, instances in detections.items():
            sample.set_field(instances, f'pred_instances_{setting}')


@MODELS.register_module()
class FasterRCNN(TwoStageDetector):
    """Faster R-CNN (arXiv 1506.01497)."""


@MODELS.register_module()
class MaskRCNN(TwoStageDetector):
    """Mask R-CNN (arXiv 1703.06870)."""


@MODELS.register_module()
class CascadeRCNN(TwoStageDetector):
    """Cascade R-CNN and Cascade Mask R-CNN (arXiv 1712.00726)."""


@MODELS.register_module()
class HybridTaskCascade(CascadeRCNN):
    """Hybrid Task Cascade (arXiv 1901.07518)."""
