"""The one place where global random generators are touched: nnU-Net's crops and transforms draw from them."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded_generators(entropy: Sequence[int]) -> Iterator[None]:
    """Seeds numpy's, Python's and torch's global generators for the block, and restores their states afterwards.

    torch runs on one thread in the block: some of its operations give other bits with other numbers of threads.
    """
    states = np.random.get_state(), random.getstate(), torch.get_rng_state()
    threads = torch.get_num_threads()
    numpy_seed, python_seed, torch_seed = np.random.SeedSequence(entropy).generate_state(3, np.uint64)
    np.random.seed(int(numpy_seed) % 2**32)
    random.seed(int(python_seed))
    torch.manual_seed(int(torch_seed) % 2**63)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        np.random.set_state(states[0])
        random.setstate(states[1])
        torch.set_rng_state(states[2])
