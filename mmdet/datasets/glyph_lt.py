"""GlyphLT, the generated long-tail data set; `tools/dataset_converters/glyph_lt.py` makes it."""
from mmdet.registry import DATASETS

from .lvis import LVISV1Dataset


@DATASETS.register_module()
class GlyphLTDataset(LVISV1Dataset):
    """GlyphLT: LVIS v1's format, with images in `train` and `val` below `data_prefix['img']`."""
