"""Data in: annotation files as flat arrays, data sets on them, transforms, samplers, and a generator."""
from . import transforms
from .annotation_file import read_json
from .annotation_index import AnnotationIndex, read_annotation_index
from .coco import CocoDataset
from .coco_lt import CocoLTDataset
from .glyph_lt import GlyphLTDataset
from .lvis import LVISV05Dataset, LVISV1Dataset
from .pipeline import Pipeline
from .samplers import Draw

__all__ = [
    'AnnotationIndex',
    'CocoDataset',
    'CocoLTDataset',
    'Draw',
    'GlyphLTDataset',
    'LVISV05Dataset',
    'LVISV1Dataset',
    'Pipeline',
    'read_annotation_index',
    'read_json',
    'transforms',
]
