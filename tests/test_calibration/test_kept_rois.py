"""What is kept of a view, and what a visit makes of it."""
import pytest
import torch

from mmdet.calibration import FeatureBank, View, Visit, pack
from mmdet.calibration.kept_rois import keep_rois, rois_of_visit
from mmdet.errors import ConfigError
from mmdet.models.task_modules import SampledRoIs

NUM_BOXES = 12
MOST_BACKGROUNDS = [dict(roi_feats=4), dict(roi_feats=4)]


KIND = 'roi_feats'


def features(kind, rois, stage):
    """(R, 5) RoIs -> (R, 2, 2, 2) that tell which box of which stage it was; boxes hold small integers."""
    return (rois[:, 1:].repeat_interleave(2, dim=1) + 100 * stage).view(-1, 2, 2, 2)


def draw(seed, num_pos, num_neg) -> tuple[SampledRoIs, torch.Tensor]:
    """A RoI draw from the same boxes whatever the seed, and its priorities."""
    rng = torch.Generator().manual_seed(seed)
    boxes = torch.arange(NUM_BOXES * 4).view(-1, 4).float()
    order = torch.randperm(NUM_BOXES, generator=rng)
    pos, neg = order[:num_pos].sort().values, order[NUM_BOXES - num_neg :].sort().values
    rois = SampledRoIs(pos, neg, boxes[pos], boxes[neg], pos, boxes[pos], pos % 3, pos < 0)
    return rois, torch.rand(num_neg, generator=rng)


def two_draws_of_two_stages(num_pos=3, num_neg=7):
    """draws[draw][stage] of two images, the second of which has no positives."""

    def of_stage(number, stage):
        images = [draw(10 * number + stage, num_pos, num_neg), draw(5, 0, 2)]
        return [rois for rois, _ in images], [priorities for _, priorities in images]

    return [[of_stage(number, stage) for stage in range(2)] for number in range(2)]


def test_every_draw_is_kept_whole_and_the_background_of_highest_priority():
    draws = two_draws_of_two_stages()
    kept = keep_rois(draws, MOST_BACKGROUNDS, features)
    for image in range(2):
        for stage, rois in enumerate(kept[image]):
            assert rois.feats[KIND].dtype == torch.half
            for number in range(2):
                sampled = draws[number][stage][0][image]
                expected = features(KIND, torch.nn.functional.pad(sampled.pos_boxes, (1, 0)), stage)
                assert torch.equal(rois.feats[KIND][rois.draws[number]].float(), expected)
                assert torch.equal(rois.labels[rois.draws[number]], sampled.pos_gt_labels)
            sampled, priorities = (column[image] for column in draws[0][stage])
            highest = priorities >= priorities.sort().values[-min(4, len(priorities))]
            expected = features(KIND, torch.nn.functional.pad(sampled.neg_boxes[highest], (1, 0)), stage)
            assert torch.equal(rois.feats[KIND][rois.background_rows(KIND)].float(), expected)
            assert torch.equal(rois.priorities, priorities[highest])
            assert rois.num_backgrounds == len(priorities)


def test_positives_that_draws_have_in_common_are_kept_once():
    draws = two_draws_of_two_stages()
    stage = keep_rois(draws, MOST_BACKGROUNDS, features)[0][0]
    indices = torch.cat([draws[number][0][0][0].pos_index for number in range(2)])
    assert len(stage.labels) == len(indices.unique()) < len(indices)


def test_one_box_of_two_classes_is_two_positives():
    box = torch.ones(1, 4)
    one = torch.zeros(1, dtype=torch.int64)
    nothing = torch.zeros(0, 4)
    rois = [SampledRoIs(one, one[:0], box, nothing, one, box, one + label, one > 0) for label in (0, 1)]
    kept = keep_rois([[([each], [torch.zeros(0)])] for each in rois], [dict(roi_feats=2)], features)[0][0]
    assert [kept.labels[rows].tolist() for rows in kept.draws] == [[0], [1]]


def test_the_first_visit_has_the_first_draw_and_later_ones_any():
    kept = keep_rois(two_draws_of_two_stages(), MOST_BACKGROUNDS, features)[0]
    view = View(0, 3, 5)
    for (rows, priorities), rois in zip(rois_of_visit(Visit(3, 5, 0, view), kept, KIND), kept, strict=True):
        assert torch.equal(rows, rois.draws[0]) and torch.equal(priorities, rois.priorities)
    draws_seen, priorities_seen = set(), []
    for number in range(6, 406):
        (rows, priorities), (rows_1, _) = rois_of_visit(Visit(3, number, 0, view), kept, KIND)
        of_draw = [torch.equal(rows, draw) for draw in kept[0].draws]
        assert torch.equal(rows_1, kept[1].draws[of_draw.index(True)])  # stages of a cascade go together
        draws_seen.add(of_draw.index(True))
        priorities_seen.append(priorities)
    assert draws_seen == {0, 1}
    # The four highest of seven uniform numbers have the mean (7 + 6 + 5 + 4) / 4 / 8, in any order.
    torch.testing.assert_close(torch.stack(priorities_seen).mean(0), torch.full((4,), 5.5 / 8), atol=0.05, rtol=0)


def test_a_bank_gives_back_what_its_segments_were_packed_from(tmp_path):
    kept = keep_rois(two_draws_of_two_stages(), MOST_BACKGROUNDS, features)
    views = [View(4, 0, 9), View(2, 0, 11)]
    bank = FeatureBank()
    for place in range(2):
        torch.save(pack(views[place : place + 1], kept[place : place + 1]), tmp_path / 'segment')
        bank.include(torch.load(tmp_path / 'segment', weights_only=True))
    together = FeatureBank()
    together.include(pack(views, kept))
    assert len(bank) == len(together) == 2 and View(4, 1, 9) not in bank
    for view, stages in zip(views, kept, strict=True):
        for one in (bank, together):
            for ours, theirs in zip(one[view], stages, strict=True):
                assert ours.feats.keys() == theirs.feats.keys()
                assert torch.equal(ours.feats[KIND], theirs.feats[KIND]) and torch.equal(ours.labels, theirs.labels)
                assert all(map(torch.equal, ours.draws, theirs.draws)) and len(ours.draws) == 2
                assert torch.equal(ours.priorities, theirs.priorities)
                assert ours.num_backgrounds == theirs.num_backgrounds


def test_features_beyond_half_precision_are_refused():
    with pytest.raises(ConfigError, match='exceed float16'):
        keep_rois(two_draws_of_two_stages(), MOST_BACKGROUNDS, lambda *rois: features(*rois) + 1e6)


def test_two_kinds_of_features_share_positives_and_the_background_of_highest_priority():
    """What one kind keeps of the background is the beginning of what the other keeps."""
    draws = two_draws_of_two_stages()
    both = [dict(roi_feats=3, class_feats=6)] * 2

    def of_kind(kind, rois, stage):
        feats = features(kind, rois, stage)
        return feats.flatten(1) if kind == 'class_feats' else feats

    for stage, rois in enumerate(keep_rois(draws, both, of_kind)[0]):
        sampled, priorities = (column[0] for column in draws[0][stage])
        assert len(rois.background_rows('roi_feats')) == 3 and len(rois.background_rows('class_feats')) == 6
        roi_feats = rois.feats['roi_feats'].flatten(1)
        assert torch.equal(rois.feats['class_feats'][: len(roi_feats)], roi_feats)
        for kind, number in both[stage].items():
            own = rois.priorities[:number]
            assert own.sort().values.tolist() == priorities.sort().values[-number:].tolist()
            boxes = torch.stack([sampled.neg_boxes[priorities == priority][0] for priority in own])
            expected = of_kind(kind, torch.nn.functional.pad(boxes, (1, 0)), stage)
            assert torch.equal(rois.feats[kind][rois.background_rows(kind)].float(), expected)
        visit = Visit(3, 9, None, View(0, 3, 5))
        for kind, number in both[stage].items():
            assert len(rois_of_visit(visit, [rois], kind)[0][1]) == number
