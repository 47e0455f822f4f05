"""Kept features in, calibration loss out."""
from collections.abc import Mapping, Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from mmdet.models.detectors import BaseDetector
from mmdet.models.roi_heads.roi_outputs import RoIOutputs

from .calibration_model import CalibrationModel
from .feature_bank import FeatureBank
from .kept_rois import KeptRoIs, keep_rois, rois_of_visit
from .roi_selectors import RoISelector
from .views import Visit


class BankedCalibrationModel(CalibrationModel):
    """A `CalibrationModel` whose steps cost no image, trunk, proposals or assignment where a bank keeps them.

    What the bank does not keep is computed as it would be for the bank, so that what it keeps changes only the time.

    Args:
        detector, selector: as of `CalibrationModel`.
        bank: of this detector's RoIs.
        num_draws: K, RoI draws of a view.
        most_backgrounds: for each stage the kinds of features that are kept, and of how many background RoIs of a view.
    """

    def __init__(
        self,
        detector: BaseDetector,
        selector: RoISelector,
        bank: FeatureBank,
        num_draws: int,
        most_backgrounds: Sequence[Mapping[str, int]],
    ):
        super().__init__(detector, selector)
        self.data_preprocessor = BaseDataPreprocessor()
        self.bank = bank
        self.num_draws = num_draws
        self.most_backgrounds = most_backgrounds

    def forward(self, visits: Sequence[Visit], mode: str = 'loss') -> dict[str, Tensor]:
        """The step's calibration losses."""
        kind = self.calibrator.learns_from
        views = self._views_of(visits)
        of_visits = [rois_of_visit(visit, stages, kind) for visit, stages in zip(visits, views, strict=True)]
        drawn_classes = [visit.drawn_class for visit in visits]
        keys = [(visit.seed, visit.number) for visit in visits]
        losses = {}
        for stage in range(len(self.detector.box_heads)):
            kept = [stages[stage] for stages in views]
            rows, priorities = zip(*[stages[stage] for stages in of_visits], strict=True)
            pos_labels = [rois.labels[of_visit] for rois, of_visit in zip(kept, rows, strict=True)]
            selected = self.selector.select(pos_labels, drawn_classes, priorities, self.num_classes)
            chosen = selected.of(rows, [rois.background_rows(kind) for rois in kept])
            feats = torch.cat([rois.feats[kind][of_visit] for rois, of_visit in zip(kept, chosen, strict=True)])
            feats = feats.to(self.data_preprocessor.device).float()
            losses.update(self.learn({kind: feats}, selected, keys, stage))
        return losses

    @torch.no_grad()
    def keep(self, images: Sequence[dict]) -> list[list[KeptRoIs]]:
        """For each image of a batch, as the pipeline returns them, what is kept of its view, stage by stage."""
        batch = {key: [image[key] for image in images] for key in ('inputs', 'data_samples')}
        batch = self.detector.data_preprocessor(batch, True)
        feats = self.detector.extract_feat(batch['inputs'])
        proposals = self.detector.train_proposals(feats, batch['data_samples'])
        feats = self.detector.context(feats)
        draws = [self.draw_rois(feats, proposals, batch['data_samples'], draw) for draw in range(self.num_draws)]

        def features(kind: str, rois: Tensor, stage: int) -> Tensor:
            roi_feats = self.detector.box_feats(feats, rois, stage)
            return getattr(RoIOutputs(self.detector.box_heads[stage], roi_feats), kind)

        return keep_rois(draws, self.most_backgrounds, features)

    def _views_of(self, visits: Sequence[Visit]) -> list[list[KeptRoIs]]:
        """What each visit's view has, from the bank or from its image."""
        images = [visit.image for visit in visits if visit.image is not None]
        computed = iter(self.keep(images) if images else ())
        return [self.bank[visit.view] if visit.image is None else next(computed) for visit in visits]
