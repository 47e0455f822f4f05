"""Which of the frozen detector's RoIs a calibration step learns from."""
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmdet.errors import ConfigError
from mmdet.registry import ROI_SELECTORS

from .step_rois import highest_of_step, sum_over_ranks


@dataclass(frozen=True)
class SelectedRoIs:
    """What is kept of one step, on this rank.

    Attributes:
        positives: for each image (P_i,) bool, which of its positive RoIs.
        backgrounds: for each image (Q_i,) bool, which of its background RoIs.
        labels: (R,) int64, image by image, the positives before the background; C for background.
        num_rois_of_step: RoIs kept by all ranks together.
    """

    positives: list[Tensor]
    backgrounds: list[Tensor]
    labels: Tensor
    num_rois_of_step: int

    def of(self, positives: Sequence[Tensor], backgrounds: Sequence[Tensor]) -> list[Tensor]:
        """For each image what belongs to its kept RoIs, in the order of `labels`.

        Args:
            positives: for each image (P_i, ...) something of its positive RoIs.
            backgrounds: for each image (Q_i, ...) the same of its background RoIs.
        """
        images = zip(positives, self.positives, backgrounds, self.backgrounds, strict=True)
        return [
            torch.cat([of_pos[pos.to(of_pos.device)], of_neg[neg.to(of_neg.device)]])
            for of_pos, pos, of_neg, neg in images
        ]

    def sizes(self) -> list[int]:
        """How many RoIs are kept of each image."""
        return [int(pos.sum() + neg.sum()) for pos, neg in zip(self.positives, self.backgrounds, strict=True)]


class RoISelector(ABC):
    """Chooses among the RoIs that the frozen detector samples of a step's images as in its own training."""

    @abstractmethod
    def select(
        self,
        pos_labels: Sequence[Tensor],
        drawn_classes: Sequence[int | None],
        priorities: Sequence[Tensor],
        num_classes: int,
    ) -> SelectedRoIs:
        """Choose among the sampled RoIs of this rank's images.

        Args:
            pos_labels: for each image (P_i,) int64, the labels of its positive RoIs.
            drawn_classes: the label each image was drawn for, None where a sampler draws images and no classes.
            priorities: for each image (Q_i,), a uniform random number for each of its background RoIs.
            num_classes: C, the label of background.
        """

    @abstractmethod
    def most_backgrounds(self, most_positives: int, num_rois: int) -> int:
        """The most background RoIs of an image that can matter, so that a feature bank keeps no more.

        Args:
            most_positives: the most positives of an image.
            num_rois: RoIs sampled of an image.
        """


@ROI_SELECTORS.register_module()
class DrawnClassSelector(RoISelector):
    """SimCal's bi-level choice: an image speaks only for the class it was drawn for.

    Kept are the positive RoIs whose label is their image's drawn class, and, from all images of the step at
    random, as many background RoIs. The step is that of all ranks: each background RoI carries a random
    priority from its own image's stream, and the highest of the whole step are kept, so that the choice
    is the same however many ranks share the step.
    """

    def select(
        self,
        pos_labels: Sequence[Tensor],
        drawn_classes: Sequence[int | None],
        priorities: Sequence[Tensor],
        num_classes: int,
    ) -> SelectedRoIs:
        """As `RoISelector.select`.

        Raises:
            ConfigError: images that were not drawn for a class.
        """
        if None in drawn_classes:
            raise ConfigError(
                'calibration.selector=DrawnClassSelector needs a sampler that draws classes, as BiLevelSampler does'
            )
        positives = [labels == drawn for labels, drawn in zip(pos_labels, drawn_classes, strict=True)]
        num_positives = [int(kept.sum()) for kept in positives]
        num_of_step = int(sum_over_ranks(torch.tensor(sum(num_positives))))
        num_background, lowest_kept = highest_of_step(torch.cat(list(priorities)), num_of_step)
        backgrounds = [of_image >= lowest_kept for of_image in priorities]
        labels = []
        for drawn, num_of_image, background in zip(drawn_classes, num_positives, backgrounds, strict=True):
            labels += [drawn] * num_of_image + [num_classes] * int(background.sum())
        labels = torch.tensor(labels, dtype=torch.int64, device=pos_labels[0].device)
        return SelectedRoIs(positives, backgrounds, labels, num_of_step + num_background)

    def most_backgrounds(self, most_positives: int, num_rois: int) -> int:
        """A step keeps no more background than positives."""
        return most_positives


@ROI_SELECTORS.register_module()
class AllRoIsSelector(RoISelector):
    """No choice: all RoIs that the detector samples, as in its own training."""

    def select(
        self,
        pos_labels: Sequence[Tensor],
        drawn_classes: Sequence[int | None],
        priorities: Sequence[Tensor],
        num_classes: int,
    ) -> SelectedRoIs:
        """As `RoISelector.select`."""
        labels = [
            torch.cat([labels, labels.new_full((len(of_image),), num_classes)])
            for labels, of_image in zip(pos_labels, priorities, strict=True)
        ]
        labels = torch.cat(labels)
        return SelectedRoIs(
            [torch.ones_like(of_image, dtype=torch.bool) for of_image in pos_labels],
            [torch.ones_like(of_image, dtype=torch.bool) for of_image in priorities],
            labels,
            int(sum_over_ranks(torch.tensor(len(labels)))),
        )

    def most_backgrounds(self, most_positives: int, num_rois: int) -> int:
        """All of them."""
        return num_rois
