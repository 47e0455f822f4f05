"""LVIS v0.5 and v1, whose image files are COCO's."""
from mmdet.registry import DATASETS

from .coco import CocoDataset

_COCO_NAME_LENGTH = len('000000266409.jpg')


@DATASETS.register_module(name=['LVISV05Dataset', 'LVISDataset'])
class LVISV05Dataset(CocoDataset):
    """LVIS v0.5: file names such as `COCO_val2014_000000266409.jpg` for COCO 2017's `000000266409.jpg`.

    Images are looked for under both names, in the folder of `data_prefix` and in its neighbour (train2017 for val2017
    and the reverse): LVIS splits COCO's images otherwise than COCO does.
    """

    def _names(self, file_name: str, coco_url: str) -> list[str]:
        (name,) = super()._names(file_name, coco_url)
        return [name[-_COCO_NAME_LENGTH:], name] if name.startswith('COCO') else [name]

    def _folders(self, folder: str) -> list[str]:
        folder = folder.rstrip('/')
        for one, other in (('train2017', 'val2017'), ('val2017', 'train2017')):
            if folder.endswith(one):
                return [folder, folder.removesuffix(one) + other]
        return [folder]


@DATASETS.register_module()
class LVISV1Dataset(CocoDataset):
    """LVIS v1: an image's folder and name are the end of its `coco_url`, e.g. `train2017/000000391895.jpg`.

    Where a file made by `coco2lvis.py` gives a `file_name` too, the image is looked for under that name as well.
    """

    def _names(self, file_name: str, coco_url: str) -> list[str]:
        names = ['/'.join(coco_url.split('/')[-2:]), file_name]
        return [name for name in dict.fromkeys(names) if name]
