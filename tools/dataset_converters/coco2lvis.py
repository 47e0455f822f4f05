"""Turn a COCO-format annotation file into LVIS format, for LVIS's metrics and class frequencies."""
import argparse
import sys

from mmdet.datasets.conversion import coco_to_lvis
from mmdet.errors import UserError, one_line


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('coco_json', help='COCO-format annotations: .json, .json.gz or .json.zip')
    parser.add_argument('lvis_json', help='where the LVIS-format file goes: .json or .json.gz')
    parser.add_argument(
        '--train', metavar='JSON', help='the training annotations, for the counts and frequencies of a validation file'
    )
    return parser.parse_args()


def main() -> int:
    """Convert, and print one line."""
    args = parse_args()
    try:
        print(coco_to_lvis(args.coco_json, args.lvis_json, args.train))
    except UserError as error:
        print(one_line(error), file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
