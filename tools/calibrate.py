"""Calibrate a trained detector's classification: python tools/calibrate.py CONFIG CHECKPOINT."""
import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever else is called mmdet

from mmengine.dist import is_main_process

from mmdet.apis import calibrate
from mmdet.engine import (
    ToolParser,
    add_common_options,
    add_training_options,
    config_from_arguments,
    mixed_precision,
    require_keys,
    run_tool,
)


def parse_args() -> Namespace:
    """The command line."""
    parser = ToolParser(
        description="Re-train a frozen detector's classification on class-balanced proposals (SimCal). "
        'Writes calibrated.pth, which holds both classifiers, to the work dir.'
    )
    parser.add_argument('config', metavar='CONFIG', help='config file with a `calibration`, e.g. of configs/simcal')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='the trained detector')
    add_training_options(parser)
    add_common_options(parser)
    return parser.parse_args()


def main() -> None:
    """Calibrate and say where the result lies."""
    args = parse_args()
    cfg = config_from_arguments(args)
    if args.amp:
        require_keys(cfg, 'calibration', 'calibration.optim_wrapper')
        cfg.calibration.optim_wrapper = mixed_precision(cfg.calibration.optim_wrapper)
    result = calibrate(cfg, args.checkpoint)
    if is_main_process():
        print(f'calibrated: {result}')


if __name__ == '__main__':
    run_tool(main)
