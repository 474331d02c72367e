"""Noise of `kernels.counter_noise`: each program makes the numbers of some blocks of one sample."""

import torch
import triton
import triton.language as tl

_BLOCKS = 256


@torch.library.custom_op("nnunet_difftumor::standard_normal", mutates_args=())
def standard_normal(seeds: torch.Tensor, count: int, stream: int) -> torch.Tensor:
    """float32 (b, count) of int64 seeds (b,)."""
    out = torch.empty((len(seeds), count), dtype=torch.float32, device=seeds.device)
    # A stream above 2^31 is passed as what it is in 32 bits with a sign.
    signed = stream - 2**32 if stream >= 2**31 else stream
    _standard_normal[(triton.cdiv(count, 4 * _BLOCKS), len(seeds))](
        seeds.contiguous(), out, count, signed, BLOCKS=_BLOCKS, num_warps=4
    )
    return out


@standard_normal.register_fake
def _(seeds: torch.Tensor, count: int, stream: int) -> torch.Tensor:
    return torch.empty((len(seeds), count), dtype=torch.float32, device=seeds.device)


@triton.jit
def _standard_normal(seeds, out, count, stream, BLOCKS: tl.constexpr):
    sample = tl.program_id(1)
    block = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    zero = tl.zeros((BLOCKS,), tl.uint32)
    seed = tl.load(seeds + sample)
    c0, c1, c2, c3 = tl.philox(seed, block.to(tl.uint32), zero, zero + stream.to(tl.uint32), zero)
    n0, n1 = _normals(c0, c1)
    n2, n3 = _normals(c2, c3)
    # In 64 bits: samples may be long.
    target = out + sample.to(tl.int64) * count + block.to(tl.int64) * 4
    left = count - block.to(tl.int64) * 4
    tl.store(target, n0, mask=left > 0)
    tl.store(target + 1, n1, mask=left > 1)
    tl.store(target + 2, n2, mask=left > 2)
    tl.store(target + 3, n3, mask=left > 3)


@triton.jit
def _normals(first, second):
    """Two normal numbers of two words (Box and Muller, 1958)."""
    radius = tl.sqrt(-2.0 * tl.log(_uniform(first)))
    cosine, sine = _on_circle(_uniform(second))
    return radius * cosine, radius * sine


@triton.jit
def _on_circle(turns):
    """Cosine and sine of a part of a whole turn, 0 to 1, to 1e-7.

    Their power series within an eighth of a turn: the library's functions would provide for angles of any size, and
    need memory of each thread for it.
    """
    quarter = (4 * turns + 0.5).to(tl.int32)
    angle = (4 * turns - quarter.to(tl.float32)) * 1.5707963267948966
    square = angle * angle
    sine = angle * (1 + square * (-1 / 6 + square * (1 / 120 + square * (-1 / 5040 + square * (1 / 362880)))))
    cosine = 1 + square * (-1 / 2 + square * (1 / 24 + square * (-1 / 720 + square * (1 / 40320 - square / 3628800))))
    odd = (quarter & 1) == 1
    one, other = tl.where(odd, sine, cosine), tl.where(odd, cosine, sine)
    # The second and third quarter are left of the middle, the third and fourth below.
    return tl.where(((quarter + 1) & 2) == 2, -one, one), tl.where((quarter & 2) == 2, -other, other)


@triton.jit
def _uniform(word):
    # 23 bits and a half: exact, and never 0 or 1.
    return ((word >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07
