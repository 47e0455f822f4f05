"""One of several processes that evaluate together: python evaluate_share.py RANK WORLD_SIZE ANNOTATION_FILE FOLDER.

FOLDER holds the data samples; what `evaluate` returns and `per_class` go there.
"""
import pickle
import sys
from pathlib import Path

import torch

from mmdet.evaluation import LVISMetric


def main(rank: int, world_size: int, ann_file: str, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=world_size)
    samples = pickle.loads((folder / 'samples.pkl').read_bytes())
    metric = LVISMetric(ann_file, metric=['bbox', 'segm'], outfile_prefix=str(folder / 'results/run'))
    # The last process also gets the first image again, as a sampler that evens the shares gives it.
    share = samples[rank::world_size] + (samples[:1] if rank == world_size - 1 else [])
    for first in range(0, len(share), 8):
        metric.process(None, share[first : first + 8])
    figures = metric.evaluate(len(samples))
    (folder / f'figures_{rank}.pkl').write_bytes(pickle.dumps((figures, metric.per_class)))
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
