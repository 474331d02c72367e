"""Counter-based noise: Philox's known answers, the definition number by number, and what noise must be."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels import standard_normal
from nnunet_difftumor.kernels.reference.counter_noise import box_muller, philox

SEEDS = st.integers(-(2**63), 2**63 - 1)
STREAMS = st.integers(0, 2**32 - 1)
WORD = 2**32 - 1
MILLION = 10**6


def tensor(*seeds: int) -> torch.Tensor:
    return torch.tensor(seeds, dtype=torch.int64)


def naive_philox(counter, key):
    """Of Python's integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        first, second = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (second >> 32) ^ c1 ^ k0, second & WORD, (first >> 32) ^ c3 ^ k1, first & WORD
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return c0, c1, c2, c3


def naive_normal(seed, index, stream):
    key = seed % 2**32, seed // 2**32 % 2**32
    pair = index % 4 // 2 * 2
    first, second = naive_philox((index // 4, 0, stream, 0), key)[pair : pair + 2]
    uniform = (np.float32(first) + np.float32(1)) / np.float32(2**32)
    radius = math.sqrt(-2 * math.log(uniform))
    angle = 2 * math.pi * second / 2**32
    return radius * (math.sin(angle) if index % 2 else math.cos(angle))


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((WORD,) * 4, (WORD,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_answers_that_its_authors_publish(counter, key, expected):
    words = philox([tensor(word) for word in counter], [tensor(word) for word in key])
    assert tuple(word.item() for word in words) == expected == naive_philox(counter, key)


@settings(deadline=None)
@given(SEEDS, st.integers(0, 3000), STREAMS)
def test_a_number_is_what_the_definition_says(seed, index, stream):
    seen = standard_normal(tensor(seed), index + 1, stream=stream)[0, index].item()
    assert seen == pytest.approx(naive_normal(seed, index, stream), rel=1e-6, abs=1e-9)


@settings(deadline=None)
@given(st.lists(SEEDS, min_size=1, max_size=4), st.integers(1, 70), st.integers(1, 70), STREAMS)
def test_neither_the_count_nor_the_batch_changes_a_number(seeds, count, fewer, stream):
    noise = standard_normal(tensor(*seeds), count, stream=stream)
    assert noise.shape == (len(seeds), count) and noise.dtype == torch.float32
    assert noise.is_contiguous() and noise.isfinite().all()
    for seed, row in zip(seeds, noise, strict=True):
        alone = standard_normal(tensor(seed), min(count, fewer), stream=stream)[0]
        assert torch.equal(row[:fewer], alone)


def test_large_counts_begin_with_the_numbers_of_small_ones():
    noise = standard_normal(tensor(3, 4), 300_001, stream=1)
    assert torch.equal(noise[:, :77], standard_normal(tensor(3, 4), 77, stream=1))


def test_noise_is_normal():
    noise = standard_normal(tensor(7), MILLION, stream=3)[0].double()
    assert noise.isfinite().all() and 4.5 < noise.abs().max() < 6
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        powers = noise**power
        assert abs(powers.mean() - moment) < 4 * powers.std() / MILLION**0.5
    assert scipy.stats.kstest(noise.numpy(), "norm").pvalue > 0.01


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 1024])
def test_numbers_of_a_sample_have_nothing_to_do_with_one_another(lag):
    noise = standard_normal(tensor(11), MILLION, stream=0)[0]
    for seen in (noise, noise.abs()):
        assert abs(correlation(seen[lag:], seen[:-lag])) < 4 / MILLION**0.5


def test_neighbouring_seeds_and_streams_have_nothing_to_do_with_one_another():
    seeds = tensor(0, 1, 2, -1, 2**32, 2**62)
    noise = torch.cat([standard_normal(seeds, 100_000, stream=stream) for stream in (0, 1, 2, WORD)])
    correlations = torch.corrcoef(noise) - torch.eye(len(noise))
    assert correlations.abs().max() < 5 / 100_000**0.5


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.corrcoef(torch.stack((a, b)))[0, 1].item()


@pytest.mark.parametrize(("word", "radius"), [(0, math.sqrt(64 * math.log(2))), (WORD, 0.0)])
def test_the_least_and_the_largest_word_make_finite_numbers(word, radius):
    assert box_muller(tensor(word), tensor(0))[0].tolist() == pytest.approx([radius, 0.0])


def test_it_compiles_as_one_graph():
    compiled = torch.compile(lambda seeds: standard_normal(seeds, 10, stream=2), fullgraph=True, backend="aot_eager")
    seeds = tensor(5, -6)
    assert torch.equal(compiled(seeds), standard_normal(seeds, 10, stream=2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": torch.ones(2)}, "seeds: expected an int64 tensor, got torch.float32"),
        ({"seeds": tensor(1)[0]}, "seeds: expected (b,) with b > 0, got ()"),
        ({"count": 2.0}, "count: expected an int from 1 to 1073741824, got 2.0"),
        ({"stream": -1}, "stream: expected an int from 0 to 4294967295, got -1"),
    ],
)
def test_what_was_seen_and_what_is_possible_is_said(arguments, message):
    with pytest.raises(InputError) as refused:
        standard_normal(**{"seeds": tensor(1, 2), "count": 3, "stream": 0, **arguments})
    assert str(refused.value) == message
