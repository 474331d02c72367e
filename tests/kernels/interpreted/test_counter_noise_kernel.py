"""Counter-based noise by its kernel against the reference: the same integers, and normals up to rounding."""

import sys

import launches
import pytest
import torch
import triton
import triton.language as tl

from nnunet_difftumor.kernels import standard_normal
from nnunet_difftumor.kernels.implementation import implementation
from nnunet_difftumor.kernels.reference import counter_noise as reference
from nnunet_difftumor.kernels.triton import counter_noise as kernels

WORD = 2**32 - 1
SEEDS = (0, 1, -1, 2**63 - 1, -(2**63), 123456789012345678)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """New tensors are NaN until something writes them."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def compare(seeds, count, stream):
    seen = standard_normal(seeds, count, stream=stream)
    with implementation("reference"):
        expected = standard_normal(seeds, count, stream=stream)
    assert seen.is_contiguous()
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-6)
    assert (seen - expected).norm() <= 2e-7 * expected.norm()


@pytest.mark.parametrize(
    ("batch", "count", "stream"),
    [
        (1, 1, 0),
        (2, 2, 1),
        (3, 3, 2),
        (6, 4, 16),
        (2, 5, 2**31 - 1),
        (1, 6, 2**31),
        (6, 7, WORD),
        (2, 1023, 0),
        (6, 1024, 5),
        (2, 1025, 6),
        (1, 4095, 7),
        (3, 4099, 8),
        (1, 30_000, 9),
    ],
)
def test_any_count_and_stream(batch, count, stream):
    compare(torch.tensor(SEEDS[:batch]), count, stream)


def test_any_strides_of_the_seeds():
    seeds = torch.arange(12)
    compare(seeds[1::3], 5, 1)
    compare(seeds.view(4, 3).T[1], 5, 1)
    compare(seeds[:1].expand(3), 5, 1)


@triton.jit
def words_of(counters, keys, words, N: tl.constexpr):
    n = tl.arange(0, N)
    c0 = tl.load(counters + n).to(tl.uint32)
    c1 = tl.load(counters + N + n).to(tl.uint32)
    c2 = tl.load(counters + 2 * N + n).to(tl.uint32)
    c3 = tl.load(counters + 3 * N + n).to(tl.uint32)
    word0, word1, word2, word3 = tl.philox(tl.load(keys + n), c0, c1, c2, c3)
    tl.store(words + n, word0)
    tl.store(words + N + n, word1)
    tl.store(words + 2 * N + n, word2)
    tl.store(words + 3 * N + n, word3)


def test_the_integers_are_those_of_the_reference():
    counters = torch.randint(2**32, (4, 64), generator=torch.Generator().manual_seed(0))
    counters[:, 0], counters[:, 1] = 0, WORD
    keys = counters[0] ^ (counters[1] << 32)
    seen = torch.zeros_like(counters)
    words_of[(1,)](counters, keys, seen, N=64)
    assert torch.equal(seen, torch.stack(reference.philox(counters, (keys & WORD, (keys >> 32) & WORD))))


@triton.jit
def normals_of(first, second, normals, BOX_MULLER: tl.constexpr, N: tl.constexpr):
    n = tl.arange(0, N)
    x, y = BOX_MULLER(tl.load(first + n).to(tl.uint32), tl.load(second + n).to(tl.uint32))
    tl.store(normals + 2 * n, x)
    tl.store(normals + 2 * n + 1, y)


def test_extreme_words_and_the_borders_of_the_eighths_of_a_turn():
    borders = [(eighth << 29) + step for eighth in range(9) for step in (-1, 0, 1)]
    second = torch.tensor([word & WORD for word in borders] + [0] * 5)
    first = torch.tensor([12345] * len(borders) + [0, 1, 2**31, WORD - 300, WORD])
    seen = torch.full((len(first), 2), torch.nan)
    # The module in use, which is not the one that is imported above where a test has put another in its place.
    normals_of[(1,)](first, second, seen, sys.modules[kernels.__name__]._box_muller, N=len(first))
    torch.testing.assert_close(seen, reference.box_muller(first, second), rtol=0, atol=1e-6)


def test_it_is_one_launch():
    seeds = torch.tensor(SEEDS)
    with launches.counted() as found:
        standard_normal(seeds, 1500, stream=3)
    assert found == {"_standard_normal": 1}


def test_the_operation_is_well_formed():
    torch.library.opcheck(kernels.standard_normal, (torch.tensor([3, -4]), 5, WORD))
