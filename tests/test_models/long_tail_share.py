"""One of several processes with EQL v2 and class-aware draws: python long_tail_share.py RANK WORLD_SIZE FOLDER.

What `share` returns goes to FOLDER.
"""
import sys
from pathlib import Path

import numpy as np
import torch

from mmdet.datasets.samplers import ClassAwareSampler
from mmdet.models.losses import EQLV2Loss
from mmdet.structures import ClassFrequency

CLASSES, NUM_IMAGES = 6, 30


class Images:
    """As much of a data set as the sampler asks: image i has the classes that divide i."""

    def __len__(self):
        return NUM_IMAGES

    def images_of_class(self):
        return [np.flatnonzero(np.arange(NUM_IMAGES) % (label + 1) == 0) for label in range(CLASSES)]

    def class_frequency(self):
        counts = [len(images) for images in self.images_of_class()]
        return ClassFrequency([str(label) for label in range(CLASSES)], np.array(counts), np.array(counts))


def share(rank: int, world_size: int) -> dict:
    """The loss's state after three steps of which this process has its share of RoIs, and the draws of two epochs."""
    loss = EQLV2Loss(CLASSES)
    rng = torch.Generator().manual_seed(7)
    for step in range(3):
        logits = 2 * torch.randn(20, CLASSES + 1, generator=rng)
        labels = torch.randint(0, CLASSES + 1, (20,), generator=rng)
        if step == 1 and world_size > 1:  # all RoIs at one process, none at the other
            logits, labels = logits[: 20 * rank], labels[: 20 * rank]
        else:
            logits, labels = logits[rank::world_size], labels[rank::world_size]
        loss(logits, labels, avg_factor=len(labels))
    sampler = ClassAwareSampler(Images(), seed=3, num_sample_class=2)
    draws = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        draws += list(sampler)
    return dict(state=dict(loss.state_dict()), draws=[list(draw) for draw in draws])


def main(rank: int, world_size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=world_size)
    torch.save(share(rank, world_size), folder / f'{rank}.pt')
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
