"""One of several processes that evaluate together: python evaluate_share.py RANK WORLD_SIZE FOLDER METRIC...

FOLDER holds the data samples. Each METRIC is the JSON of `LVISMetric`'s arguments. What `evaluate` returns and
`per_class` go to FOLDER, for each metric.
"""
import json
import pickle
import subprocess
import sys
from pathlib import Path

import torch

from mmdet.evaluation import LVISMetric


def main(rank: int, world_size: int, folder: Path, *arguments: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=world_size)
    samples = pickle.loads((folder / 'samples.pkl').read_bytes())
    # The last process also gets the first image again, as a sampler that evens the shares gives it.
    share = samples[rank::world_size] + (samples[:1] if rank == world_size - 1 else [])
    outcomes = []
    for metric in (LVISMetric(**json.loads(each)) for each in arguments):
        for first in range(0, len(share), 8):
            metric.process(None, share[first : first + 8])
        outcomes.append((metric.evaluate(len(samples)), metric.per_class))
    (folder / f'outcomes_{rank}.pkl').write_bytes(pickle.dumps(outcomes))
    torch.distributed.destroy_process_group()


def evaluated_by_two(folder: Path, samples, *metrics) -> list[list[tuple[dict, list]]]:
    """What two processes say: for each of them, for each metric's arguments, figures and `per_class`."""
    (folder / 'samples.pkl').write_bytes(pickle.dumps(samples))
    arguments = [json.dumps(each) for each in metrics]
    command = [sys.executable, __file__]
    processes = [subprocess.Popen([*command, str(rank), '2', str(folder), *arguments]) for rank in range(2)]
    assert [process.wait(240) for process in processes] == [0, 0]
    return [pickle.loads((folder / f'outcomes_{rank}.pkl').read_bytes()) for rank in range(2)]


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
