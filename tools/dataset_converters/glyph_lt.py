"""Generate GlyphLT, the small long-tail data set this project tries itself on."""
import argparse
import sys

from mmdet.datasets.generation import generate_glyph_lt
from mmdet.errors import UserError, one_line


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out_dir', help='where annotations/ and images/ go')
    parser.add_argument('--seed', type=int, default=0, help='the same seed gives the same bytes')
    parser.add_argument('--classes', type=int, default=60)
    parser.add_argument('--train-images', type=int, default=1400)
    parser.add_argument('--val-images', type=int, default=360)
    parser.add_argument('--image-size', type=int, default=128, help='height and width in pixels')
    return parser.parse_args()


def main() -> int:
    """Generate, and print one line."""
    try:
        print(generate_glyph_lt(**vars(parse_args())))
    except UserError as error:
        print(one_line(error), file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
