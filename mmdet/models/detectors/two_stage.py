"""Two-stage detectors: a trunk, an RPN that proposes boxes, a RoI head that names them."""
from collections.abc import Sequence

import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet.errors import ConfigError
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample


@MODELS.register_module()
class TwoStageDetector(BaseModel):
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
