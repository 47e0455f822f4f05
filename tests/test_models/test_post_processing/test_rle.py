"""Run lengths from switches against pycocotools' encoder."""
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from mmdet.models.post_processing.rle import rle_from_switches, switches_of_columns


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 4), st.integers(1, 12), st.integers(1, 12), st.sampled_from([0.02, 0.5, 0.98]), st.randoms())
def test_any_bitmaps_encode_as_pycocotools_does(count, height, width, density, random):
    generator = np.random.default_rng(random.randrange(2**31))
    bitmaps = generator.random((count, height, width)) < density
    columns = generator.permutation(width)
    switches = [switches_of_columns(bitmap[:, columns], 0, columns, height) for bitmap in bitmaps]
    owners = np.repeat(np.arange(count), [len(positions) for positions in switches])
    positions = np.concatenate([np.zeros(0, dtype=np.int64), *switches])
    expected = [coco_mask.encode(np.asfortranarray(bitmap, dtype=np.uint8)) for bitmap in bitmaps]
    assert rle_from_switches(owners, positions, count, (height, width)) == expected


def test_large_images_need_large_runs():
    bitmap = np.zeros((3000, 4000), dtype=np.uint8, order='F')
    bitmap[2990:, 3990:] = 1
    columns = np.arange(3990, 4000)
    positions = switches_of_columns(np.ones((10, 10), dtype=bool), 2990, columns, 3000)
    assert rle_from_switches(np.zeros_like(positions), positions, 1, (3000, 4000)) == [coco_mask.encode(bitmap)]
