"""A trained detector at hand: from a config and a checkpoint, and from an image to detections."""
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine import Config
from mmengine.dataset import pseudo_collate
from torch import nn

from mmdet.calibration import attach_calibrator
from mmdet.datasets import Pipeline
from mmdet.engine import config_errors, load_config, load_weights, read_checkpoint, require_keys
from mmdet.errors import ConfigError, ImageError
from mmdet.models import optimize_for_inference
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils.seeding import keyed_generator

from .pixels import bgr_pixels
from .test_pipeline import test_pipeline
from .test_time_augmentation import build_tta_model, with_test_time_augmentation

Image = str | Path | np.ndarray
_GIVE = 'give a path, a (height, width, 3) BGR array of numpy, or a list of these'


def init_detector(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    scores: Sequence[str] | None = None,
    tta: bool = False,
) -> nn.Module:
    """Build a detector, with its calibrator where the checkpoint has one, ready for `inference_detector`.

    Args:
        config: a config or its file.
        checkpoint: its weights; None leaves them as initialised.
        device: None is CUDA where there is any, else the CPU.
        cfg_options: changes of the config, dotted keys to values.
        scores: the score settings to detect with: `'base'`, and of a calibrated detector those its calibrator knows;
            None is the calibrator's default.
        tta: detect from several views of an image, as the config's `tta_pipeline` and `tta_model` say (see
            `with_test_time_augmentation`).

    Returns:
        The detector in eval mode; its `cfg` is the config and its `dataset_meta` says the `classes`, in label order.

    Raises:
        ConfigError: a config that cannot be built, or score settings that the detector has not.
        CheckpointError: a checkpoint that cannot be read or is of another model.
    """
    if not isinstance(config, Config):
        config = load_config(config, cfg_options)
    contents = None if checkpoint is None else read_checkpoint(checkpoint)
    if tta:
        config = with_test_time_augmentation(config)
    detector = build_detector(config, contents, checkpoint, scores)
    if tta:
        detector = build_tta_model(config, detector)
    detector.cfg = config
    detector.dataset_meta = contents['meta'].get('dataset_meta', {}) if contents else {}
    return optimize_for_inference(detector.to(device or ('cuda' if torch.cuda.is_available() else 'cpu')))


def build_detector(
    config: Config,
    checkpoint: Mapping[str, Any] | None,
    path: str | Path | None,
    scores: Sequence[str] | None = None,
    threshold: int | None = None,
) -> nn.Module:
    """Build the config's detector and load a checkpoint into it, its calibrator included.

    Args:
        config: with `model`.
        checkpoint: as `read_checkpoint` returns it, or None.
        path: where the checkpoint came from, for messages.
        scores: score settings; None is the calibrator's default, or `'base'`.
        threshold: of the calibrator, in the place of its own.

    Raises:
        ConfigError: as `init_detector`, or a threshold that cannot be.
        CheckpointError: as `init_detector`.
    """
    require_keys(config, 'model')
    scores = None if scores is None else _distinct(scores)
    calibrated = checkpoint is not None and 'calibrator' in checkpoint['meta']
    if threshold is not None and threshold < 0:
        raise ConfigError(f'--threshold {threshold}: counts training instances and cannot be below 0')
    if threshold is not None and not calibrated:
        raise ConfigError(f'--threshold {threshold}: {path} is not calibrated, there are no scores to choose from')
    with config_errors(config):
        detector = MODELS.build(config.model)
    if calibrated:
        calibrator = attach_calibrator(detector, checkpoint['meta'], threshold=threshold)
        for setting in scores or ():
            calibrator.check_setting(setting)
    elif any(setting != 'base' for setting in scores or ()):
        raise ConfigError(
            f'--scores {",".join(scores)}: {path} is not calibrated and knows base only; '
            f'calibrate it with tools/calibrate.py'
        )
    if calibrated and scores:
        detector.score_settings = list(scores)
    if checkpoint is not None:
        load_weights(detector, checkpoint, path)
    return detector


def _distinct(scores: Sequence[str]) -> list[str]:
    """Names of score settings, each once."""
    names = list(dict.fromkeys(name.strip() for name in scores))
    if not names or '' in names:
        raise ConfigError(f'--scores {",".join(scores)}: name score settings with commas between them, e.g. base,dual')
    return names


def inference_detector(model: nn.Module, imgs: Image | Iterable[Image]) -> DetDataSample | list[DetDataSample]:
    """Detect on images, one at a time.

    Args:
        model: from `init_detector`.
        imgs: a path, an array as `bgr_pixels` takes it, best (H, W, 3) BGR uint8, or several of either; arrays may be
            stacked, (B, H, W, channels).

    Returns:
        A data sample whose `pred_instances` hold `bboxes` (N, 4) xyxy in pixels of the image, `scores` (N,), `labels`
        (N,) and, with a mask head, `masks` (COCO run-length encodings); for a sequence a list of them.

    Raises:
        ImageError: a file that is missing, cut short or no image, or an array that is none.
        ConfigError: the config does not say how images are prepared.
    """
    if isinstance(imgs, (str, Path)) or (isinstance(imgs, np.ndarray) and imgs.ndim != 4):
        return inference_detector(model, [imgs])[0]
    if not isinstance(imgs, Iterable) or isinstance(imgs, (bytes, Mapping)):
        raise ImageError(f'a {type(imgs).__name__} is no image; {_GIVE}')
    with config_errors(model.cfg):
        transforms = test_pipeline(model.cfg)
        load = Pipeline([each for each in transforms if each['type'] == 'LoadImageFromFile'])
        prepare = Pipeline(
            [each for each in transforms if each['type'] not in ('LoadImageFromFile', 'LoadAnnotations')]
        )
    detections = []
    for number, image in enumerate(imgs):
        results = dict(img_id=number, img_path=None, rng=keyed_generator(0, number), draw_key=(0, number))
        if isinstance(image, np.ndarray):
            pixels = bgr_pixels(image, f'image {number}')
            as_floats = any(getattr(transform, 'to_float32', False) for transform in load.transforms)
            size = pixels.shape[:2]
            results.update(img=pixels.astype(np.float32) if as_floats else pixels, img_shape=size, ori_shape=size)
        elif isinstance(image, (str, Path)):
            results = load(dict(results, img_path=str(image)))
        else:
            raise ImageError(f'image {number}: a {type(image).__name__} is no image; {_GIVE}')
        with torch.inference_mode():
            (sample,) = model.test_step(pseudo_collate([prepare(results)]))
        detections.append(_changeable(sample))
    return detections


def _changeable(sample: DetDataSample) -> DetDataSample:
    """With copies of the tensors found: those made in inference mode could not be changed in place outside of it."""
    for instances in sample.values():
        for name, value in instances.items():
            if isinstance(value, torch.Tensor):
                instances.set_field(value.clone(), name)
    return sample
