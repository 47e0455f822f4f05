"""Test a checkpoint: python tools/test.py CONFIG CHECKPOINT."""
import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever else is called mmdet

from mmengine.dist import is_main_process
from rich.console import Console

from mmdet.apis import test
from mmdet.engine import ToolParser, add_common_options, config_from_arguments, run_tool
from mmdet.visualization import comparison_table


def parse_args() -> Namespace:
    """The command line."""
    parser = ToolParser(description="Test a checkpoint on a config's test data.")
    parser.add_argument('config', metavar='CONFIG', help='config file')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='a detector, calibrated or not')
    parser.add_argument(
        '--scores',
        type=lambda names: names.split(','),
        metavar='NAME[,NAME...]',
        help='score settings, all tested in one pass: base, dual, calibrated, average '
        '(default: dual where the checkpoint is calibrated, else base)',
    )
    parser.add_argument(
        '--threshold',
        type=int,
        metavar='T',
        help='classes with fewer than T training instances take calibrated scores (default: as calibrated)',
    )
    parser.add_argument('--out', metavar='FILE', help='keep the detections, as .pkl or as .json result files')
    parser.add_argument('--show-dir', metavar='DIR', help='write pictures of the detections there')
    parser.add_argument('--show', action='store_true', help='show pictures of the detections in a window')
    parser.add_argument('--wait-time', type=float, default=0, metavar='S', help='seconds for each picture (0: any key)')
    parser.add_argument('--format-only', action='store_true', help='only write result files, in the official format')
    parser.add_argument('--batch-size', type=int, metavar='N', help='images in a batch')
    parser.add_argument(
        '--tta', action='store_true', help="test-time augmentation by the config's tta_pipeline and tta_model"
    )
    add_common_options(parser)
    return parser.parse_args()


def main() -> None:
    """Test, print the figures and say where they lie."""
    args = parse_args()
    cfg = config_from_arguments(args)
    written = []
    figures = test(
        cfg,
        args.checkpoint,
        scores=args.scores,
        threshold=args.threshold,
        out=args.out,
        show_dir=args.show_dir,
        show=args.show,
        wait_time=args.wait_time,
        format_only=args.format_only,
        batch_size=args.batch_size,
        tta=args.tta,
        on_file=written.append,
    )
    if not is_main_process():
        return
    for path in written:
        print(f'detections: {path}')
    if not args.format_only:
        Console().print(comparison_table(figures).to_rich())
        print(f'results: {Path(cfg.work_dir) / "test"}')


if __name__ == '__main__':
    run_tool(main)
