"""Samplers: which image comes next, and for which class. All of them yield `Draw`s."""
from .aspect_ratio import AspectRatioBatchSampler
from .bi_level import BiLevelSampler, BiLevelStream
from .class_aware import ClassAwareSampler
from .draw import Draw
from .image_samplers import DefaultSampler, InfiniteSampler
from .stream_sampler import ImageSampler, StreamSampler

__all__ = [
    'AspectRatioBatchSampler',
    'BiLevelSampler',
    'BiLevelStream',
    'ClassAwareSampler',
    'DefaultSampler',
    'Draw',
    'ImageSampler',
    'InfiniteSampler',
    'StreamSampler',
]
