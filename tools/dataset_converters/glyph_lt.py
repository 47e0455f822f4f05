"""Generate GlyphLT, the small long-tail data set this project tries itself on."""
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever else is called mmdet

from mmdet.datasets.generation import generate_glyph_lt
from mmdet.engine import run_tool


def parse_args() -> Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('out_dir', help='where annotations/ and images/ go')
    parser.add_argument('--seed', type=int, default=0, help='the same seed gives the same bytes')
    parser.add_argument('--classes', type=int, default=60)
    parser.add_argument('--train-images', type=int, default=1400)
    parser.add_argument('--val-images', type=int, default=360)
    parser.add_argument('--image-size', type=int, default=128, help='height and width in pixels')
    parser.add_argument('--catalogue', default='pictographs', help='pictographs, or distinct: for 400 classes')
    return parser.parse_args()


def main() -> None:
    """Generate, and print one line."""
    print(generate_glyph_lt(**vars(parse_args())))


if __name__ == '__main__':
    run_tool(main)
