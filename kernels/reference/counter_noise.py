"""Philox4x32-10 in 64-bit integers, and Box-Muller in float64."""

import math
from collections.abc import Sequence

import torch

_ROUNDS = 10
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
# What is added to the key after a round: the first digits of the golden ratio, and of sqrt(3) - 1.
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_LOW = 2**32 - 1


def standard_normal(seeds: torch.Tensor, count: int, *, stream: int) -> torch.Tensor:
    """See `nnunet_difftumor.kernels.standard_normal`.

    Element i is number i % 4 of block i // 4; words 0 and 1 of a block make numbers 0 and 1, words 2 and 3 the others.
    The key is a seed's low and high half, the counter (block, 0, stream, 0).
    """
    block = torch.arange(-(-count // 4), device=seeds.device)[None]
    zero = block.new_zeros(1, 1)
    key = seeds[:, None] & _LOW, (seeds[:, None] >> 32) & _LOW
    words = philox((block, zero, zero + stream, zero), key)
    return box_muller(torch.stack(words[::2], -1), torch.stack(words[1::2], -1)).flatten(1)[:, :count].contiguous()


def philox(counter: Sequence[torch.Tensor], key: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Four random words of each counter: Philox4x32-10.

    Args:
        counter: four words, int64 tensors of values below 2^32 that broadcast against each other and the key.
        key: two words, likewise.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _product(c0, _MULTIPLIERS[0])
        high1, low1 = _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW, (k1 + _KEY_STEPS[1]) & _LOW
    return c0, c1, c2, c3


def _product(word: torch.Tensor, multiplier: int) -> tuple[torch.Tensor, torch.Tensor]:
    """High and low word of a product, for a multiplier from 2^31 on.

    By 2^32 less than the multiplier the product is negative and fits into 64 bits with a sign; what it then lacks is
    the word itself, in the high half.
    """
    product = word * (multiplier - 2**32)
    return (product >> 32) + word, product & _LOW


def box_muller(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Two normals, float32 (..., 2), of two random words (...)."""
    # Above 0, at most 1. In float32, as the kernel has it; what follows is rounded at the end only.
    uniform = (first.float() + 1) * 2.0**-32
    radius = (-2 * uniform.double().log()).sqrt()
    angle = second.double() * (2 * math.pi / 2**32)
    return torch.stack((radius * angle.cos(), radius * angle.sin()), -1).float()
