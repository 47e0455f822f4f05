"""Make a long-tail subset of COCO-format training annotations, and say what was asked for and obtained."""
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever else is called mmdet

from mmdet.datasets import read_json
from mmdet.datasets.long_tail_subset import write_long_tail_subset
from mmdet.engine import run_tool


def parse_args() -> Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('coco_json', help='COCO-format annotations: .json, .json.gz or .json.zip')
    parser.add_argument('subset_json', help='where the subset goes: .json or .json.gz')
    parser.add_argument('--counts', metavar='JSON', help='instances asked for, {class name: number}')
    parser.add_argument('--head', type=int, default=8000, help='without --counts: instances of the first class')
    parser.add_argument('--tail', type=int, default=20, help='without --counts: instances of the last class')
    parser.add_argument('--seed', type=int, default=0, help='of the choice among images')
    return parser.parse_args()


def main() -> None:
    """Draw the subset and print a line for each class."""
    args = parse_args()
    wanted = read_json(args.counts) if args.counts else None
    table = write_long_tail_subset(args.coco_json, args.subset_json, wanted, args.head, args.tail, args.seed)
    width = max(len(name) for name, _, _ in table)
    print(f'{"class":{width}}  asked for  obtained')
    for name, asked, obtained in table:
        print(f'{name:{width}}  {asked:9}  {obtained:8}')
    print(f'{args.subset_json}: {sum(row[2] for row in table)} instances for {sum(row[1] for row in table)} asked for')


if __name__ == '__main__':
    run_tool(main)
