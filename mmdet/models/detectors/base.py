"""What training, testing, test-time augmentation and calibration ask of a detector, and nothing more.

A detector need not be a `BaseDetector` to be trained and tested: any `BaseModel` of the registry does, and counts as
one that has only its own scores. To be calibrated it has to answer what is listed here under "Calibration".
"""
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet.errors import ConfigError
from mmdet.structures import DetDataSample

BASE_SCORES = ('base',)


class BaseDetector(BaseModel):
    """A detector whose classification can be calibrated, if it has what is asked for below.

    Attributes:
        calibrator: None, or what gives the classes other scores than the detector's own.
        score_settings: which scores detections are made from; `'base'` are the detector's own.
        with_mask: whether it detects masks.
        last_pixel: 1 where a box's last pixel is part of it (its width is x2 - x1 + 1), else 0.
    """

    calibrator: nn.Module | None = None
    score_settings: Sequence[str] = BASE_SCORES
    with_mask = False
    last_pixel = 0

    # Training and testing

    def num_classes_of_heads(self) -> Mapping[str, int]:
        """For each head that has something for every class its number of classes, by the head's key in `model`."""
        return {}

    # Test-time augmentation

    def look(self, inputs: Tensor, data_samples: Sequence[DetDataSample]) -> Any:
        """(B, 3, H, W) images -> all that the methods below need to know of them."""
        raise ConfigError(f'model.type={type(self).__name__} has no test-time augmentation; test it without --tta')

    def predict_boxes(self, seen: Any, data_samples: Sequence[DetDataSample]) -> list[dict[str, InstanceData]]:
        """From what `look` returns to every image's detections under every score setting.

        Returns:
            For each image {setting: instances with `bboxes` in pixels of the network input, `scores`, `labels` and
            `roi_index`, which tells apart what different detections were made from}.
        """
        raise NotImplementedError

    def mask_probabilities(self, seen: Any, rois: Tensor, labels: Tensor) -> Tensor:
        """(K, 5) detected boxes and (K,) classes -> (K, M, M) in [0, 1]."""
        raise NotImplementedError

    def paste(self, probabilities: Tensor, boxes: Tensor, sample: DetDataSample) -> list[Mapping[str, Any]]:
        """(K, M, M) masks of (K, 4) boxes, in pixels of the original image, as run-length encodings of it."""
        raise NotImplementedError

    @property
    def is_class_agnostic(self) -> bool:
        """Whether a box and a mask are the same whatever class they are of."""
        return False

    # Calibration

    def set_calibrator(self, calibrator: nn.Module | None) -> None:
        """Take a calibrator in, or let go of the one there is."""
        self.calibrator = calibrator

    @property
    def box_heads(self) -> Sequence[nn.Module]:
        """What classifies RoIs, stage by stage: box heads, whose `fc_cls` is the last layer of the classifier."""
        raise ConfigError(f'model.type={type(self).__name__} has no box heads, so there is nothing to calibrate in it')

    def test_proposals(self, feats: Sequence[Tensor], data_samples: Sequence[DetDataSample]) -> list[InstanceData]:
        """From the pyramid that `extract_feat` gives to the proposals that are detected from."""
        raise NotImplementedError

    @property
    def max_per_img(self) -> int:
        """The most detections of an image."""
        raise NotImplementedError

    def set_max_per_img(self, most: int) -> None:
        """Keep another number of an image's detections, the best ones."""
        raise NotImplementedError

    def train_proposals(self, feats: Sequence[Tensor], data_samples: Sequence[DetDataSample]) -> list[InstanceData]:
        """From the pyramid that `extract_feat` gives to the proposals that a training step samples RoIs from."""
        raise NotImplementedError

    def context(self, feats: Sequence[Tensor]) -> Any:
        """The pyramid as `stages_of_rois` and `box_feats` take it, with what is computed once for all RoIs."""
        return feats

    def context_of_image(self, feats: Any, image: int) -> Any:
        """What `context` gave of a batch, for one of its images alone."""
        return [level[image : image + 1] for level in feats]

    def stages_of_rois(
        self, feats: Any, proposals: Sequence[InstanceData], data_samples: Sequence[DetDataSample]
    ) -> Iterator[list[Any]]:
        """The RoIs that a training step samples (`SampledRoIs`) of every image, stage by stage."""
        raise NotImplementedError

    def box_feats(self, feats: Any, rois: Tensor, stage: int = 0) -> Tensor:
        """What the box head of a stage sees of (R, 5) RoIs: (R, D, S, S)."""
        raise NotImplementedError

    def most_rois(self) -> list[tuple[int, int]]:
        """The most positives, and the most RoIs, that a training step samples of an image, stage by stage.

        Raises:
            ConfigError: their number is not bounded.
        """
        raise NotImplementedError


def score_settings_of(detector: nn.Module) -> list[str]:
    """The score settings that a detector detects under."""
    return list(getattr(detector, 'score_settings', BASE_SCORES))


def num_classes_of_heads(detector: nn.Module) -> Mapping[str, int]:
    """As `BaseDetector.num_classes_of_heads`; nothing of a detector that does not say."""
    return detector.num_classes_of_heads() if hasattr(detector, 'num_classes_of_heads') else {}
