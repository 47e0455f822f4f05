"""Hold a detector against Props-GT, what it would reach if its proposals were told their classes."""
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever else is called mmdet

from mmengine.dist import is_main_process
from rich.console import Console

from mmdet.apis import props_gt
from mmdet.engine import add_common_options, config_from_arguments, run_tool
from mmdet.visualization import comparison_table


def parse_args() -> Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('config', metavar='CONFIG', help='config file')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='a detector, calibrated or not')
    parser.add_argument(
        '--threshold',
        type=int,
        metavar='T',
        help='classes with fewer than T training instances take calibrated scores (default: as calibrated)',
    )
    add_common_options(parser)
    return parser.parse_args()


def main() -> None:
    """Test, print the figures side by side and say where they lie."""
    args = parse_args()
    cfg = config_from_arguments(args)
    figures = props_gt(cfg, args.checkpoint, args.threshold)
    if is_main_process():
        Console().print(comparison_table(figures).to_rich())
        print(f'results: {Path(cfg.work_dir) / "test"}')


if __name__ == '__main__':
    run_tool(main)
