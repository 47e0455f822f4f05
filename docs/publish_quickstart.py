"""Put a quickstart's table and pictures into the README: `python docs/publish_quickstart.py WORK_DIR`."""
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = '<!-- quickstart table: begin -->', '<!-- quickstart table: end -->'


def main(work_dir: Path) -> None:
    """Copy the pictures to docs/images and the table between its two marks."""
    images = ROOT / 'docs/images'
    images.mkdir(exist_ok=True)
    for name in ('plot.png', 'sheet.jpg'):
        shutil.copyfile(work_dir / name, images / f'quickstart_{name}')
    readme = ROOT / 'README.md'
    table = f'{BEGIN}\n\n{(work_dir / "table.md").read_text()}\n{END}'
    text = re.sub(f'{BEGIN}.*?{END}', lambda _: table, readme.read_text(), count=1, flags=re.DOTALL)
    readme.write_text(text)


if __name__ == '__main__':
    main(Path(sys.argv[1]))
