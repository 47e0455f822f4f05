"""The whole road on GlyphLT: generate, train, calibrate, test, and a report of what calibration has changed."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever else is called mmdet

from mmdet.apis.quickstart import quickstart
from mmdet.engine import run_tool

CONFIGS_DIR = Path(__file__).resolve().parents[1] / 'configs'
# For each variant its base training and its calibration.
CONFIGS = {
    'quickstart': ('quickstart/base.py', 'quickstart/calibrate.py'),
    'quickstart_smoke': ('quickstart/smoke_base.py', 'quickstart/smoke_calibrate.py'),
    'glyph_lt': ('glyph_lt/mask-rcnn_r18-ag_fpn_glyph-lt.py', 'glyph_lt/simcal.py'),
    'glyph_lt400': ('glyph_lt400/mask-rcnn_r18-ag_fpn_glyph-lt400.py', 'glyph_lt400/simcal.py'),
}


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seed', type=int, default=0, help='of training and calibration')
    variant = parser.add_mutually_exclusive_group()
    for option, name, meaning in (
        ('--smoke', 'quickstart_smoke', 'only a few iterations, to see that everything runs'),
        ('--full', 'glyph_lt', 'the full configuration of configs/glyph_lt'),
        ('--classes-400', 'glyph_lt400', 'the 400 classes of configs/glyph_lt400'),
    ):
        variant.add_argument(option, dest='variant', action='store_const', const=name, help=meaning)
    parser.set_defaults(variant='quickstart')
    parser.add_argument('--work-dir', type=Path, metavar='DIR', help='for all else (work_dirs/VARIANT/seed_N)')
    parser.add_argument('--data-root', type=Path, metavar='DIR', help="where GlyphLT is generated (the config's)")
    args = parser.parse_args()
    if not 0 <= args.seed < 2**32:
        parser.error(f'--seed {args.seed}: choose one from 0 to 4294967295')
    return args


def main() -> None:
    """Walk the road."""
    args = parse_args()
    base_config, calibration_config = (CONFIGS_DIR / name for name in CONFIGS[args.variant])
    work_dir = args.work_dir or Path('work_dirs', args.variant, f'seed_{args.seed}')
    quickstart(base_config, calibration_config, work_dir, args.data_root, args.seed)


if __name__ == '__main__':
    run_tool(main)
