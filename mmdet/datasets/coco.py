"""Data sets in COCO format, and what all annotated data sets share."""
import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from torch.utils.data import Dataset

from mmdet.errors import AnnotationError
from mmdet.registry import DATASETS
from mmdet.structures import ClassFrequency
from mmdet.utils.seeding import keyed_generator

from .annotation_index import IGNORED, NO_MASK, NO_OBJECT, read_annotation_index
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
        self.index = read_annotation_index(self.ann_file)
        self._choose_classes(dict(metainfo or {}))
        self._choose_images(dict(filter_cfg or {}), indices)
        self.pipeline = Pipeline(pipeline)
        if not test_mode:
            self._warn_of_classes_without_image()

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
        path = self._image_path(image)
        info = dict(
            img_id=int(self.index.image_ids[image]),
            img_path=path,
            height=height,
            width=width,
            instances=[self._instance(m, (height, width)) for m in self._objects_of(image)],
        )
        if self.seg_dir is not None:
            info['seg_map_path'] = str(Path(_join(self.seg_dir, Path(path).stem + '.png')))
        return info

    def get_cat_ids(self, index: int) -> list[int]:
        """Labels of the objects in an image, ignored ones included."""
        return self.labels[self._objects_of(int(self.images[index]))].tolist()

    def class_frequency(self) -> ClassFrequency:
        """Instances and images of each class as the file lists them: crowds and images filtered out included."""
        labelled = self.labels >= 0
        labels, images = self.labels[labelled], self.image_of_instance[labelled]
        num_classes = len(self.metainfo['classes'])
        pairs = np.unique(labels.astype(np.int64) * len(self.index.image_ids) + images)
        return ClassFrequency(
            names=self.metainfo['classes'],
            instance_count=np.bincount(labels, minlength=num_classes),
            image_count=np.bincount(pairs // max(len(self.index.image_ids), 1), minlength=num_classes),
        )

    def images_of_class(self) -> list[np.ndarray]:
        """For each label the ascending indices of images with an object of the class, crowds included."""
        position = np.full(len(self.index.image_ids), -1)
        position[self.images] = np.arange(len(self.images))
        usable = self._is_object() & (position[self.image_of_instance] >= 0)
        labels, places = self.labels[usable].astype(np.int64), position[self.image_of_instance[usable]]
        pairs = np.unique(labels * len(self.images) + places)
        bounds = np.searchsorted(pairs, np.arange(len(self.metainfo['classes']) + 1) * len(self.images))
        return [pairs[first:last] % len(self.images) for first, last in zip(bounds, bounds[1:], strict=False)]

    # ------------------------------------------------------------------ set-up

    def _choose_classes(self, metainfo: dict) -> None:
        """Number the wanted categories 0..C-1 by ascending id; `self.labels` has -1 for instances of others."""
        names = self.index.category_names
        wanted = metainfo.get('classes') or names
        wanted = (wanted,) if isinstance(wanted, str) else tuple(wanted)
        for name in wanted:
            if name not in names:
                near = difflib.get_close_matches(name, names, 1)
                hint = f'; did you mean {near[0]!r}?' if near else ''
                raise AnnotationError(f'{self.ann_file}: has no category {name!r} of metainfo.classes{hint}')
        chosen = [position for position, name in enumerate(names) if name in set(wanted)]
        label_of_category = np.full(len(names), -1, np.int32)
        label_of_category[chosen] = np.arange(len(chosen))
        self.labels = label_of_category[self.index.category]
        self.metainfo = metainfo | dict(
            classes=tuple(names[position] for position in chosen),
            category_ids=tuple(self.index.category_ids[chosen].tolist()),
        )
        self.image_of_instance = np.empty(len(self.labels), np.int64)
        self.image_of_instance[self.index.by_image] = np.repeat(
            np.arange(len(self.index.image_ids)), np.diff(self.index.image_start)
        )

    def _choose_images(self, filter_cfg: dict, indices: int | Sequence[int] | None) -> None:
        keep = np.ones(len(self.index.image_ids), bool)
        if not self.test_mode:
            keep &= self.index.image_sizes.min(axis=1) >= filter_cfg.pop('min_size', 0)
            if filter_cfg.pop('filter_empty_gt', False):
                objects = np.bincount(self.image_of_instance[self._is_object()], minlength=len(keep))
                keep &= objects > 0
            if filter_cfg:
                raise TypeError(f'unexpected filter_cfg key {next(iter(filter_cfg))!r}')
        self.images = np.flatnonzero(keep)
        if indices is not None:
            self.images = self.images[:indices] if isinstance(indices, int) else self.images[np.asarray(indices)]
        if not len(self.images):
            raise AnnotationError(
                f'{self.ann_file}: no image is left of {len(keep)}; check filter_cfg, indices and metainfo.classes'
            )

    def _is_object(self) -> np.ndarray:
        """(M,) bool: instances of a wanted class with a usable box."""
        return (self.labels >= 0) & (self.index.flags & NO_OBJECT == 0)

    def _warn_of_classes_without_image(self) -> None:
        frequency = self.class_frequency()
        empty = [name for name, count in zip(frequency.names, frequency.image_count, strict=True) if not count]
        if empty:
            some = ', '.join(empty[:3]) + (', ...' if len(empty) > 3 else '')
            print_log(
                f'{self.ann_file}: {len(empty)} of {len(frequency)} classes have no training image ({some}); '
                'they will not be learnt, nor drawn in class-balanced sampling',
                logger='current',
                level=30,
            )

    # ------------------------------------------------------------------ one image

    def _objects_of(self, image: int) -> np.ndarray:
        instances = self.index.instances_of(image)
        usable = (self.labels[instances] >= 0) & (self.index.flags[instances] & NO_OBJECT == 0)
        return instances[usable]

    def _instance(self, m: int, size: tuple[int, int]) -> dict:
        flags = int(self.index.flags[m])
        instance = dict(
            bbox=self.index.boxes[m].tolist(),
            bbox_label=int(self.labels[m]),
            ignore_flag=int(flags & IGNORED > 0),
        )
        if not flags & NO_MASK:
            instance['mask'] = self.index.mask(m, size)
        return instance

    def _image_path(self, image: int) -> str:
        """Where the image lies: the first of `_image_paths` that exists, or else the first."""
        candidates = self._image_paths(self.index.image_names[image], self.index.image_urls[image])
        if len(candidates) > 1 and self.backend_args is None:
            return next((path for path in candidates if Path(path).exists()), candidates[0])
        return candidates[0]

    def _image_paths(self, file_name: str, coco_url: str) -> list[str]:
        """Where an image may lie, best first; data sets with other habits override this."""
        return [_join(self.image_dir, file_name or coco_url.rsplit('/', 1)[-1])]


def _join(directory: str, name: str) -> str:
    """`directory/name`, also where one of them is a URL such as s3://bucket."""
    if not directory or '://' in name or Path(name).is_absolute():
        return name
    return f'{directory.rstrip("/")}/{name}' if name else directory
