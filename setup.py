"""Installs the `mmdet` package; `pip install -e .[dev]` adds what the tests need."""
import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

setup(
    name='simcal',
    version=re.search(r"__version__ = '(.+)'", (HERE / 'mmdet/__init__.py').read_text())[1],
    description='Long-tail instance segmentation by classifier calibration (SimCal), on mmdetection conventions',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['mmdet', 'mmdet.*']),
    install_requires=[
        'torch>=2.6',
        'torchvision>=0.21',
        'onedl-mmengine>=0.10.12',
        'onedl-mmcv>=2.3.6',
        'hotcoco>=1.3.0,<2',
        'pycocotools>=2.0.8',
        'lvis>=0.5.3',
        'numpy>=1.26',
        'opencv-python>=4.9',
        'matplotlib>=3.8',
        'msgspec>=0.19',
        'rich>=13',
    ],
    extras_require={
        'dev': ['pytest>=8', 'hypothesis>=6.120', 'ruff>=0.6', 'timm>=1.0'],
        'tensorboard': ['tensorboard>=2.16'],
        'timm': ['timm>=1.0'],
    },
)
