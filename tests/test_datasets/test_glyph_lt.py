"""GlyphLT: the same bytes from the same seed, LVIS's format, a long tail, shapes that can be told apart."""
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from lvis import LVIS
from matplotlib.ft2font import FT2Font

from mmdet.datasets.generation import generate_glyph_lt
from mmdet.datasets.generation.glyph_lt import power_law_counts
from mmdet.datasets.generation.glyphs import CATALOGUE, CATALOGUES, DISTINCT, FONT, glyph_name, glyph_shape
from mmdet.datasets.generation.likeness import LIMIT, candidates, distinct_glyphs, likeness
from mmdet.datasets.generation.scenes import SceneObject, paint_scene
from mmdet.engine import load_config
from mmdet.errors import ConfigError
from mmdet.registry import DATASETS
from mmdet.utils.seeding import keyed_generator

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SMALL = dict(classes=12, train_images=40, val_images=30)


@pytest.fixture(scope='module')
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp('glyph_lt')
    summary = generate_glyph_lt(folder, seed=0, **SMALL)
    return folder, summary


def read(folder, split):
    return json.loads((folder / f'annotations/glyph_lt_{split}.json').read_text())


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob('*.*'))}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(generated, tmp_path):
    folder, _ = generated
    generate_glyph_lt(tmp_path / 'again', seed=0, **SMALL)
    generate_glyph_lt(tmp_path / 'other', seed=1, **SMALL)
    assert contents(folder) == contents(tmp_path / 'again')
    assert len(contents(folder)) == 72
    same = [name for name, data in contents(tmp_path / 'other').items() if contents(folder)[name] == data]
    assert not same


def test_training_and_validation_are_different_scenes(generated):
    folder, _ = generated
    pictures = [path.read_bytes() for path in (folder / 'images').rglob('*.jpg')]
    assert len(pictures) == 70 == len(set(pictures))


def test_the_official_api_reads_it(generated):
    folder, _ = generated
    lvis = LVIS(folder / 'annotations/glyph_lt_val.json')
    for annotation in lvis.load_anns(lvis.get_ann_ids()):
        mask = lvis.ann_to_mask(annotation)
        rows, columns = np.nonzero(mask)
        x, y, width, height = annotation['bbox']
        assert columns.min() == pytest.approx(x, abs=1) and columns.max() + 1 == pytest.approx(x + width, abs=1)
        assert rows.min() == pytest.approx(y, abs=1) and rows.max() + 1 == pytest.approx(y + height, abs=1)
        assert mask.sum() == pytest.approx(annotation['area'], rel=0.1, abs=8) and annotation['area'] > 50


def test_categories_tell_of_the_training_split(generated):
    folder, summary = generated
    train, val = read(folder, 'train'), read(folder, 'val')
    assert train['categories'] == val['categories']
    instances = Counter(annotation['category_id'] for annotation in train['annotations'])
    images = Counter(c for _, c in {(a['image_id'], a['category_id']) for a in train['annotations']})
    for category in train['categories']:
        assert category['instance_count'] == instances[category['id']] >= 1
        assert category['image_count'] == images[category['id']]
        assert category['frequency'] == ('r' if category['image_count'] <= 10 else 'c')
        assert set(category) >= {'name', 'synset', 'synonyms'}
    assert f'train 40 images, {len(train["annotations"])} instances' in summary and '\n' not in summary


def test_federated_lists(generated):
    folder, _ = generated
    for split in ('train', 'val'):
        content = read(folder, split)
        present = {image['id']: set() for image in content['images']}
        for annotation in content['annotations']:
            present[annotation['image_id']].add(annotation['category_id'])
        negatives = Counter()
        for image in content['images']:
            assert not present[image['id']] & set(image['neg_category_ids'])
            assert set(image['not_exhaustive_category_ids']) <= present[image['id']]
            negatives.update(image['neg_category_ids'])
        assert len(negatives) >= 11
    assert any(image['not_exhaustive_category_ids'] for image in read(folder, 'train')['images'])


def test_every_class_can_be_measured(generated):
    folder, _ = generated
    counts = Counter(annotation['category_id'] for annotation in read(folder, 'val')['annotations'])
    assert len(counts) == 12 and min(counts.values()) >= 10


def test_the_data_set_reads_it(generated):
    folder, _ = generated
    dataset = DATASETS.build(
        dict(
            type='GlyphLTDataset',
            data_root=str(folder),
            ann_file='annotations/glyph_lt_train.json',
            data_prefix=dict(img='images/'),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', with_mask=True, poly2mask=False),
                dict(type='PackDetInputs'),
            ],
        )
    )
    sample = dataset[3]
    assert len(dataset) == 40 and sample['inputs'].shape == (3, 128, 128)
    assert len(sample['data_samples'].gt_instances.masks) >= 1
    frequency = dataset.class_frequency()
    assert frequency.instance_count.tolist() == [c['instance_count'] for c in read(folder, 'train')['categories']]


def test_the_long_tail_at_full_size():
    counts = power_law_counts(60, 1.0)
    assert counts[0] > 1000 and counts[-1] in (1, 2) and (np.diff(counts) <= 0).all()
    assert 1 / 4 <= (counts <= 10).mean() <= 1 / 3 and (counts > 100).mean() >= 1 / 4
    assert 7000 < counts.sum() < 11000


def test_the_400_classes_at_full_size():
    """As many as the config asks for: over 1,100 instances to 1, a third rare, and validation that measures each."""
    generation = load_config(CONFIGS / 'glyph_lt400/simcal.py').generation
    classes, images = generation['classes'], generation['train_images']
    counts = power_law_counts(classes, images * 60 / classes / 1400)
    assert classes == 400 and 9000 <= images <= 9500
    assert counts[0] > 1100 and counts[-1] == 1 and (np.diff(counts) <= 0).all()
    assert 0.32 < (counts <= 10).mean() < 0.35 and (counts > 100).mean() > 0.3
    assert 60_000 < counts.sum() < 63_000
    assert generation['val_images'] * 5 / classes >= 15


def test_a_sample_of_the_400_classes(tmp_path):
    """All are there, and each is annotated or looked for in some image."""
    generate_glyph_lt(tmp_path, classes=400, train_images=100, val_images=80, catalogue='distinct')
    train, val = read(tmp_path, 'train'), read(tmp_path, 'val')
    assert [category['synonyms'] for category in train['categories']] == [[glyph] for glyph in DISTINCT]
    assert len({category['name'] for category in train['categories']}) == 400
    assert 6 < len(train['annotations']) / 100 < 12
    assert max(annotation['category_id'] for annotation in val['annotations']) > 390
    for image in val['images']:
        assert 60 < len(image['neg_category_ids']) < 140


def test_images_are_equally_full_whatever_the_number_of_classes(tmp_path):
    """The 60 classes of 1,400 images set the pace."""
    assert sum(power_law_counts(60, 1.0)) / 1400 == pytest.approx(6.6, abs=0.01)
    for classes in (20, 60):
        generate_glyph_lt(tmp_path / str(classes), classes=classes, train_images=classes, val_images=1)
        assert 5 < len(read(tmp_path / str(classes), 'train')['annotations']) / classes < 9


@pytest.mark.slow
def test_ranks_do_not_follow_looks(tmp_path):
    """Another seed gives each class another count."""
    ranks = []
    for seed in (0, 1):
        generate_glyph_lt(tmp_path / str(seed), seed, classes=30, train_images=50, val_images=1)
        ranks.append([c['instance_count'] for c in read(tmp_path / str(seed), 'train')['categories']])
    assert abs(np.corrcoef(np.log(ranks))[0, 1]) < 0.6
    assert abs(np.corrcoef(np.log(ranks[0]), np.arange(30))[0, 1]) < 0.6


@pytest.mark.parametrize(('name', 'number'), [('pictographs', 60), ('distinct', 400)])
def test_the_catalogues_are_in_the_font_and_named(name, number):
    characters, catalogue = FT2Font(str(FONT)).get_charmap(), CATALOGUES[name]
    assert len(set(catalogue)) == len(catalogue) >= number
    assert all(ord(character) in characters for character in catalogue)
    names = [glyph_name(character) for character in catalogue]
    assert len(set(names)) == len(names) and 'black_chess_knight' in names


@pytest.mark.parametrize('name', CATALOGUES)
def test_objects_are_solid_with_strokes_inside(name):
    for character in CATALOGUES[name]:
        shape = glyph_shape(character)
        body = shape.body > 127
        assert body[shape.strokes > 127].all(), character
        _, _, statistics, _ = cv2.connectedComponentsWithStats((~body).astype(np.uint8))
        assert len(statistics) == 2, f'{character} has a hole'
        depth = cv2.distanceTransform(body.astype(np.uint8), cv2.DIST_L2, 5).max()
        assert body.mean() > 0.08 and depth > 9, f'{character} is too thin'


def picture(character, angle=0):
    """Body and strokes at 24 pixels, as a unit vector without mean."""
    shape = glyph_shape(character)
    turn = cv2.getRotationMatrix2D((96, 96), angle, 1)
    layers = cv2.warpAffine(np.dstack([shape.body, shape.strokes]).astype(np.float32), turn, (192, 192))
    small = cv2.GaussianBlur(cv2.resize(layers, (24, 24), interpolation=cv2.INTER_AREA), (0, 0), 1)
    vector = ((small - small.mean(axis=(0, 1))) * (1, 1.5)).ravel()
    return vector / np.linalg.norm(vector)


def likeness_within_30_degrees(one, other):
    """The largest correlation of two glyphs' pictures as one of them is turned by up to 30 degrees."""
    return max(picture(one, angle) @ picture(other) for angle in range(-30, 31, 10))


def test_default_classes_can_be_told_apart():
    for near_duplicates in ('😀😃', '☺☹', '✏✒', '♠♣', '🂡🂭'):
        assert likeness_within_30_degrees(*near_duplicates) > 0.95
    default = CATALOGUE[:60]
    upright = np.stack([picture(character) for character in default])
    for angle in range(-30, 31, 10):
        alike = np.stack([picture(character, angle) for character in default]) @ upright.T
        np.fill_diagonal(alike, 0)
        assert alike.max() < 0.95, [default[i] for i in np.unravel_index(alike.argmax(), alike.shape)]


@pytest.mark.parametrize('pair', ['😀😃', '✏✒', '♠♣', '☀☼', '→➙', '↑↗', 'bd', 'АA', '⋀∧'])
def test_near_doubles_are_left_out(pair):
    """Also those that a turn or a mirror image makes doubles."""
    assert distinct_glyphs(pair, 2) == pair[0]


@pytest.mark.parametrize('pair', ['☀☁', '☂☔', '♠♤', '↑↓', '↑→', '69', 'bk', '▲△'])
def test_what_can_be_told_apart_stays(pair):
    assert distinct_glyphs(pair, 2) == pair


def test_the_400_glyphs_are_chosen_by_the_rule():
    """The first of them, by choosing; a sample of all of them, by comparing each with every one before it."""
    assert distinct_glyphs(candidates(), 12) == DISTINCT[:12]
    for place in range(79, 400, 80):
        assert likeness(DISTINCT[place], DISTINCT[:place]) < LIMIT, DISTINCT[place]


@pytest.mark.parametrize('seed', range(4))
def test_polygons_cover_what_is_visible(seed):
    """The last object painted lies on top of the others; what they show is theirs."""
    objects = [SceneObject(glyph_shape(character), 40.0) for character in '♞☁⚓☂']
    image, outlines = paint_scene(objects, 128, keyed_generator(seed))
    assert image.shape == (128, 128, 3) and image.dtype == np.uint8
    covered = np.zeros((128, 128), int)
    for outline in outlines:
        assert outline
        mask = np.zeros((128, 128), np.uint8)
        for part in outline:
            assert part.min() >= 0 and part.max() <= 128
            one = np.zeros_like(mask)
            cv2.fillPoly(one, [np.round((part - 0.5) * 16).astype(np.int32)], 1, shift=4)
            mask |= cv2.erode(one, np.ones((3, 3), np.uint8))
        covered += mask
    assert covered.max() == 1


@pytest.mark.parametrize(
    'wrong',
    [
        dict(seed=-1),
        dict(classes=1),
        dict(classes=500),
        dict(classes=401, catalogue='distinct'),
        dict(catalogue='letters'),
        dict(train_images=0),
        dict(image_size=8),
    ],
)
def test_numbers_out_of_range(tmp_path, wrong):
    with pytest.raises(ConfigError, match='GlyphLT'):
        generate_glyph_lt(tmp_path / 'out', **wrong)
    assert not (tmp_path / 'out').exists()


def test_the_command(tmp_path, run_tool):
    sizes = '--classes 5 --train-images 6 --val-images 4 --image-size 96'.split()
    status, printed, _ = run_tool('dataset_converters/glyph_lt.py', tmp_path / 'out', *sizes)
    assert status == 0 and printed.count('\n') == 1 and '5 classes' in printed
    status, _, complaint = run_tool('dataset_converters/glyph_lt.py', tmp_path / 'no', '--classes', '1000')
    assert status == 2 and complaint.startswith('error: GlyphLT: 1000 classes') and complaint.count('\n') == 1
    (tmp_path / 'file').write_text('')
    status, _, complaint = run_tool('dataset_converters/glyph_lt.py', tmp_path / 'file', *sizes)
    assert status == 2 and complaint.startswith(f'error: {tmp_path}/file/') and complaint.count('\n') == 1
