"""Constructing a data set on an annotation file of LVIS v1's size, and the memory of its loader's workers.

    python benchmarks/annotation_scale.py FOLDER

The file is made there first (`synthetic_annotations.py`, 1.1 GB). Each part runs in a fresh process: `lvis.LVIS` reads
the file; our training set is constructed for the first time, which keeps its index beside the file, and for a second
time, which maps that; and a loader with 4 workers reads training samples, without images, next to one that yields
numbers instead. Memory is `ru_maxrss`, and the proportional set size (PSS) of all the loader's processes together, in
which a page that several share counts once.
"""
import argparse
import json
import os
import re
import sys
from pathlib import Path

from fresh_process import in_fresh_process, machine, measured

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='of the annotation file and its index')
    parser.add_argument('--images', type=int, default=100_170)
    parser.add_argument('--samples', type=int, default=20_000, help='samples that the loader reads')
    parser.add_argument('--without-peer', action='store_true', help='leave out lvis.LVIS, which takes 6 GB')
    parser.add_argument('--part', choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.path = args.folder / f'lvis_v1_sized_{args.images}.json'
    if args.part:
        print(json.dumps(PARTS[args.part](args)))
        return

    print(f'{machine()}\n')
    if not args.path.exists():
        run('make', args)
    index = args.path.with_name(args.path.name + '.index')
    index.unlink(missing_ok=True)
    first, second = run('construct', args), run('construct', args)
    rows = [('first construction', first), ('second construction', second)]
    if not args.without_peer:
        rows.insert(0, ('lvis.LVIS', run('peer', args)))
    print(f'{args.path.stat().st_size / 1e9:.2f} GB of JSON, {index.stat().st_size / 1e6:.0f} MB of index: ', end='')
    print(', '.join(f'{first[key]:,} {key}' for key in COUNTED))
    print(f'{"":22}{"seconds":>9}{"CPU s":>9}{"peak MB":>9}{"of it imports":>15}')
    for name, row in rows:
        print(f'{name:22}{row["seconds"]:9.2f}{row["cpu_seconds"]:9.2f}{row["peak_mb"]:9.0f}{row["imports_mb"]:15.0f}')
    equal = all(row[key] == first[key] for _, row in rows for key in (*COUNTED, 'digest'))
    if not args.without_peer:
        print(f'first construction: {rows[0][1]["seconds"] / first["seconds"]:.1f} x the speed of lvis.LVIS')
    print(f'images, categories and instances of every class {"equal" if equal else "NOT EQUAL"}\n')

    without, loaded = run('idle_loader', args), run('loader', args)
    print(f'{args.samples:,} samples by {WORKERS} workers: {loaded["seconds"]:.1f} s')
    print(f'PSS of all processes: {loaded["pss_mb"]:.0f} MB; without data {without["pss_mb"]:.0f} MB; ', end='')
    print(f'{loaded["pss_mb"] - without["pss_mb"]:.0f} MB more')
    own, idle = loaded['worker_mb'], without['worker_mb']
    print(f'private memory of a worker: {own:.0f} MB, without data {idle:.0f} MB')
    sent, painted = loaded['mask_kb'], loaded['bitmap_kb']
    print(f'masks of a sample: {sent:.1f} KB as they leave the loader; as bitmaps they would be {painted:.0f} KB')
    sys.exit(not equal)


def run(part: str, args: argparse.Namespace) -> dict:
    own = [f'--{name}={getattr(args, name)}' for name in ('images', 'samples')]
    return in_fresh_process(__file__, part, [str(args.folder), *own])


def make(args: argparse.Namespace) -> dict:
    from synthetic_annotations import write_annotations

    write_annotations(args.path, args.images)
    return {}


COUNTED = ('images', 'categories', 'instances')


def counted(num_images: int, category_counts: dict[int, int]) -> dict:
    """What has been read, in numbers that both sides can give."""
    import hashlib

    pairs = sorted(category_counts.items())
    counts = (num_images, len(pairs), sum(count for _, count in pairs))
    return dict(zip(COUNTED, counts, strict=True)) | {'digest': hashlib.sha256(repr(pairs).encode()).hexdigest()}


def peer(args: argparse.Namespace) -> dict:
    import logging

    import lvis
    import torch  # noqa: F401 so that the imports weigh the same

    logging.disable(logging.WARNING)
    file, cost = measured(lambda: lvis.LVIS(str(args.path)))
    counts = dict.fromkeys(file.cats, 0)
    for annotation in file.anns.values():
        counts[annotation['category_id']] += 1
    return cost | counted(len(file.imgs), counts)


def construct(args: argparse.Namespace) -> dict:
    import mmdet.datasets  # noqa: F401 the imports are not what is timed

    dataset, cost = measured(lambda: training_set(args))
    counts = dataset.class_frequency().instance_count.tolist()
    return cost | counted(len(dataset), dict(zip(dataset.metainfo['category_ids'], counts, strict=True)))


def training_set(args: argparse.Namespace):
    from mmdet.datasets import LVISV1Dataset

    return LVISV1Dataset(
        ann_file=str(args.path),
        data_prefix=dict(img=str(args.folder)),
        pipeline=[dict(type='LoadAnnotations', with_mask=True, poly2mask=False), only_annotations],
    )


def only_annotations(results: dict) -> dict:
    return {key: results[key] for key in ('gt_bboxes', 'gt_bboxes_labels', 'gt_masks', 'height', 'width')}


class Numbers:
    """A data set without data."""

    def __init__(self, length: int):
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> int:
        return i


def loader(args: argparse.Namespace) -> dict:
    import mmdet.datasets  # noqa: F401

    return read_by_workers(training_set(args), args)


def idle_loader(args: argparse.Namespace) -> dict:
    import mmdet.datasets  # noqa: F401

    return read_by_workers(Numbers(args.images), args)


def read_by_workers(dataset, args: argparse.Namespace) -> dict:
    """Reads random samples; what the masks weigh, and the memory of this process and its workers at the end."""
    import pickle
    import time
    import warnings

    import torch

    warnings.filterwarnings('ignore', 'This DataLoader will create', UserWarning)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[: args.samples].tolist()
    samples = torch.utils.data.DataLoader(
        dataset, sampler=order, batch_size=2, num_workers=WORKERS, collate_fn=list, persistent_workers=True
    )
    start = time.perf_counter()
    read = mask_bytes = bitmap_bytes = 0
    for batch in samples:
        read += len(batch)
        for sample in batch:
            if isinstance(sample, dict) and read <= 1000:
                mask_bytes += len(pickle.dumps(sample['gt_masks']))
                bitmap_bytes += len(sample['gt_masks']) * sample['height'] * sample['width']
    workers = Path(f'/proc/self/task/{os.getpid()}/children').read_text().split()
    weighed = min(read, 1000)
    return {
        'seconds': time.perf_counter() - start,
        'pss_mb': sum(smaps_mb(process, 'Pss') for process in ('self', *workers)),
        'worker_mb': max(smaps_mb(worker, 'Private_Clean') + smaps_mb(worker, 'Private_Dirty') for worker in workers),
        'mask_kb': mask_bytes / weighed / 1e3,
        'bitmap_kb': bitmap_bytes / weighed / 1e3,
    }


def smaps_mb(process: str, kind: str) -> float:
    rollup = Path(f'/proc/{process}/smaps_rollup').read_text()
    return int(re.search(rf'^{kind}:\s+(\d+) kB', rollup, re.MULTILINE)[1]) / 1024


PARTS = {'make': make, 'peer': peer, 'construct': construct, 'loader': loader, 'idle_loader': idle_loader}

if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))
    main()
