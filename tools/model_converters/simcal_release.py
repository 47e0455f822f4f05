"""Turn a released SimCal detector and its calibrated heads into one checkpoint of this project.

Without a head it turns any two-stage checkpoint of mmdetection 1.x or 2.x into one of this project.
"""
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever else is called mmdet

from mmdet.engine import run_tool
from mmdet.model_converters import convert_simcal_release, count_annotations, read_counts


def parse_args() -> Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('detector', metavar='DETECTOR.pth', help='a two-stage checkpoint of mmdetection 1.x or 2.x')
    parser.add_argument(
        'heads', metavar='HEAD.pth', nargs='*', help='its calibrated heads: one, or of a cascade one for each stage'
    )
    parser.add_argument('out', metavar='OUT.pth', help='where the checkpoint goes')
    counts = parser.add_mutually_exclusive_group()
    counts.add_argument(
        '--train-annotations', metavar='JSON', help='training annotations, whose instances are counted'
    )
    counts.add_argument(
        '--counts', metavar='JSON', help='these counts: "categories" with instance_count and image_count or image_ids'
    )
    parser.add_argument(
        '--threshold',
        type=int,
        default=100,
        metavar='T',
        help='classes with fewer than T training instances take calibrated scores (100, as on LVIS; on COCO-LT 400)',
    )
    return parser.parse_intermixed_args()


def main() -> None:
    """Convert, and say what was found."""
    args = parse_args()
    counts = None
    if args.train_annotations is not None:
        counts = count_annotations(args.train_annotations)
    elif args.counts is not None:
        counts = read_counts(args.counts)
    found = convert_simcal_release(args.detector, args.heads, args.out, counts, args.threshold)
    print(f'{args.detector}: mmdetection {found.detector.version}: {found.detector.reason}')
    if found.left_aside:
        print(f'not read, as it is not data: {", ".join(found.left_aside)}')
    stages = f'{found.num_stages} stages' if found.num_stages > 1 else 'one stage'
    calibrated = f'calibrated by {found.head}, T = {args.threshold}' if found.head else 'not calibrated'
    print(f'{args.out}: {found.num_classes} classes, {stages}, {calibrated}')


if __name__ == '__main__':
    run_tool(main)
