"""Turn a released detector of SimCal with its calibrated heads, or one of BAGS, into a checkpoint of this project.

Without a head it turns any two-stage checkpoint of mmdetection 1.x or 2.x into one of this project.
"""
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever else is called mmdet

from mmdet.engine import run_tool
from mmdet.model_converters import convert_simcal_release, count_annotations, read_counts
from mmdet.model_converters.release import Converted


def parse_args() -> Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('detector', metavar='DETECTOR.pth', help='a two-stage checkpoint of mmdetection 1.x or 2.x')
    parser.add_argument(
        'heads', metavar='HEAD.pth', nargs='*', help='its calibrated heads: one, or of a cascade one for each stage'
    )
    parser.add_argument('out', metavar='OUT.pth', help='where the checkpoint goes')
    parser.add_argument(
        '--base',
        metavar='BASE.pth',
        help="of a detector of BAGS: the one it began from, for the base's scores beside those of BAGS",
    )
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
        metavar='T',
        help='of SimCal: classes with fewer than T training instances take calibrated scores (100, as on LVIS; on '
        'COCO-LT 400)',
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
    found = convert_simcal_release(args.detector, args.heads, args.out, counts, args.threshold, args.base)
    print(f'{args.detector}: mmdetection {found.detector.version}: {found.detector.reason}')
    if found.left_aside:
        print(f'not read, as it is not data: {", ".join(found.left_aside)}')
    stages = f'{found.num_stages} stages' if found.num_stages > 1 else 'one stage'
    print(f'{args.out}: {found.num_classes} classes, {stages}, {_calibrated(found, args.base is not None)}')


def _calibrated(found: Converted, has_base: bool) -> str:
    """By what the detector is calibrated."""
    if found.calibrator is None:
        return 'not calibrated'
    if found.head is not None:
        return f'calibrated by {found.head}, T = {found.calibrator["threshold"]}'
    return 'calibrated by BAGS' if has_base else 'calibrated by BAGS; without --base it has no scores but `calibrated`'


if __name__ == '__main__':
    run_tool(main)
