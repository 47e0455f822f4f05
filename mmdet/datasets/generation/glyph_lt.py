"""GlyphLT: a small long-tail instance segmentation data set in LVIS v1 format, generated from a seed."""
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mmdet.errors import ConfigError, UserError
from mmdet.utils.seeding import keyed_generator

from ..annotation_file import write_json
from ..conversion import frequency_letter
from .glyphs import CATALOGUES, glyph_name, glyph_shape
from .scenes import SceneObject, paint_scene

# Truncated power law of training counts: density ~ count ** -_TAIL_EXPONENT between the two bounds.
_TAIL_EXPONENT = 1.05
_MOST, _LEAST = 1150, 1.5
# Those two bounds belong to this many images of this many classes; images are about equally full for other numbers too.
_IMAGES, _CLASSES = 1400, 60
_VAL_OBJECTS = 5
_MIN_OBJECTS = 3
_NEGATIVE_SHARE = 0.25
_NOT_EXHAUSTIVE_SHARE = 0.1
_CATALOGUE_KEY, _TRAIN_KEY, _VAL_KEY = 0, 1, 2


def generate_glyph_lt(
    out_dir: str | Path,
    seed: int = 0,
    classes: int = 60,
    train_images: int = 1400,
    val_images: int = 360,
    image_size: int = 128,
    catalogue: str = 'pictographs',
    on_image: Callable[[], None] = lambda: None,
) -> str:
    """Write GlyphLT to `out_dir/annotations/glyph_lt_{train,val}.json` and `out_dir/images/{train,val}`.

    The training instances of the classes follow a power law from above 1,000 (at the default number of images to a
    class; in proportion to it otherwise) down to 1 or 2; a seeded shuffle says which class has which rank. In
    validation all classes are equally frequent. Both splits are federated as LVIS is: `neg_category_ids` lists some of
    the absent classes, and of a class in `not_exhaustive_category_ids` an object of the image is left unannotated.

    Args:
        out_dir: a directory, made if need be.
        seed: non-negative; the same seed gives the same bytes.
        classes: number of classes, from the catalogue's front.
        train_images, val_images: number of images.
        image_size: height and width in pixels.
        catalogue: a name in `CATALOGUES`, which glyphs to choose from.
        on_image: called whenever an image has been painted, to show progress.

    Returns:
        One line saying what was made.

    Raises:
        ConfigError: a number is out of range.
        UserError: a file cannot be written.
    """
    _check(seed, catalogue, classes, train_images, val_images, image_size)
    rng = keyed_generator(seed, _CATALOGUE_KEY)
    glyphs = CATALOGUES[catalogue][:classes]
    ranks = rng.permutation(classes)
    hues = rng.permutation(classes) * 360 / classes
    counts = power_law_counts(classes, train_images * _CLASSES / classes / _IMAGES)[ranks]

    out_dir = Path(out_dir)
    files = {split: out_dir / f'annotations/glyph_lt_{split}.json' for split in ('train', 'val')}
    for file in files.values():
        _remove(file)
    train_pool = np.repeat(np.arange(classes), counts)
    val_pool = np.arange(val_images * _VAL_OBJECTS) % classes
    painter = _Painter(glyphs, hues, image_size, on_image)
    train = painter.paint(out_dir / 'images/train', train_pool, train_images, (seed, _TRAIN_KEY), first_id=1)
    val = painter.paint(out_dir / 'images/val', val_pool, val_images, (seed, _VAL_KEY), first_id=train_images + 1)
    categories = _categories(glyphs, train['annotations'])
    write_json(files['train'], dict(train, categories=categories))
    write_json(files['val'], dict(val, categories=categories))
    return _summary(out_dir, categories, train, val)


def _check(seed: int, catalogue: str, classes: int, train_images: int, val_images: int, image_size: int) -> None:
    if catalogue not in CATALOGUES:
        raise ConfigError(f'GlyphLT: there is no catalogue {catalogue!r}; choose from {", ".join(CATALOGUES)}')
    if seed < 0:
        raise ConfigError(f'GlyphLT: seed is {seed}; it must not be negative')
    if not 2 <= classes <= len(CATALOGUES[catalogue]):
        raise ConfigError(
            f'GlyphLT: {classes} classes asked for; catalogue {catalogue!r} has 2 to {len(CATALOGUES[catalogue])}'
        )
    if min(train_images, val_images) < 1 or image_size < 64:
        raise ConfigError('GlyphLT: each split needs at least one image, of at least 64 pixels')


def _remove(annotations: Path) -> None:
    """Annotations of an earlier run must not outlive its images."""
    try:
        annotations.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f'{annotations}: cannot be replaced ({reason}); choose another out_dir') from None


def power_law_counts(classes: int, scale: float) -> np.ndarray:
    """Training instances of each rank, largest first: quantiles of the truncated power law, at least 1 each."""
    share = (np.arange(classes)[::-1] + 0.5) / classes
    power = 1 - _TAIL_EXPONENT
    low, high = _LEAST**power, _MOST**power
    share[0], share[-1] = 1, 0
    counts = (low + share * (high - low)) ** (1 / power)
    return np.maximum(np.floor(counts * scale), 1).astype(np.int64)


def _write_image(path: Path, pixels: np.ndarray) -> None:
    data = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise UserError(f'{path}: cannot be written ({error.strerror or error})') from None


@dataclass(frozen=True)
class _Painter:
    """Paints splits: what all of them have in common.

    Attributes:
        glyphs: a character for each class.
        hues: (classes,) each class's typical hue in degrees.
        side: height and width of an image in pixels.
        on_image: called whenever an image has been painted.
    """

    glyphs: str
    hues: np.ndarray
    side: int
    on_image: Callable[[], None]

    def paint(
        self, folder: Path, pool: np.ndarray, num_images: int, key: tuple[int, int], first_id: int
    ) -> dict[str, list]:
        """Paint the images of one split; `pool` holds the label of every object. Returns images and annotations."""
        images, annotations = [], []
        for position, labels in enumerate(_deal(pool, num_images, keyed_generator(*key, 0))):
            rng = keyed_generator(*key, position + 1)
            objects = [SceneObject(glyph_shape(self.glyphs[label]), self.hues[label]) for label in labels]
            pixels, outlines = paint_scene(objects, self.side, rng)
            file_name = f'{position + 1:06d}.jpg'
            _write_image(folder / file_name, pixels)

            seen = [(label, outline) for label, outline in zip(labels, outlines, strict=True) if outline]
            seen, not_exhaustive = _forget_some(seen, rng)
            absent = np.setdiff1d(np.arange(len(self.glyphs)), labels)
            negative = absent[rng.random(len(absent)) < _NEGATIVE_SHARE]
            images.append(
                dict(
                    id=first_id + position,
                    width=self.side,
                    height=self.side,
                    file_name=f'{folder.name}/{file_name}',
                    coco_url=f'glyph_lt://images/{folder.name}/{file_name}',
                    neg_category_ids=(negative + 1).tolist(),
                    not_exhaustive_category_ids=not_exhaustive,
                )
            )
            for label, outline in seen:
                annotations.append(_annotation(len(annotations) + 1, first_id + position, int(label) + 1, outline))
            self.on_image()
        return dict(images=images, annotations=annotations)


def _deal(pool: np.ndarray, num_images: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Shuffle the objects and deal them to images: a few each, some images fuller than others."""
    least = min(_MIN_OBJECTS, len(pool) // num_images)
    fullness = rng.uniform(0.2, 1, num_images)
    sizes = least + rng.multinomial(len(pool) - least * num_images, fullness / fullness.sum())
    return np.split(rng.permutation(pool), np.cumsum(sizes)[:-1])


def _forget_some(
    seen: list[tuple[int, list[np.ndarray]]], rng: np.random.Generator
) -> tuple[list[tuple[int, list[np.ndarray]]], list[int]]:
    """Drop one annotation of some of the classes seen twice; returns what is left and those classes' ids."""
    not_exhaustive = []
    for label, count in sorted(Counter(int(label) for label, _ in seen).items()):
        if count > 1 and rng.random() < _NOT_EXHAUSTIVE_SHARE:
            seen = list(seen)
            del seen[next(i for i, (other, _) in enumerate(seen) if other == label)]
            not_exhaustive.append(label + 1)
    return seen, not_exhaustive


def _annotation(annotation_id: int, image_id: int, category_id: int, outline: list[np.ndarray]) -> dict:
    points = np.concatenate(outline)
    low, high = points.min(axis=0), points.max(axis=0)
    area = sum(cv2.contourArea(part.astype(np.float32)) for part in outline)
    return dict(
        id=annotation_id,
        image_id=image_id,
        category_id=category_id,
        segmentation=[np.round(part, 2).ravel().tolist() for part in outline],
        bbox=np.round([*low, *(high - low)], 2).tolist(),
        area=round(float(area), 2),
    )


def _categories(glyphs: str, train_annotations: list[dict]) -> list[dict]:
    """LVIS category records; counts and frequency (r, c, f) are those of the training split."""
    instances = Counter(annotation['category_id'] for annotation in train_annotations)
    images = Counter(c for _, c in {(a['image_id'], a['category_id']) for a in train_annotations})
    return [
        dict(
            id=i,
            name=glyph_name(glyph),
            synset=f'u+{ord(glyph):04x}',
            synonyms=[glyph],
            frequency=frequency_letter(images[i]),
            image_count=images[i],
            instance_count=instances[i],
        )
        for i, glyph in enumerate(glyphs, start=1)
    ]


def _summary(out_dir: Path, categories: list[dict], train: dict, val: dict) -> str:
    rare, common, frequent = (sum(c['frequency'] == letter for c in categories) for letter in 'rcf')
    counts = [category['instance_count'] for category in categories]
    val_counts = Counter(annotation['category_id'] for annotation in val['annotations'])
    return (
        f'{out_dir}: {len(categories)} classes ({rare} rare, {common} common, {frequent} frequent); '
        f'train {len(train["images"])} images, {len(train["annotations"])} instances, '
        f'{max(counts)} to {min(counts)} a class; '
        f'val {len(val["images"])} images, {len(val["annotations"])} instances, '
        f'at least {min(val_counts[category["id"]] for category in categories)} a class'
    )
