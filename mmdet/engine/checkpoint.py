"""Checkpoints: written whole or not at all, read without running what they hold, loaded strictly."""
import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn

from mmdet.errors import CheckpointError
from mmdet.utils.files import written_whole

LAST_CHECKPOINT = 'last_checkpoint'


def save_checkpoint(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Write a checkpoint so that the file is there whole or not at all.

    What is written is plain data (see `plain`), so that anyone's `torch.load` reads it with `weights_only=True`.

    Raises:
        CheckpointError: where the disk is full or the folder cannot be written; `path` is then as it was.
    """
    checkpoint = plain(checkpoint, 'checkpoint')
    with written_whole(path, CheckpointError) as file:
        torch.save(checkpoint, file)


def plain(value: Any, name: str) -> Any:
    """Copy nested data into tensors (on the CPU), numbers, strings, None, lists, tuples and dicts.

    mmengine's log buffers become dicts of two tensors, `log_history` and `count_history`.

    Raises:
        TypeError: naming the first item that is none of these.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, HistoryBuffer):
        log, count = value.data
        return dict(log_history=torch.from_numpy(log.copy()), count_history=torch.from_numpy(count.copy()))
    if isinstance(value, Mapping):
        return {key: plain(item, f'{name}.{key}') for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        copy = [plain(item, f'{name}.{i}') for i, item in enumerate(value)]
        return copy if isinstance(value, list) else tuple(copy)
    raise TypeError(f'{name} is a {type(value).__name__}, which a checkpoint cannot hold')


def read_checkpoint(path: str | Path, map_location: str | torch.device = 'cpu') -> dict[str, Any]:
    """Read a checkpoint of this project, of mmengine or mmdetection, or a bare state dict.

    What torchvision's and detectron2's training programs save is read too: their state dict is called `model`. Names
    are the model's own, whatever was wrapped around it when it was saved; see `own_weights`.

    Nothing a checkpoint holds is executed: it is unpickled with `weights_only=True` and an allow-list of numpy's arrays
    and mmengine's log buffers, which mmdetection's checkpoints contain.

    Args:
        path: a file, or an http(s) address, which is downloaded into torch's cache first.
        map_location: device of the tensors.

    Returns:
        A dict with at least `state_dict` and `meta`.

    Raises:
        CheckpointError: a file that is missing, cut short, not a checkpoint, or that holds anything but data.
    """
    file = _download(str(path)) if urlparse(str(path)).scheme in ('http', 'https') else Path(path)
    if not file.is_file():
        raise CheckpointError(f'{path}: no such checkpoint file')
    try:
        with torch.serialization.safe_globals(_allowed_globals()):
            checkpoint = torch.load(file, map_location=map_location, weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(f'{path}: {_refusal(error)}') from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f'{path}: cannot be read as a checkpoint; it is cut short, damaged or of another kind, get it anew'
        ) from error
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f'{path}: holds a {type(checkpoint).__name__} instead of a dict of weights')
    if 'state_dict' not in checkpoint:
        checkpoint = dict(state_dict=checkpoint['model'] if 'model' in checkpoint else checkpoint)
    weights = checkpoint['state_dict']
    if not isinstance(weights, Mapping) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise CheckpointError(f'{path}: holds no `state_dict` of named tensors, so it is not a model checkpoint')
    return dict(checkpoint, state_dict=own_weights(weights, path), meta=checkpoint.get('meta') or {})


def own_weights(weights: Mapping[str, Tensor], path: str | Path) -> Mapping[str, Tensor]:
    """A model's weights by its own names, and nothing that is not the model's.

    The `module.` and `_orig_mod.` of data parallelism and `torch.compile` are taken out of the names. Left out are mean
    and standard deviation of a `data_preprocessor`, which the config says, and what mmdetection 2's averaging of
    weights keeps beside the average (`ema_backbone_conv1_weight`).

    Raises:
        CheckpointError: two different tensors of one name.
    """
    own: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        own_name = re.sub(r'^(module\.)+', '', re.sub(r'(^|(?<=\.))_orig_mod\.', '', name))
        if own_name.startswith('ema_') or re.search(r'(^|\.)data_preprocessor\.(mean|std)$', own_name):
            continue
        if own_name in own and not _same(own[own_name], tensor):
            raise CheckpointError(f'{path}: holds `{own_name}` more than once, and not the same; save the model anew')
        own[own_name] = tensor
    return weights if list(own) == list(weights) else own


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def load_weights(model: nn.Module, checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Load a checkpoint's `state_dict` into a model: every parameter of both, of equal shapes.

    Args:
        model: any module.
        checkpoint: as `read_checkpoint` returns it, or with names as `own_weights` takes them.
        path: where it came from, for the message.

    Raises:
        CheckpointError: naming the first parameter that differs, how, and the config key to look at.
    """
    weights = own_weights(checkpoint['state_dict'], path)
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        difference = _first_difference(model.state_dict(), weights)
        if difference is None:
            raise
        raise CheckpointError(f'{path}: {difference}') from error


def load_matching_weights(model: nn.Module, checkpoint: Mapping[str, Any], path: str | Path) -> list[str]:
    """Load what has the same name and shape in both, as fine-tuning with `load_from` starts.

    Returns:
        Names of the model's parameters that keep their initial values.

    Raises:
        CheckpointError: where nothing fits.
    """
    weights = own_weights(checkpoint['state_dict'], path)
    own = model.state_dict()
    matching = {name: tensor for name, tensor in weights.items() if name in own and own[name].shape == tensor.shape}
    if not matching:
        raise CheckpointError(f'{path}: {_first_difference(own, weights)}')
    model.load_state_dict(matching, strict=False)
    return [name for name in own if name not in matching]


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """The last checkpoint written into a working directory, even if that was moved; None where there is none."""
    work_dir = Path(work_dir)
    record = work_dir / LAST_CHECKPOINT
    if not record.is_file():
        return None
    recorded = Path(record.read_text().strip())
    return next((path for path in (recorded, work_dir / recorded.name) if path.is_file()), None)


def checkpoint_to_resume(resume: bool | str | None, work_dir: str | Path, load_from: str | None = None) -> str | None:
    """The checkpoint a run continues, or None where it starts.

    Args:
        resume: False; True for `load_from`, or else the last one in `work_dir`; `'auto'` for that last one; or a path.
        work_dir: of the run.
        load_from: path of a checkpoint, if any.
    """
    if not resume:
        return None
    if resume is True and load_from is not None:
        return load_from
    if isinstance(resume, str) and resume != 'auto':
        return resume
    latest = latest_checkpoint(work_dir)
    return None if latest is None else str(latest)


def fingerprint(state_dict: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits of the SHA-256 of all names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state_dict.items()):
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _allowed_globals() -> list:
    """What mmengine's checkpoints contain beside tensors and plain data."""
    arrays = [np.ndarray, np.dtype, *(type(np.dtype(code)) for code in '?bBhHiIlLqQefdSU')]
    make_array, make_scalar = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):  # numpy 1's name and numpy 2's
        arrays += [(make_array, f'{module}._reconstruct'), (make_scalar, f'{module}.scalar')]
    return [*arrays, (_latin1_bytes, '_codecs.encode'), HistoryBuffer, (_buffer_method, 'builtins.getattr')]


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """How pickle protocol 2 spells bytes."""
    if encoding != 'latin1':
        raise UnpicklingError(f'Unsupported encoding {encoding}')
    return text.encode('latin1')


def _buffer_method(owner: Any, name: str) -> Callable:
    """The one use of `getattr` in mmengine's checkpoints: the statistics of its log buffers."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise UnpicklingError('Unsupported global: GLOBAL builtins.getattr was not an allowed global')
    return getattr(HistoryBuffer, name)


def _refusal(error: UnpicklingError) -> str:
    """Why torch would not unpickle a file."""
    unsafe = re.search(r'GLOBAL ([\w.]+)', str(error))
    if unsafe is None:
        return 'is not a checkpoint, or is damaged; get it anew'
    return (
        f'holds `{unsafe.group(1)}`, which is not data and could run a program when read; it is refused: '
        f'get the file from its authors with the state dict alone, or convert it where you trust it'
    )


def _download(url: str) -> Path:
    """The file at an address, from torch's cache where it was fetched before.

    Its name there says the whole address, as a hash: other addresses end in `latest.pth` too. A file of another
    program, under the address's last part alone, is taken where that says the hash of its content
    (`net-0123abcd.pth`).
    """
    folder, name = Path(torch.hub.get_dir()) / 'checkpoints', Path(urlparse(url).path)
    file = folder / f'{name.stem[:100]}-{hashlib.sha256(url.encode()).hexdigest()[:16]}{name.suffix}'
    if file.is_file():
        return file
    if _is_named_by_its_content(folder / name.name):
        return folder / name.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), progress=False)
    except OSError as error:
        raise CheckpointError(f'{url}: could not be downloaded ({error}); give the path of a copy') from error
    return file


def _is_named_by_its_content(file: Path) -> bool:
    """Whether a file is there whose name ends in the beginning of its SHA-256, as those of torch and OpenMMLab do."""
    named = re.search(r'-([0-9a-f]{8,64})$', file.stem)
    if named is None or not file.is_file():
        return False
    digest = hashlib.sha256()
    with file.open('rb') as content:
        while piece := content.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest().startswith(named.group(1))


def _first_difference(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """The sentence about the first parameter, in the model's order, that is not alike in both."""
    if own.keys().isdisjoint(given):
        return (
            f'is no checkpoint of this model: it has none of its parameters (it begins with '
            f'`{next(iter(given), "nothing")}`, the model with `{next(iter(own), "nothing")}`): check model.type'
        )
    for name, tensor in own.items():
        if name not in given:
            if name.endswith('.num_batches_tracked'):
                continue
            return f'`{name}` of the model is missing in the checkpoint: {_config_key(name, own, given)}'
        if given[name].shape != tensor.shape:
            return (
                f'`{name}` has shape {tuple(given[name].shape)} in the checkpoint and {tuple(tensor.shape)} in the '
                f'model: {_config_key(name, own, given)}'
            )
    for name in given:
        if name not in own:
            return f'`{name}` of the checkpoint is not in the model: {_config_key(name, own, given)}'
    return None


def _config_key(name: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Which key of the config decides about a parameter, and what the checkpoint seems to have there."""
    here, there = own.get(name), given.get(name)
    parts = name.split('.')
    if 'calibrator' in parts:
        return _calibrator_key(here, there)
    if parts[0] == 'backbone':
        return f'check {_backbone_key(name, here, there, given)}'
    if parts[0] == 'neck':
        return 'check model.neck (in_channels, out_channels, num_outs)'
    if parts[0] == 'rpn_head':
        return f'check model.rpn_head.{"anchor_generator" if parts[1] in ("rpn_cls", "rpn_reg") else "feat_channels"}'
    if parts[0] != 'roi_head' or len(parts) < 3:
        return f'check model.{parts[0]}'
    head = parts[1]
    if _staged(own, head) != _staged(given, head):
        stages = 'several stages' if _staged(given, head) else 'one stage'
        return f'check model.type and model.roi_head.num_stages (the checkpoint has {stages})'
    if head == 'bbox_head' and _remembering_loss(own) != _remembering_loss(given):
        loss = f'with {_remembering_loss(given)}' if _remembering_loss(given) else f'without {_remembering_loss(own)}'
        return f'check model.roi_head.bbox_head.loss_cls (the checkpoint was trained {loss})'
    if (here is None) != (there is None):
        other = own if here is None else given
        if parts[2].isdigit() and not any(key.startswith(f'roi_head.{head}.{parts[2]}.') for key in other):
            return 'check model.roi_head.num_stages'
        return f'check model.roi_head.{head}'
    return f'check model.roi_head.{head}{_head_key(parts, here, there)}'


def _head_key(parts: list[str], here: Tensor, there: Tensor) -> str:
    """The key of a box or mask head behind a parameter whose shapes differ."""
    layer = parts[3] if parts[2].isdigit() else parts[2]
    rows_here, rows_there = here.shape[0], there.shape[0]
    if layer == 'loss_cls':
        return f'.num_classes and loss_cls.num_classes ({rows_there - 1} in the checkpoint)'
    if layer == 'fc_cls' and abs(rows_here - rows_there) == 1:
        return f'.num_classes and loss_cls, which may have no logit of background ({rows_there} in the checkpoint)'
    if layer == 'fc_cls':
        return f'.num_classes ({rows_there - 1} in the checkpoint)'
    if layer == 'fc_reg':
        if 4 in (rows_here, rows_there):
            return f'.reg_class_agnostic ({rows_there == 4} in the checkpoint)'
        return f'.num_classes ({rows_there // 4} in the checkpoint)'
    if layer == 'conv_logits':
        if 1 in (rows_here, rows_there):
            return f'.class_agnostic ({rows_there == 1} in the checkpoint)'
        return f'.num_classes ({rows_there} in the checkpoint)'
    keys = dict(shared_fcs=' (in_channels, roi_feat_size, fc_out_channels)', convs=' (in_channels, conv_out_channels)')
    return keys.get(layer, '')


def _backbone_key(name: str, here: Tensor | None, there: Tensor | None, given: Mapping[str, Tensor]) -> str:
    """The key of a backbone behind one of its parameters, `there` in the checkpoint's weights `given`."""
    if name.startswith('backbone.timm_model.'):
        return 'model.backbone.model_name and out_indices'
    if 'conv_offset' in name:
        return 'model.backbone.dcn and stage_with_dcn'
    if name.startswith('backbone.stem.'):
        return 'model.backbone.deep_stem and type'
    if here is not None and there is not None and re.search(r'layer\d\.\d+\.conv[12]\.weight$', name):
        if here.shape[2:] == there.shape[2:]:
            return f'model.backbone.type, groups and base_width{_groups(given)}'
    if name in ('backbone.conv1.weight', 'backbone.bn1.weight'):
        return 'model.backbone.base_channels and type'
    return 'model.backbone.depth'


def _groups(given: Mapping[str, Tensor]) -> str:
    """What a checkpoint's first bottleneck, if it has one, says of its ResNet or ResNeXt."""
    grouped = given.get('backbone.layer1.0.conv2.weight')
    if grouped is None or 'backbone.layer1.0.conv3.weight' not in given:
        return ''
    width, of_group = grouped.shape[:2]
    if width == of_group:
        return ' (a ResNet in the checkpoint)'
    return f' (groups={width // of_group}, base_width={of_group} in the checkpoint)'


def _calibrator_key(here: Tensor | None, there: Tensor | None) -> str:
    if there is None:
        return 'the checkpoint is not calibrated; calibrate it with tools/calibrate.py'
    if here is None:
        return 'the checkpoint is calibrated and the model has no calibrator; use tools/test.py, or its base'
    return 'check calibration.calibrator (type, head) and model.roi_head.bbox_head.num_classes'


def _remembering_loss(names: Mapping[str, Tensor]) -> str | None:
    """The classification loss that has sums of its own among these parameters and buffers."""
    for buffer, loss in dict(cum_samples='SeesawLoss', pos_grad='EQLV2Loss').items():
        if any(name.endswith(f'loss_cls.{buffer}') for name in names):
            return loss
    return None


def _staged(names: Mapping[str, Tensor], head: str) -> bool:
    """Whether a RoI head's box or mask head is one for each cascade stage."""
    return any(re.match(rf'roi_head\.{head}\.\d+\.', name) for name in names)
