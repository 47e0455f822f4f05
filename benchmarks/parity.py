"""Do our detectors compute what the implementations they stand in for compute?

    python benchmarks/parity.py --oracle ../shared/oracle
    python benchmarks/parity.py --oracle FOLDER [FOLDER ...] [--images DIR] [--device cuda]

Each folder, or each one inside the folder given, holds what another implementation computed for one photograph with
deterministic weights (`reference_outputs.py`). The detector is built from the folder's own config or names, loaded
strictly, run on the photograph in double precision, so that the processor does not matter, and the worst differences
are printed. They agree where FPN statistics and proposals do to 1e-4, at least 99 % of the detections in both
directions (same class, IoU > 0.99, score within 1e-4), and 99 % of their masks to an IoU > 0.99. Exit status 1 where
any folder disagrees, 2 where one cannot be compared.
"""
import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import reference_mmdet3
import reference_simcal
import torch
from common import print_table
from reference_outputs import Difference, Outputs, ReferenceFolder, differences

from mmdet.errors import UserError

# By a file of such a folder: mmdetection 3's have a config of their own, the SimCal release's have none.
KINDS: dict[str, Callable[..., Outputs]] = {
    'model_config.py': reference_mmdet3.outputs,
    'shapes.json': reference_simcal.outputs,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--oracle', type=Path, nargs='+', required=True, help='folders, or folders of folders')
    parser.add_argument('--images', type=Path, help='where the photographs are; default: data/coco128/images above')
    parser.add_argument('--device', default='cpu', type=torch.device)
    args = parser.parse_args()

    status = 0
    for path in args.oracle:
        for folder in reference_folders(path):
            status = max(status, report(ReferenceFolder(folder, args.images), args.device))
    return status


def report(folder: ReferenceFolder, device: torch.device) -> int:
    """Compare and print one folder: 0 where it agrees, 1 where it does not, 2 where it cannot be compared."""
    try:
        rows = compare(folder, device)
    except (FileNotFoundError, UserError) as error:
        print(f'\n{folder.path}: CANNOT BE COMPARED: {error}', flush=True)
        return 2
    agrees = all(row.passed for row in rows)
    print(f'\n{folder.path}: {"agrees" if agrees else "DISAGREES"}')
    print_table(['', 'worst', ''], [[row.what, row.worst, 'ok' if row.passed else 'NO'] for row in rows])
    sys.stdout.flush()
    return 0 if agrees else 1


def reference_folders(path: Path) -> list[Path]:
    """The folder itself if it holds reference outputs, else those in it that do; itself where there are none."""
    if (path / 'shapes.json').is_file():
        return [path]
    return sorted(file.parent for file in path.glob('*/shapes.json')) or [path]


def compare(folder: ReferenceFolder, device: torch.device | str = 'cpu') -> list[Difference]:
    """The detector of a folder, run and compared with what the folder holds."""
    for marker, outputs in KINDS.items():
        if (folder.path / marker).is_file():
            return differences(outputs(folder, device), folder.outputs())
    raise FileNotFoundError(f'{folder.path}: of no kind known here; it holds none of {", ".join(KINDS)}')


if __name__ == '__main__':
    sys.exit(main())
