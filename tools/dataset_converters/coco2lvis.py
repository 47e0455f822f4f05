"""Turn a COCO-format annotation file into LVIS format, for LVIS's metrics and class frequencies."""
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever else is called mmdet

from mmdet.datasets.conversion import coco_to_lvis
from mmdet.engine import run_tool


def parse_args() -> Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('coco_json', help='COCO-format annotations: .json, .json.gz or .json.zip')
    parser.add_argument('lvis_json', help='where the LVIS-format file goes: .json or .json.gz')
    parser.add_argument(
        '--train', metavar='JSON', help='the training annotations, for the counts and frequencies of a validation file'
    )
    return parser.parse_args()


def main() -> None:
    """Convert, and print one line."""
    args = parse_args()
    print(coco_to_lvis(args.coco_json, args.lvis_json, args.train))


if __name__ == '__main__':
    run_tool(main)
