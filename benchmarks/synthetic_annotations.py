"""An annotation file of LVIS v1's size and shape, of made-up objects.

    python benchmarks/synthetic_annotations.py FOLDER/lvis_v1_sized.json

100,170 images, 1.27 million instances of 1,203 categories (counts by a power law), a polygon each, 1.1 GB of JSON.
The same arguments give the same file, byte for byte.
"""
import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

IMAGES, INSTANCES, CATEGORIES = 100_170, 1_270_000, 1_203
SIZES = ((480, 640), (640, 480), (427, 640), (640, 427), (500, 375))  # height, width
MEAN_POINTS = 44
HUNDREDTHS = tuple(map(repr, (np.arange(max(map(max, SIZES)) * 100 + 1) / 100).tolist()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('path', type=Path)
    parser.add_argument('--images', type=int, default=IMAGES, help='instances are in proportion')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    write_annotations(args.path, args.images, args.seed)
    print(f'{args.path}: {args.path.stat().st_size / 1e9:.2f} GB')


def write_annotations(path: Path, num_images: int = IMAGES, seed: int = 0) -> None:
    """Writes the file in LVIS v1 format, an image's annotations one after another."""
    random = np.random.default_rng(seed)
    frequency = np.arange(1, CATEGORIES + 1) ** -1.2
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.name}.tmp')
    with temporary.open('w') as file:
        images = [_image(image_id, random) for image_id in range(1, num_images + 1)]
        file.write(f'{{"categories": {json.dumps(_categories())}, "images": {json.dumps(images)}, "annotations": [')
        separator, next_id = '', 1
        for image in images:
            number = random.poisson(INSTANCES / IMAGES)
            category_ids = 1 + random.choice(CATEGORIES, number, p=frequency / frequency.sum())
            for category_id, shape in zip(category_ids.tolist(), _shapes(number, image, random), strict=True):
                own = f'"id": {next_id}, "image_id": {image["id"]}, "category_id": {category_id}'
                file.write(f'{separator}{{{shape}, {own}}}')
                separator, next_id = ', ', next_id + 1
        file.write(']}')
    temporary.replace(path)


def _categories() -> list[dict]:
    marks = 'f' * 405 + 'c' * 461 + 'r' * 337
    return [{'id': i, 'name': f'category_{i}', 'frequency': mark} for i, mark in enumerate(marks, 1)]


def _image(image_id: int, random: np.random.Generator) -> dict:
    height, width = SIZES[random.integers(len(SIZES))]
    name = f'train2017/{image_id:012d}.jpg'
    return {
        'id': image_id, 'height': height, 'width': width, 'coco_url': f'http://images.cocodataset.org/{name}',
        'neg_category_ids': random.integers(1, CATEGORIES + 1, 5).tolist(), 'not_exhaustive_category_ids': [],
    }  # fmt: skip


def _shapes(number: int, image: dict, random: np.random.Generator) -> Iterator[str]:
    """`segmentation`, `bbox` and `area` of star-shaped polygons inside the image, as JSON."""
    height, width = image['height'], image['width']
    radius = np.minimum(random.lognormal(3.2, 0.9, number) + 4, min(height, width) / 2 - 1)
    centre = random.uniform(size=(number, 2)) * (np.array([width, height]) - 2 * radius[:, None]) + radius[:, None]
    for r, (x, y), count in zip(radius, centre, 8 + random.poisson(MEAN_POINTS - 8, number), strict=True):
        angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
        reach = r * random.uniform(0.6, 1.0, count)
        points = np.stack([x + reach * np.cos(angle), y + reach * np.sin(angle)], axis=1)
        hundredths = np.rint(points * 100).astype(np.int64)
        (left, top), (right, bottom) = hundredths.min(axis=0), hundredths.max(axis=0)
        box = ', '.join(HUNDREDTHS[each] for each in (left, top, right - left, bottom - top))
        numbers = ', '.join(map(HUNDREDTHS.__getitem__, hundredths.ravel().tolist()))
        (xs, ys), (next_xs, next_ys) = hundredths.T / 100, np.roll(hundredths, -1, axis=0).T / 100
        area = abs(xs @ next_ys - ys @ next_xs) / 2
        yield f'"segmentation": [[{numbers}]], "bbox": [{box}], "area": {area:.2f}'


if __name__ == '__main__':
    main()
