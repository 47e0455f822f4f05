"""Random numbers keyed to what they are for, so that a resumed or re-split run draws the same ones."""
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_BLOCK = 4096


def keyed_generator(*key: int) -> np.random.Generator:
    """A generator that is a pure function of `key` (non-negative integers), e.g. `(seed, draw number)`."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def keyed_uniforms(positions: np.ndarray, *key: int) -> np.ndarray:
    """The numbers in [0, 1) at ascending positions of an endless stream that is a pure function of `key`.

    The stream is made in blocks, each from a generator of its own, so that any part can be had without those before it.
    """
    blocks = range(int(positions[0]) // _BLOCK, int(positions[-1]) // _BLOCK + 1)
    numbers = np.concatenate([keyed_generator(*key, block).random(_BLOCK) for block in blocks])
    return numbers[positions - blocks[0] * _BLOCK]


@contextmanager
def keyed_torch_rng(*key: int) -> Iterator[None]:
    """Within the block torch's CPU generator is a pure function of `key`; afterwards it is where it was."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
