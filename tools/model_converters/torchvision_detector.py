"""Turn torchvision's Faster or Mask R-CNN (ResNet-50-FPN, either version) into a checkpoint of this project."""
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever else is called mmdet

from mmdet.engine import run_tool
from mmdet.model_converters import convert_torchvision, read_class_names


def parse_args() -> Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('detector', metavar='TORCHVISION.pth', help='a state dict, or what its train.py saves')
    parser.add_argument('out', metavar='OUT.pth', help='where the checkpoint goes')
    parser.add_argument('--classes', metavar='FILE', help='names, one a line, in the order of its labels 1, 2, ...')
    parser.add_argument(
        '--num-classes',
        type=int,
        metavar='C',
        help="classes without background, all of them kept (by default 91 rows are taken for COCO's 80 classes)",
    )
    parser.add_argument(
        '--bn-eps',
        type=float,
        metavar='EPS',
        help='what its batch norms add to the variance (default: 0 where they are frozen, else 1e-5)',
    )
    return parser.parse_args()


def main() -> None:
    """Convert, and say with which config the checkpoint goes."""
    args = parse_args()
    classes = None if args.classes is None else read_class_names(args.classes)
    found = convert_torchvision(args.detector, args.out, classes, args.num_classes, args.bn_eps)
    print(f'{args.out}: {found["num_classes"]} classes, eps of batch norms {found["bn_eps"]:g}; use {found["config"]}')


if __name__ == '__main__':
    run_tool(main)
