"""Data sets in COCO format, and what all annotated data sets share."""
import difflib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from torch.utils.data import Dataset

from mmdet.errors import AnnotationError, ConfigError
from mmdet.registry import DATASETS
from mmdet.structures import ClassFrequency
from mmdet.utils.seeding import keyed_generator

from .annotation_cache import load_annotation_index
from .annotation_index import IGNORED, LEFT_OUT, NO_MASK, NO_OBJECT
from .pipeline import Pipeline
from .samplers.draw import Draw


@DATASETS.register_module()
class CocoDataset(Dataset):
    """Images with instance annotations from a COCO-format JSON file (.json, .json.gz or .json.zip).

    Labels are 0..C-1 in the order of the category ids. `dataset[draw]` and `dataset[index]` return what the pipeline
    makes of that very image, and never of another one: an image that cannot be read is an error.

    Args:
        ann_file: relative to `data_root`, or absolute.
        data_root: directory.
        data_prefix: `img`, the directory of the images, and `seg`, that of semantic maps; relative to `data_root`.
        metainfo: `classes`, to use only these of the file's categories; anything else is kept in `metainfo` as it is.
        filter_cfg: `filter_empty_gt`, leave out images without annotations, and `min_size`, leave out images whose
            shorter side is shorter; not used with `test_mode`.
        indices: only the first so many images, or these.
        pipeline: configs of transforms.
        test_mode: keep every image.
        backend_args: for image files that are not on a local disk; see mmengine.fileio.

    Attributes:
        metainfo: `classes` (C names), `category_ids` (C ids), and whatever was given.

    Raises:
        AnnotationError: the file cannot be used, or nothing is left of it.
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = '',
        data_prefix: dict[str, str] | None = None,
        metainfo: dict | None = None,
        filter_cfg: dict | None = None,
        indices: int | Sequence[int] | None = None,
        pipeline: Sequence[dict] = (),
        test_mode: bool = False,
        backend_args: dict | None = None,
    ):
        self.ann_file = str(Path(data_root, ann_file))
        prefix = dict(data_prefix or {})
        self.image_dir = _join(data_root, prefix.get('img', ''))
        self.seg_dir = _join(data_root, prefix['seg']) if 'seg' in prefix else None
        self.test_mode = test_mode
        self.backend_args = backend_args
        self.index = load_annotation_index(self.ann_file)
        if self.index.warning:
            print_log(f'{self.ann_file}: {self.index.warning}', logger='current', level=logging.WARNING)
        self._choose_classes(dict(metainfo or {}))
        self._choose_images(dict(filter_cfg or {}), indices)
        self.pipeline = Pipeline(pipeline)
        with_masks = any(getattr(transform, 'with_mask', False) for transform in self.pipeline.transforms)
        if with_masks:
            self._check_masks()
        self.is_positive = self.is_object & (self.index.flags & (IGNORED | with_masks * NO_MASK) == 0)
        if not test_mode:
            self._warn_of_classes_not_learnt()

    def full_init(self) -> None:
        """Nothing is left to do; mmengine's runner calls this."""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int | Draw) -> dict:
        """The pipeline's output for an image; random transforms are keyed to the draw, or for an index to it."""
        draw = item if isinstance(item, Draw) else Draw(int(item), 0, int(item))
        results = self.get_data_info(draw.index)
        results['rng'] = keyed_generator(draw.seed, draw.number)
        results['draw_key'] = (draw.seed, draw.number)
        if draw.class_label is not None:
            results['drawn_class'] = draw.class_label
        return self.pipeline(results)

    def get_data_info(self, index: int) -> dict:
        """What is known of an image before it is loaded.

        Returns:
            `img_id`, `img_path`, `height`, `width`, `seg_map_path` where there are semantic maps, and `instances`: a
            list of dicts of `bbox` [x1, y1, x2, y2] in pixels, `bbox_label`, `ignore_flag`, and, where annotated,
            `mask`: polygons [(k, 2) float64] or a compressed RLE.
        """
        image = int(self.images[index])
        height, width = self.index.image_sizes[image].tolist()
        names = self._names(self.index.image_names[image], self.index.image_urls[image])
        info = dict(
            img_id=int(self.index.image_ids[image]),
            img_path=self._find(self.image_dir, names),
            height=height,
            width=width,
            instances=self._instances(image),
        )
        if self.seg_dir is not None:
            info['seg_map_path'] = self._find(self.seg_dir, [str(Path(name).with_suffix('.png')) for name in names])
        return info

    def get_cat_ids(self, index: int) -> list[int]:
        """Labels of the objects in an image: as in mmdetection crowds are among them, `ignore` annotations are not."""
        here = self.index.instances_of(int(self.images[index]))
        return self.labels[here][self.is_counted[here]].tolist()

    def class_frequency(self) -> ClassFrequency:
        """Instances and images of each class as the file lists them: crowds and images filtered out included."""
        labelled = self.labels >= 0
        labels, images = self.labels[labelled], self.image_of_instance[labelled]
        num_classes = len(self.metainfo['classes'])
        pairs = _sorted_without_repeats(labels.astype(np.int64) * self.index.num_images + images)
        return ClassFrequency(
            names=self.metainfo['classes'],
            instance_count=np.bincount(labels, minlength=num_classes),
            image_count=np.bincount(pairs // max(self.index.num_images, 1), minlength=num_classes),
        )

    def num_annotated_images(self) -> int:
        """Images of the annotation file, those without an object and those filtered out included."""
        return self.index.num_images

    def box_centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the boxes of the annotation file are, crowds and images filtered out included.

        Returns:
            (M, 2) float64, x and y of every usable box's centre as shares of its image's width and height, and (M,)
            int64, its label.
        """
        boxes = self.index.boxes[self.is_object].astype(np.float64)
        sizes = self.index.image_sizes[self.image_of_instance[self.is_object]][:, ::-1]
        return (boxes[:, :2] + boxes[:, 2:]) / 2 / sizes, self.labels[self.is_object].astype(np.int64)

    def images_of_class(self) -> list[np.ndarray]:
        """For each label the ascending indices of images that have it in `get_cat_ids`."""
        return self._images_with(self.is_counted)

    def images_to_learn_class(self) -> list[np.ndarray]:
        """For each label the ascending indices of images with an instance to learn it from: no crowd, none ignored."""
        return self._images_with(self.is_positive)

    # ------------------------------------------------------------------ set-up

    def _images_with(self, of_interest: np.ndarray) -> list[np.ndarray]:
        position = np.full(self.index.num_images, -1)
        position[self.images] = np.arange(len(self.images))
        here = of_interest & (position[self.image_of_instance] >= 0)
        labels, places = self.labels[here].astype(np.int64), position[self.image_of_instance[here]]
        pairs = _sorted_without_repeats(labels * len(self.images) + places)
        bounds = np.searchsorted(pairs, np.arange(len(self.metainfo['classes']) + 1) * len(self.images))
        return [pairs[first:last] % len(self.images) for first, last in zip(bounds, bounds[1:], strict=False)]

    def _choose_classes(self, metainfo: dict) -> None:
        """Number the wanted categories 0..C-1 by ascending id; `self.labels` has -1 for instances of others."""
        names = list(self.index.category_names)
        wanted = metainfo.get('classes') or names
        wanted = (wanted,) if isinstance(wanted, str) else tuple(wanted)
        for name in wanted:
            if name not in names:
                near = difflib.get_close_matches(name, names, 1)
                hint = f'; did you mean {near[0]!r}?' if near else ''
                raise AnnotationError(f'{self.ann_file}: has no category {name!r} of metainfo.classes{hint}')
        wanted = set(wanted)
        chosen = [position for position, name in enumerate(names) if name in wanted]
        label_of_category = np.full(len(names), -1, np.int32)
        label_of_category[chosen] = np.arange(len(chosen))
        self.labels = label_of_category[self.index.category]
        self.metainfo = metainfo | dict(
            classes=tuple(names[position] for position in chosen),
            category_ids=tuple(self.index.category_ids[chosen].tolist()),
        )
        self.is_object = (self.labels >= 0) & (self.index.flags & NO_OBJECT == 0)
        self.is_counted = self.is_object & (self.index.flags & LEFT_OUT == 0)
        self.image_of_instance = self.index.image_of_instance()

    def _choose_images(self, filter_cfg: dict, indices: int | Sequence[int] | None) -> None:
        keep = np.ones(self.index.num_images, bool)
        if not self.test_mode:
            keep &= self.index.image_sizes.min(axis=1) >= filter_cfg.pop('min_size', 0)
            if filter_cfg.pop('filter_empty_gt', False):
                objects = np.bincount(self.image_of_instance[self.is_object], minlength=len(keep))
                keep &= objects > 0
            if filter_cfg:
                unknown = next(iter(filter_cfg))
                raise ConfigError(f'filter_cfg.{unknown}: not known; the keys are filter_empty_gt and min_size')
        self.images = np.flatnonzero(keep)
        if indices is not None:
            self.images = self.images[:indices] if isinstance(indices, int) else self.images[np.asarray(indices)]
        if not len(self.images):
            raise AnnotationError(
                f'{self.ann_file}: no image is left of {len(keep)}; check filter_cfg, indices and metainfo.classes'
            )

    def _check_masks(self) -> None:
        if self.is_object.any() and (self.index.flags[self.is_object] & NO_MASK).all():
            raise AnnotationError(
                f'{self.ann_file}: has boxes but no masks; take a box detector and LoadAnnotations(with_mask=False)'
            )

    def _warn_of_classes_not_learnt(self) -> None:
        names = self.metainfo['classes']
        count = np.bincount(self.labels[self.is_positive], minlength=len(names))
        empty = [names[label] for label in np.flatnonzero(count == 0)]
        if empty:
            some = ', '.join(empty[:3]) + (', ...' if len(empty) > 3 else '')
            print_log(
                f'{self.ann_file}: {len(empty)} of {len(names)} classes have no usable training instance ({some}); '
                'they will not be learnt, nor drawn in class-balanced sampling',
                logger='current',
                level=logging.WARNING,
            )

    # ------------------------------------------------------------------ one image

    def _instances(self, image: int) -> list[dict]:
        here = self.index.instances_of(image)
        instances = []
        for is_object, box, label, flags, mask in zip(
            self.is_object[here].tolist(),
            self.index.boxes[here].tolist(),
            self.labels[here].tolist(),
            self.index.flags[here].tolist(),
            self.index.masks_of(image),
            strict=True,
        ):
            if is_object:
                instance = dict(bbox=box, bbox_label=label, ignore_flag=int(flags & IGNORED > 0))
                instances.append(instance if mask is None else instance | dict(mask=mask))
        return instances

    def _find(self, folder: str, names: Sequence[str]) -> str:
        """The first of the places where a file may lie that has it, or else the first."""
        places = [_join(beside, name) for beside in self._folders(folder) for name in names]
        if len(places) > 1 and self.backend_args is None:
            return next((place for place in places if Path(place).exists()), places[0])
        return places[0]

    def _names(self, file_name: str, coco_url: str) -> list[str]:
        """Names an image may have below its folder, likeliest first; data sets with other habits override this."""
        return [file_name or coco_url.rsplit('/', 1)[-1]]

    def _folders(self, folder: str) -> list[str]:
        """Folders to look in for what should be in `folder`; data sets with other habits override this."""
        return [folder]


def _sorted_without_repeats(keys: np.ndarray) -> np.ndarray:
    # np.unique hashes, which takes fifty times as long.
    keys = np.sort(keys)
    return keys[np.diff(keys, prepend=-1) > 0]


def _join(directory: str, name: str) -> str:
    """`directory/name`, also where one of them is a URL such as s3://bucket."""
    if not directory or '://' in name or Path(name).is_absolute():
        return name
    return f'{directory.rstrip("/")}/{name}' if name else directory
