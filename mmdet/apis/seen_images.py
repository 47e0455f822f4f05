"""What a frozen detector's trunk makes of test images, kept so that it is computed once."""
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size
from mmengine.structures import InstanceData
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from mmdet.errors import UserError
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from mmdet.utils.files import written_whole

_GIGABYTE = 1e9


class SeenImages:
    """The test images of this rank as a detector sees them before any class is decided on.

    Kept are pyramid and proposals, in full precision, until a size is reached; the other images are loaded and looked
    at each time. So what is kept changes the time and nothing else. From these the RoI features, logits, boxes and
    masks follow for any calibrator.

    Args:
        detector: on its device, ready for inference.
        dataset: of the test images.
        batch_size, num_workers: of the loader of images.
        folder: what is kept lies there, under names that begin with `key`.
        key: of everything that pyramid and proposals depend on.
        max_size: bytes that all ranks may keep together.
    """

    def __init__(
        self,
        detector: BaseDetector,
        dataset: Any,
        batch_size: int,
        num_workers: int,
        folder: str | Path,
        key: str,
        max_size: float,
    ):
        self.detector = detector
        self.dataset = dataset
        self.num_workers = num_workers
        self.folder = Path(folder)
        self.key = key
        self.room = max_size * _GIGABYTE / get_world_size()
        own = range(get_rank(), len(dataset), get_world_size())
        self.batches = [list(own[first : first + batch_size]) for first in range(0, len(own), batch_size)]

    def __len__(self) -> int:
        """Batches of this rank."""
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[tuple[Any, list[InstanceData]], list[DetDataSample]]]:
        """Batch by batch what `BaseDetector.look` gives, and the data samples.

        Raises:
            UserError: the disk is full, or a file that is kept is damaged.
        """
        files = [self.file_of(batch) for batch in self.batches]
        used = sum(file.stat().st_size for file in files if file.is_file())
        missing = [batch for batch, file in zip(self.batches, files, strict=True) if not file.is_file()]
        loaded = iter(self._loaded(missing))
        for file in files:
            if file.is_file():
                feats, proposals, samples = self._read(file)
            else:
                feats, proposals, samples = next(loaded)
                used += self._keep(file, feats, proposals, samples, self.room - used)
            yield (self.detector.context(feats), proposals), samples

    def file_of(self, batch: Sequence[int]) -> Path:
        """Where a batch is kept; its first, last and number of images tell it from those of other processes."""
        return self.folder / f'{self.key}_{batch[0]}_{batch[-1]}_{len(batch)}.pt'

    def _loaded(self, batches: Sequence[Sequence[int]]) -> Iterator[tuple]:
        """What the trunk makes of batches of images."""
        indices = [index for batch in batches for index in batch]
        loader = DataLoader(
            Subset(self.dataset, indices),
            batch_sampler=_in_turn([len(batch) for batch in batches]),
            num_workers=self.num_workers,
            collate_fn=list,
        )
        for images in loader:
            batch = {key: [image[key] for image in images] for key in ('inputs', 'data_samples')}
            batch = self.detector.data_preprocessor(batch)
            feats = self.detector.extract_feat(batch['inputs'])
            yield feats, self.detector.test_proposals(feats, batch['data_samples']), batch['data_samples']

    def _keep(
        self,
        file: Path,
        feats: Sequence[Tensor],
        proposals: Sequence[InstanceData],
        samples: Sequence[DetDataSample],
        room: float,
    ) -> int:
        """Write a batch, if there is room for it; returns the bytes it takes."""
        if sum(level.nbytes for level in feats) > room:
            return 0
        contents = dict(
            feats=[level.cpu() for level in feats],
            proposals=[{name: value.cpu() for name, value in image.items()} for image in proposals],
            samples=[{name: sample.get(name) for name in sample.metainfo_keys()} for sample in samples],
        )
        with written_whole(file) as written:
            torch.save(contents, written)
        return file.stat().st_size

    def _read(self, file: Path) -> tuple[list[Tensor], list[InstanceData], list[DetDataSample]]:
        try:
            contents = torch.load(file, map_location='cpu', weights_only=True, mmap=True)
        except (RuntimeError, OSError, UnpicklingError, EOFError) as error:
            raise UserError(f'{file}: is damaged; delete it, and its images are looked at again') from error
        device = next(self.detector.parameters()).device
        feats = [level.to(device) for level in contents['feats']]
        proposals = [
            InstanceData(**{name: value.to(device) for name, value in image.items()}) for image in contents['proposals']
        ]
        return feats, proposals, [DetDataSample(metainfo=meta) for meta in contents['samples']]


def key_of_images(cfg: Config, part: str, base: str) -> str:
    """A key of all that pyramids and proposals of a part of the config's data depend on.

    Args:
        cfg: the detector's.
        part: `test` or another.
        base: fingerprint of the detector's weights.
    """
    model = {name: value for name, value in cfg.model.to_dict().items() if name != 'train_cfg'}
    model['test_cfg'] = {name: value for name, value in (model.get('test_cfg') or {}).items() if name != 'rcnn'}
    known = [base, model, cfg[f'{part}_dataloader'].dataset.to_dict()]
    digest = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:12]
    return f'{part}_{digest}'


def _in_turn(sizes: Sequence[int]) -> list[list[int]]:
    """Batches of these sizes of the numbers 0, 1, 2, ..."""
    batches, first = [], 0
    for size in sizes:
        batches.append(list(range(first, first + size)))
        first += size
    return batches
