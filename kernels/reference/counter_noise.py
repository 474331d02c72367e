"""Noise of `kernels.counter_noise` in plain PyTorch."""

import math

import torch

# Multipliers of the rounds, and what is added to the key after each (Salmon et al., SC 2011, section 3.3 and table 2).
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
_WORD = 0xFFFFFFFF


def philox(counter: list[torch.Tensor], key: list[torch.Tensor]) -> list[torch.Tensor]:
    """Four random words of 32 bits for each counter of four words and key of two; all in int64, and broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        # Products of 64 bits: int64 wraps around, and shifts its sign in, which the mask takes away.
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (second >> 32 & _WORD) ^ c1 ^ k0,
            second & _WORD,
            (first >> 32 & _WORD) ^ c3 ^ k1,
            first & _WORD,
        )
        k0, k1 = k0 + KEY_STEPS[0] & _WORD, k1 + KEY_STEPS[1] & _WORD
    return [c0, c1, c2, c3]


def standard_normal(seeds: torch.Tensor, count: int, stream: int) -> torch.Tensor:
    """See `kernels.standard_normal`."""
    blocks = torch.arange(-(-count // 4), device=seeds.device)
    key = [(seeds & _WORD)[:, None], (seeds >> 32 & _WORD)[:, None]]
    words = philox([blocks, torch.zeros_like(blocks), torch.full_like(blocks, stream), torch.zeros_like(blocks)], key)
    # 23 bits and a half: exact, and never 0 or 1.
    u0, u1, u2, u3 = (((word >> 9).float() + 0.5) * 2**-23 for word in words)
    numbers = []
    for first, second in ((u0, u1), (u2, u3)):
        radius, angle = (-2 * first.log()).sqrt(), second * (2 * math.pi)
        numbers += [radius * angle.cos(), radius * angle.sin()]
    return torch.stack(numbers, -1).flatten(1)[:, :count].contiguous()
