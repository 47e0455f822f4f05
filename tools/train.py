"""Train a detector: python tools/train.py CONFIG."""
import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever else is called mmdet

from mmdet.apis import train
from mmdet.apis.train import scale_learning_rate
from mmdet.engine import (
    ToolParser,
    add_common_options,
    add_training_options,
    config_from_arguments,
    latest_checkpoint,
    mixed_precision,
    require_keys,
    run_tool,
)


def parse_args() -> Namespace:
    """The command line."""
    parser = ToolParser(description='Train the detector a config describes.')
    parser.add_argument('config', metavar='CONFIG', help='config file')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    add_training_options(parser)
    add_common_options(parser)
    return parser.parse_args()


def main() -> None:
    """Train and say where the result lies."""
    args = parse_args()
    cfg = config_from_arguments(args)
    if args.amp:
        require_keys(cfg, 'optim_wrapper')
        cfg.optim_wrapper = mixed_precision(cfg.optim_wrapper)
    if args.auto_scale_lr:
        scale_learning_rate(cfg)
    runner = train(cfg)
    if runner.rank == 0:
        print(f'trained: {latest_checkpoint(cfg.work_dir)}')


if __name__ == '__main__':
    run_tool(main)
