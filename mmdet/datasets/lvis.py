"""LVIS v0.5 and v1, whose image files are COCO's."""
from mmdet.registry import DATASETS

from .coco import CocoDataset, _join

_COCO_NAME_LENGTH = len('000000266409.jpg')


@DATASETS.register_module(name=['LVISV05Dataset', 'LVISDataset'])
class LVISV05Dataset(CocoDataset):
    """LVIS v0.5: file names such as `COCO_val2014_000000266409.jpg` for COCO 2017's `000000266409.jpg`.

    Images are looked for under both names, in the folder of `data_prefix` and in its neighbour (train2017 for val2017
    and the reverse): LVIS splits COCO's images otherwise than COCO does.
    """

    def _image_paths(self, file_name: str, coco_url: str) -> list[str]:
        name = file_name or coco_url.rsplit('/', 1)[-1]
        names = [name[-_COCO_NAME_LENGTH:], name] if name.startswith('COCO') else [name]
        return [_join(folder, name) for folder in _with_neighbour(self.image_dir) for name in names]


@DATASETS.register_module()
class LVISV1Dataset(CocoDataset):
    """LVIS v1: an image's folder and name are the end of its `coco_url`, e.g. `train2017/000000391895.jpg`."""

    def _image_paths(self, file_name: str, coco_url: str) -> list[str]:
        return [_join(self.image_dir, '/'.join(coco_url.split('/')[-2:]) or file_name)]


def _with_neighbour(folder: str) -> list[str]:
    """A COCO 2017 image folder and the one beside it."""
    for one, other in (('train2017', 'val2017'), ('val2017', 'train2017')):
        if folder.rstrip('/').endswith(one):
            return [folder, folder.rstrip('/').removesuffix(one) + other]
    return [folder]
