"""The bi-level choice of RoIs (METHOD: positives of the drawn class, as many background RoIs)."""
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet.calibration import DrawnClassSelector
from mmdet.models.task_modules import SampledRoIs

NUM_CLASSES = 5


def image_rois(pos_labels, num_neg, seed) -> SampledRoIs:
    rng = torch.Generator().manual_seed(seed)
    num_pos = len(pos_labels)
    return SampledRoIs(
        pos_index=torch.arange(num_pos),
        neg_index=torch.arange(num_neg),
        pos_boxes=torch.rand(num_pos, 4, generator=rng),
        neg_boxes=torch.rand(num_neg, 4, generator=rng),
        pos_gt_index=torch.zeros(num_pos, dtype=torch.int64),
        pos_gt_boxes=torch.rand(num_pos, 4, generator=rng),
        pos_gt_labels=torch.tensor(pos_labels, dtype=torch.int64),
        pos_is_gt=torch.zeros(num_pos, dtype=torch.bool),
    )


def select(images, drawn, priorities):
    """The selection, and the boxes of each image that it keeps."""
    selected = DrawnClassSelector().select([image.pos_gt_labels for image in images], drawn, priorities, NUM_CLASSES)
    return selected, selected.of([image.pos_boxes for image in images], [image.neg_boxes for image in images])


def priorities_of(images, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return [torch.rand(len(image.neg_boxes), generator=rng) for image in images]


steps = st.lists(
    st.tuples(st.lists(st.sampled_from(range(NUM_CLASSES)), max_size=6), st.integers(0, 8), st.integers(0, 4)),
    min_size=1,
    max_size=4,
)


@given(step=steps)
@settings(max_examples=100, deadline=None)
def test_positives_of_the_drawn_class_and_as_many_background_rois(step):
    images = [image_rois(labels, num_neg, seed) for seed, (labels, num_neg, _) in enumerate(step)]
    drawn = [label for _, _, label in step]
    priorities = priorities_of(images)
    selected, kept_boxes = select(images, drawn, priorities)

    num_positives = sum(labels.count(label) for labels, _, label in step)
    available = sum(num_neg for _, num_neg, _ in step)
    labels = selected.labels.tolist()
    assert sum(label < NUM_CLASSES for label in labels) == num_positives
    assert labels.count(NUM_CLASSES) == min(num_positives, available)
    assert selected.num_rois_of_step == len(labels) == sum(map(len, kept_boxes))

    ranking = sorted((-p, i, j) for i, ps in enumerate(priorities) for j, p in enumerate(ps.tolist()))
    chosen = {(i, j) for _, i, j in ranking[:num_positives]}
    for i, (image, boxes, label) in enumerate(zip(images, kept_boxes, drawn, strict=True)):
        positives = image.pos_boxes[image.pos_gt_labels == label]
        background = [image.neg_boxes[j] for j in range(len(image.neg_boxes)) if (i, j) in chosen]
        assert torch.equal(boxes, torch.cat([positives, *[box[None] for box in background]]))


def test_a_step_without_positives_keeps_nothing():
    images = [image_rois([1], 4, 0)]
    selected, boxes = select(images, [2], priorities_of(images))
    assert selected.num_rois_of_step == 0
    assert boxes[0].shape == (0, 4)


def _select_on_rank(rank, folder, images, drawn, priorities):
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    selected, boxes = select(images[rank::2], drawn[rank::2], priorities[rank::2])
    torch.save((boxes, selected.num_rois_of_step), folder / f'rank_{rank}')
    torch.distributed.destroy_process_group()


def test_two_ranks_keep_what_one_would(tmp_path):
    images = [image_rois([0, 0, 1], 5, 0), image_rois([2], 1, 1), image_rois([3, 3], 9, 2), image_rois([], 0, 3)]
    drawn = [0, 2, 3, 1]
    priorities = priorities_of(images)
    alone, boxes_alone = select(images, drawn, priorities)
    # Forked, for the imports would take longer than all else.
    mp.start_processes(_select_on_rank, (tmp_path, images, drawn, priorities), nprocs=2, start_method='fork')
    (boxes_0, count_0), (boxes_1, count_1) = (torch.load(tmp_path / f'rank_{rank}') for rank in range(2))
    assert count_0 == count_1 == alone.num_rois_of_step
    together = [boxes_0[0], boxes_1[0], boxes_0[1], boxes_1[1]]
    for ours, theirs in zip(together, boxes_alone, strict=True):
        assert torch.equal(ours, theirs)
