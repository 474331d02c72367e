"""Counter-based normal noise: every program makes a tile of one sample's numbers from its seed, and reads nothing else.

The angle of Box-Muller is a word of 2^-32 turns. Integers take the nearest quarter turn off it without any error, and
only the rest, at most an eighth of a turn, goes into series for sine and cosine. tl.sin and tl.cos take any angle, and
work in local memory where it is huge; the compiler cannot know that none is.

Bound: 4 bytes written per number. For a latent of 8 x 24^3 that is 0.4 MB, less than a launch.
"""

import math

import torch
import triton
import triton.language as tl

# Blocks of four numbers that a program makes.
_BLOCKS = 256


@torch.library.custom_op("nnunet_difftumor::standard_normal", mutates_args=())
def standard_normal(seeds: torch.Tensor, count: int, stream: int) -> torch.Tensor:
    """float32 (b, count) of seeds int64 (b,)."""
    out = _new(seeds, count)
    tiles = triton.cdiv(count, 4 * _BLOCKS)
    # In one axis of the grid: the others are too short for large batches.
    _standard_normal[(len(seeds) * tiles,)](
        seeds, out, seeds.stride(0), count, tiles, stream, BLOCKS=_BLOCKS, num_warps=4
    )
    return out


@standard_normal.register_fake
def _(seeds, count, stream):
    return _new(seeds, count)


def _new(seeds: torch.Tensor, count: int) -> torch.Tensor:
    return seeds.new_empty((len(seeds), count), dtype=torch.float32)


_TWO_TO_MINUS_32 = tl.constexpr(2.0**-32)
_UNIT_ANGLE = tl.constexpr(2 * math.pi / 2**32)


# Streams are numbers without a pattern: none is worth a compilation of its own.
@triton.jit(do_not_specialize=["stream"])
def _standard_normal(seeds, out, stride, count, tiles, stream, BLOCKS: tl.constexpr):
    sample = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    block = tile * BLOCKS + tl.arange(0, BLOCKS)
    seed = tl.load(seeds + sample * stride)
    word0, word1, word2, word3 = tl.philox(seed, block, 0, stream.to(tl.uint32), 0)
    normal0, normal1 = _box_muller(word0, word1)
    normal2, normal3 = _box_muller(word2, word3)
    # Side by side, so that 16 bytes are written at once.
    normal = tl.join(tl.join(normal0, normal2), tl.join(normal1, normal3)).reshape(4 * BLOCKS)
    element = tile * 4 * BLOCKS + tl.arange(0, 4 * BLOCKS)
    tl.store(out + sample * count + element, normal, mask=element < count)


@triton.jit
def _box_muller(first, second):
    """Two normals of two random words."""
    uniform = (first.to(tl.float32) + 1.0) * _TWO_TO_MINUS_32
    radius = tl.sqrt(-2.0 * tl.log(uniform))
    # Quarters begin an eighth of a turn early, so that the rest goes from -1 / 8 to 1 / 8.
    shifted = second + (1 << 29)
    quarter = shifted >> 30
    rest = (shifted & ((1 << 30) - 1)).to(tl.int32) - (1 << 29)
    angle = rest.to(tl.float32) * _UNIT_ANGLE
    square = angle * angle
    # Taylor: up to pi / 4, what is left out is below 2e-9, a fifteenth of float32's rounding.
    sine = angle + angle * square * (-1 / 6 + square * (1 / 120 + square * (-1 / 5040 + square * (1 / 362880))))
    cosine = 1.0 + square * (
        -1 / 2 + square * (1 / 24 + square * (-1 / 720 + square * (1 / 40320 + square * (-1 / 3628800))))
    )
    across = (quarter & 1) == 1
    x = tl.where(across, sine, cosine)
    y = tl.where(across, cosine, sine)
    x = tl.where((quarter == 1) | (quarter == 2), -x, x)
    y = tl.where(quarter >= 2, -y, y)
    return radius * x, radius * y
