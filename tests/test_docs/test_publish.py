"""Tables in the documents are what results/ say."""
import importlib.util
import json
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / 'docs/publish.py'
SPEC = importlib.util.spec_from_file_location('publish', FILE)
publish = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(publish)


@pytest.fixture
def root(tmp_path):
    """A project with a README, a document, and one mark of a kind in each."""
    (tmp_path / 'docs').mkdir()
    (tmp_path / 'README.md').write_text(
        'A\n<!-- quick: begin -->\nold\n<!-- quick: end -->\n![](docs/images/quick_plot.png)\n'
    )
    (tmp_path / 'docs/more.md').write_text(
        'B\n<!-- quick: begin --><!-- quick: end -->\n<!-- zoo.csv: begin -->\n<!-- zoo.csv: end -->\n'
    )
    return tmp_path


def quickstart(folder, seed, base, dual):
    """A finished quickstart's folder with one column of figures."""
    folder.mkdir(parents=True)
    gain = None if base is None else dual - base
    settings = {'base': dict(AP=base), 'dual': dict(AP=dual), 'dual - base': dict(AP=gain)}
    summary = dict(seed=seed, table=dict(mask=settings), seconds=dict(train=500.0, test=130.0))
    (folder / 'summary.json').write_text(json.dumps(summary))
    for picture in ('plot.png', 'sheet.jpg'):
        (folder / picture).write_bytes(f'{picture} of {seed}'.encode())
    return folder


def published(root):
    return {path.name: text for path, text in publish.publish(root).items()}


def test_the_readme_shows_the_first_seed_and_other_documents_the_mean(root):
    for seed, base, dual in ((1, 20.0, 24.0), (0, 10.0, 11.0)):
        publish.add(f'quick_seed{seed}_amd', quickstart(root / f'runs/{seed}', seed, base, dual), root)
    readme, document = published(root)['README.md'], published(root)['more.md']
    assert '| mask | **dual - base** | **+1.0** |' in readme and '24.0' not in readme and 'old' not in readme
    assert 'Seed 0, amd, 10 minutes in all.' in readme
    for line in ('base, mean | 15.0', 'dual, mean | 17.5', 'dual - base, mean | +2.5', 'dual - base, seed 1 | +4.0'):
        assert f'| mask | {line} |' in document
    assert 'seed by seed: 10 (amd), 10 (amd)' in document


def test_writing_again_changes_nothing(root):
    publish.add('quick_seed0_amd', quickstart(root / 'run', 0, 1.0, 2.0), root)
    (root / 'results/zoo.csv').write_text('method,APr\nNorCal,+1.0\n')
    for document, text in publish.publish(root).items():
        document.write_text(text)
    assert all(document.read_text() == text for document, text in publish.publish(root).items())
    assert '| --- | ---: |\n| NorCal | +1.0 |' in (root / 'docs/more.md').read_text()


def test_pictures_are_the_first_seeds_and_only_those_that_are_shown(root):
    for seed in (1, 0, 2):
        publish.add(f'quick_seed{seed}_amd', quickstart(root / f'runs/{seed}', seed, 1.0, 2.0), root)
    assert [path.name for path in (root / 'docs/images').iterdir()] == ['quick_plot.png']
    assert (root / 'docs/images/quick_plot.png').read_text() == 'plot.png of 0'


def test_figures_of_a_test_become_a_csv_file(root):
    folder = root / 'test'
    folder.mkdir()
    for setting, figure in (('base', 0.1), ('calibrated', 0.25), ('dual', 0.3)):
        figures = {'lvis/segm_AP': figure, 'lvis/segm_APr': None}
        (folder / f'{setting}.json').write_text(json.dumps(figures))
    publish.add('zoo', folder, root)
    assert (root / 'results/zoo.csv').read_text().splitlines() == [
        ',scores,APr,AP', 'mask,base,-,10.0', 'mask,calibrated,-,25.0', 'mask,dual,-,30.0', 'mask,dual − base,-,+20.0',
    ]  # fmt: skip
    assert '| mask | dual − base | - | +20.0 |' in published(root)['more.md']


def test_a_figure_that_is_missing_is_a_dash(root):
    for seed, base in ((0, 1.0), (1, None)):
        publish.add(f'quick_seed{seed}_amd', quickstart(root / f'runs/{seed}', seed, base, 2.0), root)
    assert '| mask | base, mean | - |' in published(root)['more.md']


def test_marks_without_results_keep_what_they_have(root):
    texts = published(root)
    assert texts == {path.name: path.read_text() for path in (root / 'README.md', root / 'docs/more.md')}


def test_mistakes_are_one_line(root):
    run = quickstart(root / 'run', 0, 1.0, 2.0)
    with pytest.raises(SystemExit, match='^quick: a quickstart is called GROUP_seedN_PROCESSOR'):
        publish.add('quick', run, root)
    with pytest.raises(SystemExit, match='is no CSV file, and no folder'):
        publish.add('zoo', root / 'docs', root)
    publish.add('quick_seed0_amd', run, root)
    with pytest.raises(SystemExit, match='a seed has two runs; keep one: quick_seed0_amd.json, quick_seed0_xeon.json'):
        publish.add('quick_seed0_xeon', run, root)
    (root / 'results/quick_seed0_xeon.json').unlink()
    (root / 'docs/more.md').write_text('<!-- quick: begin -->\nand no end')
    with pytest.raises(SystemExit, match='more.md: a mark begins and does not end'):
        publish.publish(root)


def test_the_documents_agree_with_the_results():
    """Whoever changes a table by hand, or a result without publishing it, hears of it."""
    for document, text in publish.publish().items():
        assert document.read_text() == text, f'{document}: run docs/publish.py'
