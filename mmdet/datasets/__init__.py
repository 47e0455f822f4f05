"""Data in: annotation files as flat arrays, data sets on them, transforms, samplers, and a generator."""
from . import transforms
from .annotation_cache import load_annotation_index
from .annotation_file import read_json
from .annotation_index import AnnotationIndex
from .coco import CocoDataset
from .coco_lt import CocoLTDataset
from .glyph_lt import GlyphLTDataset
from .lvis import LVISV05Dataset, LVISV1Dataset
from .pipeline import Pipeline
from .samplers import Draw
from .wrappers import ClassBalancedDataset, ConcatDataset, RepeatDataset

__all__ = [
    'AnnotationIndex',
    'ClassBalancedDataset',
    'CocoDataset',
    'CocoLTDataset',
    'ConcatDataset',
    'Draw',
    'GlyphLTDataset',
    'LVISV05Dataset',
    'LVISV1Dataset',
    'Pipeline',
    'RepeatDataset',
    'load_annotation_index',
    'read_json',
    'transforms',
]
