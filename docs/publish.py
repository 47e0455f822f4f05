"""Put what quickstarts have come to into the documents, between the marks that are there for it.

    python docs/publish.py readme work_dirs/quickstart/seed_0
    python docs/publish.py seeds quickstart work_dirs/quickstart/seed_*
    python docs/publish.py seeds glyph_lt work_dirs/glyph_lt/seed_*
"""
import json
import re
import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent


def publish_run(work_dir: Path) -> None:
    """A run's table into the README, its pictures beside it."""
    images = DOCS / 'images'
    images.mkdir(exist_ok=True)
    for name in ('plot.png', 'sheet.jpg'):
        shutil.copyfile(work_dir / name, images / f'quickstart_{name}')
    fill(DOCS.parent / 'README.md', 'quickstart', (work_dir / 'table.md').read_text())


def publish_seeds(mark: str, work_dirs: list[Path]) -> None:
    """The mean table of several runs, and the gain of each, into glyph_lt.md."""
    summaries = [json.loads((work_dir / 'summary.json').read_text()) for work_dir in work_dirs]
    columns = list(summaries[0]['table']['mask']['base'])
    lines = [['', 'scores', *columns], ['---', '---', *['---:'] * len(columns)]]
    for kind, settings in summaries[0]['table'].items():
        for setting in settings:
            figures = [mean([summary['table'][kind][setting][column] for summary in summaries]) for column in columns]
            lines.append([kind, f'{setting}, mean', *(text(figure, '-' in setting) for figure in figures)])
        for summary in summaries:
            gains = [text(summary['table'][kind]['dual - base'][column], True) for column in columns]
            lines.append([kind, f'dual - base, seed {summary["seed"]}', *gains])
    minutes = ', '.join(f'{sum(summary["seconds"].values()) / 60:.0f}' for summary in summaries)
    table = '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
    fill(DOCS / 'glyph_lt.md', mark, f'{table}\n\nMinutes in all, seed by seed: {minutes}.\n')


def mean(figures: list[float | None]) -> float | None:
    """None where any is."""
    return None if None in figures else sum(figures) / len(figures)


def text(figure: float | None, signed: bool) -> str:
    """With one decimal."""
    return '-' if figure is None else f'{figure:+.1f}' if signed else f'{figure:.1f}'


def fill(document: Path, mark: str, content: str) -> None:
    """Replace what stands between `<!-- MARK: begin -->` and `<!-- MARK: end -->`."""
    begin, end = f'<!-- {mark}: begin -->', f'<!-- {mark}: end -->'
    between = re.compile(f'{begin}.*?{end}', re.DOTALL)
    filled, count = between.subn(lambda _: f'{begin}\n\n{content}\n{end}', document.read_text())
    if count != 1:
        sys.exit(f'{document}: has no marks {begin} ... {end}')
    document.write_text(filled)


if __name__ == '__main__':
    match sys.argv[1:]:
        case ['readme', work_dir]:
            publish_run(Path(work_dir))
        case ['seeds', mark, *work_dirs] if work_dirs:
            publish_seeds(mark, [Path(work_dir) for work_dir in work_dirs])
        case _:
            sys.exit(__doc__)
