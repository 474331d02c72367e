"""Noise from counters: known words, prefixes, independence, and the normal distribution."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels import standard_normal
from nnunet_difftumor.kernels.reference.counter_noise import philox

FULL = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((FULL,) * 4, (FULL,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_words_are_those_that_the_generators_authors_publish(counter, key, expected):
    words = philox([torch.tensor([word]) for word in counter], [torch.tensor([word]) for word in key])
    assert tuple(int(word) for word in words) == expected


def seeds(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(-(2**63), 2**63 - 1),
    count=st.integers(1, 300),
    more=st.integers(1, 300),
    stream=st.integers(0, FULL),
)
def test_numbers_depend_on_their_own_seed_stream_and_place_alone(seed, count, more, stream):
    long = standard_normal(seeds(seed, 5), count + more, stream=stream)
    short = standard_normal(seeds(seed), count, stream=stream)
    assert short.shape == (1, count) and short.dtype == torch.float32 and short.is_contiguous()
    assert torch.equal(long[:1, :count], short)
    assert torch.isfinite(long).all()


def test_other_seeds_and_streams_give_other_numbers():
    first = standard_normal(seeds(3, 3 + 2**32, 4, -3), 1000, stream=0)
    second = standard_normal(seeds(3, 3 + 2**32, 4, -3), 1000, stream=1)
    both = torch.cat((first, second))
    assert (torch.corrcoef(both) - torch.eye(8)).abs().max() < 0.15


def test_numbers_are_normal():
    numbers = standard_normal(seeds(*range(4)), 250_000, stream=7)
    assert numbers.mean().abs() < 0.004 and (numbers.std() - 1).abs() < 0.003
    assert kstest(numbers.flatten()[:100_000].numpy(), "norm").pvalue > 1e-3
    # No place of a block of four is like another.
    blocks = numbers.view(-1, 4)
    assert (torch.corrcoef(blocks.T) - torch.eye(4)).abs().max() < 0.01
    assert (torch.corrcoef(blocks.square().T) - torch.eye(4)).abs().max() < 0.01


@pytest.mark.parametrize(
    ("given", "count", "stream", "refused"),
    [
        (torch.zeros(2), 4, 0, r"seeds: expected int64 \(b,\) with b > 0, got torch.float32 \(2,\)"),
        (seeds(), 4, 0, r"seeds: .* got torch.int64 \(0,\)"),
        (seeds(1)[None], 4, 0, r"got torch.int64 \(1, 1\)"),
        ([1], 4, 0, "got list"),
        (seeds(1), 0, 0, "count: expected 1 to"),
        (seeds(1), 4, -1, "stream: expected 0 to 4294967295, got -1"),
        (seeds(1), 4, 2**32, "stream: expected 0 to 4294967295"),
    ],
)
def test_what_does_not_fit_is_refused(given, count, stream, refused):
    with pytest.raises(InputError, match=refused):
        standard_normal(given, count, stream=stream)
