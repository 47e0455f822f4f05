"""Do our calibrators compute what their authors' code computes?

    python benchmarks/calibrator_parity.py --oracle ../shared/oracle/calibrators

The folder, or one in the folder given, holds for each method a file of inputs and outputs (`reference_calibrators.py`).
Printed is the worst difference of every output. Exit status 1 where one is beyond its tolerance, 2 where there is
nothing to compare.
"""
import argparse
import sys
from pathlib import Path

from common import print_table
from reference_calibrators import METHODS, compare_file


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--oracle', type=Path, required=True, help='a folder of NAME.npz, or one with such a folder')
    args = parser.parse_args()
    files = reference_files(args.oracle)
    if not files:
        print(f'{args.oracle}: CANNOT BE COMPARED: holds no {", ".join(f"{name}.npz" for name in METHODS)}')
        return 2
    return max(report(file) for file in files)


def report(file: Path) -> int:
    """Compare and print one file: 0 where it agrees, 1 where it does not."""
    rows = compare_file(file)
    agrees = all(row.worst <= row.allowed for row in rows)
    print(f'\n{file}: {"agrees" if agrees else "DISAGREES"}')
    print_table(
        ['', 'worst', 'allowed', ''],
        [
            [row.what, f'{row.worst:.1e}', f'{row.allowed:.0e}', 'ok' if row.worst <= row.allowed else 'NO']
            for row in rows
        ],
    )
    sys.stdout.flush()
    return 0 if agrees else 1


def reference_files(folder: Path) -> list[Path]:
    """The files of known methods in a folder, or else in those inside it."""
    for places in ([folder], sorted(folder.glob('*/'))):
        files = [place / f'{name}.npz' for place in places for name in METHODS]
        files = [file for file in files if file.is_file()]
        if files:
            return files
    return []


if __name__ == '__main__':
    sys.exit(main())
