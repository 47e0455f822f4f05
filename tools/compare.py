"""Compare calibrators on one frozen detector: python tools/compare.py CONFIG CHECKPOINT."""
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever else is called mmdet

from mmengine.dist import is_main_process

from mmdet.apis.compare import compare
from mmdet.engine import add_common_options, config_from_arguments, run_tool


def parse_args() -> Namespace:
    """The command line."""
    parser = ArgumentParser(
        description='Train, score and judge calibrators on one frozen detector, under the protocol of LVIS. Writes a '
        'table, every figure, a picture and the config of the best one to the folder compare in the work dir.'
    )
    parser.add_argument('config', metavar='CONFIG', help="the detector's config, with an LVISMetric")
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='the trained detector')
    parser.add_argument(
        '--calibrators',
        type=lambda names: names.split(','),
        metavar='NAME[,NAME...]',
        help='files of configs/_base_/calibration, without .py, or paths of configs (default: compare.calibrators)',
    )
    parser.add_argument('--seeds', type=_seeds, default=[0], metavar='N[,N...]', help='of the trainings (default: 0)')
    parser.add_argument(
        '--choose-on',
        metavar='PART',
        help='choose gamma, T, tau, ... on PART_dataloader and PART_evaluator of the config, e.g. val '
        '(default: on one half of the test images for the other, and the reverse)',
    )
    parser.add_argument(
        '--detections',
        type=int,
        default=1000,
        metavar='N',
        help='of an image that AP-fixed and AP-pool look at (default: 1000)',
    )
    parser.add_argument(
        '--max-size',
        type=float,
        default=20,
        metavar='GB',
        help='of the feature bank, and of what is kept of test images (default: 20)',
    )
    add_common_options(parser)
    return parser.parse_args()


def _seeds(text: str) -> list[int]:
    try:
        return [int(seed) for seed in text.split(',')]
    except ValueError as error:
        raise ArgumentTypeError(f'{text}: give numbers with commas between them, e.g. 0,1,2') from error


def main() -> None:
    """Compare, print the table and say where everything lies."""
    args = parse_args()
    cfg = config_from_arguments(args)
    folder = compare(
        cfg,
        args.checkpoint,
        calibrators=args.calibrators,
        seeds=args.seeds,
        choose_on=args.choose_on,
        detections=args.detections,
        max_size=args.max_size,
        say=lambda line: print(line, file=sys.stderr, flush=True) if is_main_process() else None,
    )
    if is_main_process():
        print((folder / 'table.md').read_text())
        print(f'table, every figure, picture and the config of the best: {folder}')


if __name__ == '__main__':
    run_tool(main)
