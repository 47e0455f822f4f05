"""Put the figures of results/ into the documents, between the marks that are there for them.

    python docs/publish.py add quickstart_seed0_amd-epyc work_dirs/quickstart/seed_0
    python docs/publish.py add cascade work_dirs/simcal_cascade/test
    python docs/publish.py add zoo work_dirs/compare/zoo.csv
    python docs/publish.py

`add NAME SOURCE` keeps a result: of a quickstart its summary.json, as results/NAME.json, of a folder where
`tools/test.py --scores base,calibrated,dual` has written figures their table, as results/NAME.csv, and a CSV file as it
is. Pictures of the first seed's quickstart go to docs/images, where documents show them. Then, as without arguments,
every marked table is written anew:

    <!-- quickstart: begin -->   the runs results/quickstart_seed*.json: in README.md the figures of the first seed,
    <!-- quickstart: end -->     elsewhere, if there are more, their mean and the gain of each
    <!-- zoo.csv: begin -->      results/zoo.csv, its cells as they are
    <!-- zoo.csv: end -->

A mark without results keeps what stands there.
"""
import csv
import json
import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever else is called mmdet

from mmdet.visualization import comparison_table

ROOT = Path(__file__).resolve().parents[1]
MARK = re.compile(r'<!-- (?P<mark>[\w.-]+): begin -->.*?<!-- (?P=mark): end -->', re.DOTALL)
RUN = re.compile(r'(?P<group>\w+)_seed(?P<seed>\d+)_(?P<processor>[\w-]+)')
SETTINGS = ('base', 'calibrated', 'dual')
PICTURES = ('plot.png', 'sheet.jpg')


class Run(NamedTuple):
    """One quickstart's result."""

    file: Path
    seed: int
    processor: str
    summary: dict

    @property
    def minutes(self) -> str:
        """Of wall time, all stages together."""
        return f'{sum(self.summary["seconds"].values()) / 60:.0f}'


def add(name: str, source: Path, root: Path = ROOT) -> None:
    """Keep a result and its pictures."""
    kept = root / 'results'
    kept.mkdir(exist_ok=True)
    if source.is_file() and source.suffix == '.csv':
        shutil.copyfile(source, kept / f'{name}.csv')
    elif all((source / f'{name}.json').is_file() for name in SETTINGS):
        write_csv(kept / f'{name}.csv', source)
    elif not (source / 'summary.json').is_file():
        sys.exit(f'{source}: is no CSV file, and no folder with a summary.json, or a base, calibrated and dual.json')
    elif match := RUN.fullmatch(name):
        shutil.copyfile(source / 'summary.json', kept / f'{name}.json')
        if runs(match['group'], root)[0].file.stem == name:
            copy_pictures(match['group'], source, root)
    else:
        sys.exit(f'{name}: a quickstart is called GROUP_seedN_PROCESSOR, for example quickstart_seed0_amd-epyc')


def write_csv(file: Path, tested: Path) -> None:
    """The table that `tools/test.py` printed, from the figures that it wrote."""
    figures = {name: json.loads((tested / f'{name}.json').read_text()) for name in SETTINGS}
    table = comparison_table({name: _with_nan(of_setting) for name, of_setting in figures.items()})
    with file.open('w', newline='') as opened:
        writer = csv.writer(opened, lineterminator='\n')
        writer.writerow(['', 'scores', *table.columns])
        writer.writerows([row.kind, row.setting, *row.figures] for row in table.rows)


def copy_pictures(group: str, source: Path, root: Path) -> None:
    """Those that documents show."""
    text = ''.join(document.read_text() for document in documents(root))
    for picture in PICTURES:
        shown = f'images/{group}_{picture}'
        if shown in text:
            (root / 'docs/images').mkdir(exist_ok=True)
            shutil.copyfile(source / picture, root / 'docs' / shown)


def publish(root: Path = ROOT) -> dict[Path, str]:
    """Every document's text, with its tables written anew."""
    texts = {}
    for document in documents(root):
        text = document.read_text()
        if len(MARK.findall(text)) != text.count(': begin -->'):
            sys.exit(f'{document}: a mark begins and does not end')
        texts[document] = text
        for match in MARK.finditer(text):
            mark = match['mark']
            if content := table(mark, document, root):
                filled = f'<!-- {mark}: begin -->\n\n{content}\n<!-- {mark}: end -->'
                texts[document] = texts[document].replace(match[0], filled)
    return texts


def documents(root: Path) -> list[Path]:
    """Those that may have marks."""
    return [root / 'README.md', *sorted((root / 'docs').glob('*.md'))]


def table(mark: str, document: Path, root: Path) -> str:
    """What belongs to a mark; empty where there is no result for it."""
    if mark.endswith('.csv'):
        file = root / 'results' / mark
        return csv_table(file) if file.exists() else ''
    of_group = runs(mark, root)
    if not of_group:
        return ''
    return run_table(of_group[0]) if document.name == 'README.md' or len(of_group) == 1 else seeds_table(of_group)


def runs(group: str, root: Path) -> list[Run]:
    """The results of a group, by seed."""
    found = []
    for file in sorted((root / 'results').glob(f'{group}_seed*.json')):
        match = RUN.fullmatch(file.stem)
        if match and match['group'] == group:
            found.append(Run(file, int(match['seed']), match['processor'], json.loads(file.read_text())))
    if len({run.seed for run in found}) < len(found):
        sys.exit(f'results/: a seed has two runs; keep one: {", ".join(run.file.name for run in found)}')
    return sorted(found, key=lambda run: run.seed)


def run_table(run: Run) -> str:
    """The figures of one run's settings and, in bold, the gain."""
    columns = list(run.summary['table']['mask']['base'])
    lines = _header(columns)
    for kind, settings in run.summary['table'].items():
        for setting, figures in settings.items():
            cells = [setting, *(_text(figures[column], '-' in setting) for column in columns)]
            lines.append([kind, *(f'**{cell}**' if '-' in setting else cell for cell in cells)])
    return f'{markdown(lines)}\nSeed {run.seed}, {run.processor}, {run.minutes} minutes in all.\n'


def seeds_table(of_group: list[Run]) -> str:
    """The mean over several runs, and the gain of each."""
    tables = [run.summary['table'] for run in of_group]
    columns = list(tables[0]['mask']['base'])
    lines = _header(columns)
    for kind, settings in tables[0].items():
        for setting in settings:
            figures = [_mean([of_run[kind][setting][column] for of_run in tables]) for column in columns]
            lines.append([kind, f'{setting}, mean', *(_text(figure, '-' in setting) for figure in figures)])
        for run, of_run in zip(of_group, tables, strict=True):
            gains = [_text(of_run[kind]['dual - base'][column], True) for column in columns]
            lines.append([kind, f'dual - base, seed {run.seed}', *gains])
    minutes = ', '.join(f'{run.minutes} ({run.processor})' for run in of_group)
    return f'{markdown(lines)}\nMinutes in all, seed by seed: {minutes}.\n'


def csv_table(file: Path) -> str:
    """A CSV file with a header; columns of figures stand to the right."""
    header, *rows = csv.reader(file.read_text().splitlines())
    are_figures = [all(re.fullmatch(r'[-+−]?[\d.]+|-|', cell) for cell in column) for column in zip(*rows, strict=True)]
    return markdown([header, ['---:' if so else '---' for so in are_figures], *rows])


def markdown(lines: list[list[str]]) -> str:
    """Lines of cells as a table."""
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines) + '\n'


def _header(columns: list[str]) -> list[list[str]]:
    return [['', 'scores', *columns], ['---', '---', *['---:'] * len(columns)]]


def _with_nan(figures: dict[str, float | None]) -> dict[str, float]:
    return {name: float('nan') if figure is None else figure for name, figure in figures.items()}


def _mean(figures: list[float | None]) -> float | None:
    """None where any is."""
    return None if None in figures else sum(figures) / len(figures)


def _text(figure: float | None, signed: bool) -> str:
    """With one decimal."""
    return '-' if figure is None else f'{figure:+.1f}' if signed else f'{figure:.1f}'


if __name__ == '__main__':
    match sys.argv[1:]:
        case ['add', name, source]:
            add(name, Path(source))
        case []:
            pass
        case _:
            sys.exit(__doc__)
    for document, text in publish().items():
        document.write_text(text)
