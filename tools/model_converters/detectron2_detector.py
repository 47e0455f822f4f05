"""Turn detectron2's Mask R-CNN with FPN (R50, R101, X101-32x8d; COCO or LVIS) into a checkpoint of this project."""
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever else is called mmdet

from mmdet.engine import run_tool
from mmdet.model_converters import convert_detectron2, read_class_names


def parse_args() -> Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('detector', metavar='DETECTRON2.pkl|.pth', help='of the model zoo, or what its training saves')
    parser.add_argument('out', metavar='OUT.pth', help='where the checkpoint goes')
    parser.add_argument('--classes', metavar='FILE', help='names, one a line, in the order of its labels')
    return parser.parse_args()


def main() -> None:
    """Convert, and say with which config the checkpoint goes."""
    args = parse_args()
    classes = None if args.classes is None else read_class_names(args.classes)
    found = convert_detectron2(args.detector, args.out, classes)
    print(f'{args.out}: {found["num_classes"]} classes; use {found["config"]}')


if __name__ == '__main__':
    run_tool(main)
