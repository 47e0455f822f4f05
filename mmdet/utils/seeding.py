"""Random numbers keyed to what they are for, so that a resumed or re-split run draws the same ones."""
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def keyed_generator(*key: int) -> np.random.Generator:
    """A generator that is a pure function of `key` (non-negative integers), e.g. `(seed, draw number)`."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


@contextmanager
def keyed_torch_rng(*key: int) -> Iterator[None]:
    """Within the block torch's CPU generator is a pure function of `key`; afterwards it is where it was."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
