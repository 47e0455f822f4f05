"""The RoIs kept of many views, in segments: dicts of a few tensors that can be saved, and mapped from a file."""
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .kept_rois import KeptRoIs
from .views import View

_NONE = -1


class FeatureBank:
    """A read-only mapping from a view to its kept RoIs, stage by stage.

    Nothing is copied: the features of a bank made of memory-mapped segments are read from the disk when they are used.
    """

    def __init__(self) -> None:
        self._places: dict[View, tuple[Mapping, int]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, view: View) -> bool:
        return view in self._places

    def __getitem__(self, view: View) -> list[KeptRoIs]:
        segment, place = self._places[view]
        return [_unpack(stage, place) for stage in segment['stages']]

    def include(self, segment: Mapping) -> None:
        """Add the views of a segment that `pack` has made."""
        for place, view in enumerate(segment['views'].tolist()):
            self._places[View(*view)] = segment, place


def pack(views: Sequence[View], rois: Sequence[Sequence[KeptRoIs]]) -> dict:
    """The segment of V views, given the kept RoIs of each, stage by stage.

    Returns:
        `views`: (V, 3) int64; `stages`: for each stage a dict of `feats`, for each kind of features (R, ...) float16,
        view by view; `first`, for each kind (V + 1,) int64, each view's first row there; `num_backgrounds` (V,) int64;
        and, filled up with -1, `labels` (V, U) int32, `draws` (V, K, P) int16 and `priorities` (V, B) float32.
    """
    return dict(views=torch.tensor(views), stages=[_pack_stage(stage) for stage in zip(*rois, strict=True)])


def _pack_stage(views: Sequence[KeptRoIs]) -> dict[str, Tensor | dict[str, Tensor]]:
    kinds = list(views[0].feats)
    draws = _padded([draw.short() for rois in views for draw in rois.draws])
    return dict(
        feats={kind: torch.cat([rois.feats[kind] for rois in views]) for kind in kinds},
        first={kind: _starts([len(rois.feats[kind]) for rois in views]) for kind in kinds},
        num_backgrounds=torch.tensor([rois.num_backgrounds for rois in views]),
        labels=_padded([rois.labels.int() for rois in views]),
        draws=draws.view(len(views), len(views[0].draws), draws.shape[1]),
        priorities=_padded([rois.priorities for rois in views]),
    )


def _unpack(stage: Mapping[str, Any], place: int) -> KeptRoIs:
    return KeptRoIs(
        feats={kind: feats[slice(*stage['first'][kind][place : place + 2])] for kind, feats in stage['feats'].items()},
        labels=_present(stage['labels'][place]).long(),
        draws=[_present(draw).long() for draw in stage['draws'][place]],
        priorities=_present(stage['priorities'][place]),
        num_backgrounds=int(stage['num_backgrounds'][place]),
    )


def _starts(sizes: Sequence[int]) -> Tensor:
    """(V + 1,) int64, where each of V parts of these sizes begins, and where the last one ends."""
    sizes = torch.tensor(sizes)
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


def _padded(rows: Sequence[Tensor]) -> Tensor:
    return pad_sequence(list(rows), batch_first=True, padding_value=_NONE)


def _present(row: Tensor) -> Tensor:
    return row[row != _NONE]
