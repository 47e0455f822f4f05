"""A small COCO-format data set, written anew for each test, to be spoilt at will."""
import json
import logging
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


def rectangle(x, y, width, height):
    """Segmentation and box of an axis-parallel rectangle."""
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return dict(segmentation=[corners], bbox=[x, y, width, height], area=width * height)


class TinyCoco:
    """Three images (60 wide, 40 high; 40 x 60; 60 x 40 without annotations) and three classes, ids 7, 3, 5."""

    def __init__(self, root):
        self.root = root
        rng = np.random.default_rng(0)
        self.content = dict(
            images=[
                dict(id=11, file_name='a.png', width=60, height=40),
                dict(id=4, file_name='b.jpg', width=40, height=60),
                dict(id=9, file_name='c.png', width=60, height=40),
            ],
            categories=[dict(id=7, name='cup'), dict(id=3, name='cat'), dict(id=5, name='car')],
            annotations=[
                dict(id=1, image_id=11, category_id=3, **rectangle(5, 6, 20.5, 10.25)),
                dict(id=2, image_id=4, category_id=7, **rectangle(1, 2, 30, 40)),
                dict(id=3, image_id=11, category_id=7, **rectangle(30, 10, 20, 25)),
                dict(id=4, image_id=4, category_id=3, iscrowd=1, **rectangle(0, 0, 40, 20)),
            ],
        )
        (root / 'images').mkdir()
        for image in self.content['images']:
            shape = image['height'], image['width'], 3
            cv2.imwrite(str(root / 'images' / image['file_name']), rng.integers(0, 256, shape, dtype=np.uint8))

    @property
    def annotations(self):
        return self.content['annotations']

    def write(self, name='tiny.json'):
        """Write the annotation file; returns its path."""
        path = self.root / name
        path.write_text(json.dumps(self.content))
        return path

    def many(self, count=200):
        """Add so many good annotations that one bad one is an exception."""
        for i in range(count):
            self.annotations.append(dict(id=100 + i, image_id=11, category_id=3, **rectangle(5, 6, 20, 10)))


@pytest.fixture
def tiny(tmp_path):
    return TinyCoco(tmp_path)


@pytest.fixture
def warnings_logged(monkeypatch):
    """The messages of warnings given while data sets are built."""
    messages = []

    def record(message, logger=None, level=logging.INFO):
        if level >= logging.WARNING:
            messages.append(message)

    for module in ('coco', 'annotation_cache', 'conversion'):
        monkeypatch.setattr(f'mmdet.datasets.{module}.print_log', record)
    return messages


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Runs a script below tools/ as its command line would: exit status, what it printed, what it complained of."""

    def run(script, *args):
        monkeypatch.setattr(sys, 'argv', [script, *map(str, args)])
        monkeypatch.setattr(sys, 'path', list(sys.path))
        status = 0
        try:
            runpy.run_path(str(TOOLS / script), run_name='__main__')
        except SystemExit as stopped:
            status = stopped.code
        return status, *capsys.readouterr()

    return run
