"""Bi-level sampling on the real LVIS v0.5 index: set-up, draws a second, and how even the draws are.

    python benchmarks/sampler.py lvis_v0.5_train_index.json.gz
"""
import gzip
import itertools
import json
import sys
import time

import numpy as np
from common import machine

from mmdet.datasets.samplers.bi_level import BiLevelSampler
from mmdet.structures import ClassFrequency

DRAWS = 500_000


class Index:
    """As much of a data set as the sampler asks, from an index of image ids by class."""

    def __init__(self, path: str):
        with gzip.open(path) as file:
            self.categories = json.load(file)['categories']
        self.places = {}
        for category in self.categories:
            for image in category['image_ids']:
                self.places.setdefault(image, len(self.places))

    def __len__(self) -> int:
        return len(self.places)

    def images_of_class(self) -> list[np.ndarray]:
        return [np.array([self.places[image] for image in category['image_ids']]) for category in self.categories]

    def class_frequency(self) -> ClassFrequency:
        names, instances, images = zip(
            *[(c['name'], c['instance_count'], c['image_count']) for c in self.categories], strict=True
        )
        return ClassFrequency(names, np.array(instances), np.array(images))


def main() -> None:
    index = Index(sys.argv[1])
    start = time.perf_counter()
    sampler = BiLevelSampler(index, seed=0)
    ready = time.perf_counter()
    draws = list(itertools.islice(sampler, DRAWS))
    end = time.perf_counter()

    observed = np.bincount([draw.class_label for draw in draws], minlength=len(index.categories))
    expected = DRAWS / len(index.categories)
    statistic = ((observed - expected) ** 2 / expected).sum()
    print(machine())
    print(f'{len(index.categories)} classes, {len(index)} images')
    print(f'set-up            {ready - start:.2f} s')
    print(f'draws a second    {DRAWS / (end - ready):,.0f}')
    print(f'chi-square        {statistic:.0f} with {len(index.categories) - 1} degrees of freedom')


if __name__ == '__main__':
    main()
