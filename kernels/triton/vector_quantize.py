"""Nearest code on the tensor cores, to the precision of float32.

A vector z and a code e are split in two float16 numbers each, |e|^2 in three, so that one matrix product over

    [z_high z_low z_high r r r] . [-2e_high -2e_high -2e_low n_1 n_2 n_3]

is r |e|^2 - 2 z.e with 22 bits, r being the power of two by which the vector is scaled into float16's range. The loop
over the codes keeps the smallest value of each row and the tile where it was; the codes of that tile are then compared
again with exact differences. Programs may share the codes of a block of vectors (`splits`): few vectors keep a large
GPU busy.

Bound for 13824 vectors and 16384 codes: 14.5 GFLOP of float16 with float32 sums, 18 us on 800 TFLOP/s; a matrix of
distances in memory alone would take 0.9 GB of writing and reading, 600 us at 3 TB/s.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch.utils.weak import WeakTensorKeyDictionary

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels.checks import check_finite

# Three parts of z and e, and three of |e|^2, in a product over at most this many elements.
_MOST_PRODUCT = 128
MOST_CHANNELS = (_MOST_PRODUCT - 3) // 3
# Vectors and codes of a program's tile; codes compared exactly at once; programs wanted at least, on 132 processors.
_ROWS, _CODES, _EXACT = 64, 128, 16
_PROGRAMS = 264
_MOST_SPLITS = 16


def check(vectors: torch.Tensor, codebook: torch.Tensor) -> None:
    """Raises an InputError for sizes that the kernel cannot take."""
    if codebook.shape[1] > MOST_CHANNELS:
        raise InputError(f"codebook: has {codebook.shape[1]} channels, the kernel takes up to {MOST_CHANNELS}")
    # Offsets are computed in 32 bits, also those into the packed codes.
    for name, tensor, wide in (("vectors", vectors, vectors.shape[1]), ("codebook", codebook, _MOST_PRODUCT)):
        most = 2**31 // wide - _CODES
        if len(tensor) > most:
            raise InputError(f"{name}: has {len(tensor)} rows, the kernel takes up to {most}; take fewer at a time")


class PackedCodebook(NamedTuple):
    """A codebook as the search reads it; made once for codes that do not change.

    Attributes:
        codes: float32 (k, c).
        operand: float16 (k rounded up to tiles, elements of the product).
        scale: float32 (1,), the power of two that codes and vectors are multiplied by.
    """

    codes: torch.Tensor
    operand: torch.Tensor
    scale: torch.Tensor


def pack_codebook(codebook: torch.Tensor) -> PackedCodebook:
    """Packs a codebook (k, c) of at most MOST_CHANNELS channels."""
    codes, channels = codebook.shape
    wide = codebook.detach().float().contiguous()
    largest = torch.linalg.vector_norm(wide, torch.inf)
    scale = torch.exp2(-torch.ceil(torch.log2(largest.clamp(2.0**-60, 2.0**60)))).reshape(1)
    scaled = wide * scale
    minus_double = -2 * scaled
    high = minus_double.half()
    low = (minus_double - high.float()).half()
    norms = scaled.square().sum(1, keepdim=True)
    parts = []
    for _ in range(3):
        parts.append(norms.half())
        norms = norms - parts[-1].float()
    product = max(16, triton.next_power_of_2(3 * channels + 3))
    operand = torch.zeros(triton.cdiv(codes, _CODES) * _CODES, product, dtype=torch.float16, device=codebook.device)
    operand[:codes, : 3 * channels + 3] = torch.cat((high, high, low, *parts), 1)
    # What only fills the last tile is as near as a code of that tile, so that it decides nothing.
    operand[codes:] = operand[codes - 1]
    return PackedCodebook(wide, operand, scale)


_packed: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def packed_codebook(codebook: torch.Tensor) -> PackedCodebook:
    """`pack_codebook`, once for every state of this tensor."""
    if codebook.is_inference():
        return pack_codebook(codebook)
    version, packed = _packed.get(codebook, (None, None))
    if version != codebook._version:
        # Waits for the device, once for every state of the codebook.
        if not (codebook.is_cuda and torch.cuda.is_current_stream_capturing()):
            check_finite("codebook", codebook)
        packed = pack_codebook(codebook)
        _packed[codebook] = (codebook._version, packed)
    return packed


@torch.library.custom_op("nnunet_difftumor::nearest_code", mutates_args=())
def nearest_code(
    vectors: torch.Tensor, codes: torch.Tensor, operand: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Nearest code of each vector; the lowest index on ties. Two launches.

    Args:
        vectors: float32 (n, c), contiguous.
        codes, operand, scale: of a PackedCodebook.

    Returns:
        indices int64 (n,), the codes themselves float32 (n, c), and their mean squared differences float32 (n,).
    """
    count, channels = vectors.shape
    tiles = len(operand) // _CODES
    blocks = triton.cdiv(count, _ROWS)
    splits = max(1, min(_MOST_SPLITS, tiles, _PROGRAMS // blocks))
    splits = triton.cdiv(tiles, triton.cdiv(tiles, splits))
    indices = vectors.new_empty((splits, count), dtype=torch.int64)
    distances = vectors.new_empty((splits, count))
    _search[(blocks, splits)](
        vectors,
        operand,
        scale,
        codes,
        indices,
        distances,
        count,
        len(codes),
        tiles,
        triton.cdiv(tiles, splits),
        CHANNELS=channels,
        CHANNELS_PADDED=triton.next_power_of_2(channels),
        PRODUCT=operand.shape[1],
        ROWS=_ROWS,
        CODES=_CODES,
        EXACT=_EXACT,
        num_warps=4,
        num_stages=3,
    )
    found = _new_results(vectors)
    _take[(blocks,)](
        *(indices, distances, codes, *found, count, splits),
        CHANNELS=channels,
        CHANNELS_PADDED=triton.next_power_of_2(channels),
        ROWS=_ROWS,
        num_warps=4,
    )
    return found


@nearest_code.register_fake
def _(vectors, codes, operand, scale):
    return _new_results(vectors)


def _new_results(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    count = len(vectors)
    return vectors.new_empty(count, dtype=torch.int64), torch.empty_like(vectors), vectors.new_empty(count)


@triton.jit
def _search(
    vectors,
    operand,
    scale,
    codes,
    indices,
    distances,
    count,
    code_count,
    tile_count,
    tiles_per_split,
    CHANNELS: tl.constexpr,
    CHANNELS_PADDED: tl.constexpr,
    PRODUCT: tl.constexpr,
    ROWS: tl.constexpr,
    CODES: tl.constexpr,
    EXACT: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = rows < count
    channels = tl.arange(0, CHANNELS_PADDED)
    present = inside[:, None] & (channels < CHANNELS)[None, :]
    whole = tl.load(vectors + rows[:, None] * CHANNELS + channels[None, :], mask=present, other=0.0)
    # Each row to at most 1 by a power of two, which the norms share: a product of powers of two is exact.
    largest = tl.max(tl.abs(whole), 1) * tl.load(scale)
    power = tl.ceil(tl.log2(tl.maximum(largest, 9.1e-13)))
    to_row = tl.exp2(-tl.minimum(tl.maximum(power, -12.0), 100.0))

    element = tl.arange(0, PRODUCT)
    part = element // CHANNELS
    wanted = inside[:, None] & (element < 3 * CHANNELS)[None, :]
    z = tl.load(vectors + rows[:, None] * CHANNELS + (element % CHANNELS)[None, :], mask=wanted, other=0.0)
    z = z * tl.load(scale) * to_row[:, None]
    high = z.to(tl.float16).to(tl.float32)
    left = tl.where((part == 1)[None, :], z - high, high)
    of_norm = (element >= 3 * CHANNELS) & (element < 3 * CHANNELS + 3)
    left = tl.where(of_norm[None, :], to_row[:, None], left).to(tl.float16)

    best = tl.full((ROWS,), float("inf"), tl.float32)
    best_tile = tl.zeros((ROWS,), tl.int32) + tl.program_id(1) * tiles_per_split
    column = tl.arange(0, CODES)
    first = tl.program_id(1) * tiles_per_split
    for tile in range(first, tl.minimum(first + tiles_per_split, tile_count)):
        right = tl.load(operand + (tile * CODES + column)[None, :] * PRODUCT + element[:, None])
        smallest = tl.min(tl.dot(left, right), 1)
        # Only a smaller value replaces: the first of equal tiles stays.
        nearer = smallest < best
        best = tl.where(nearer, smallest, best)
        best_tile = tl.where(nearer, tile, best_tile)

    nearest = tl.full((ROWS,), float("inf"), tl.float32)
    index = best_tile * CODES
    within = tl.arange(0, EXACT)
    for start in range(0, CODES, EXACT):
        candidates = best_tile[:, None] * CODES + start + within[None, :]
        real = candidates < code_count
        total = tl.zeros((ROWS, EXACT), tl.float32)
        for channel in tl.static_range(CHANNELS):
            of_vector = tl.load(vectors + rows * CHANNELS + channel, mask=inside, other=0.0)
            of_code = tl.load(codes + candidates * CHANNELS + channel, mask=real, other=0.0)
            difference = of_vector[:, None] - of_code
            total += difference * difference
        total = tl.where(real, total, float("inf"))
        smallest, at = tl.min(total, 1, return_indices=True)
        nearer = smallest < nearest
        index = tl.where(nearer, best_tile * CODES + start + at, index)
        nearest = tl.where(nearer, smallest, nearest)

    out = tl.program_id(1) * count + rows
    tl.store(indices + out, index, mask=inside)
    tl.store(distances + out, nearest, mask=inside)


@triton.jit
def _take(
    indices,
    distances,
    codes,
    index_of,
    code_of,
    difference_of,
    count,
    splits,
    CHANNELS: tl.constexpr,
    CHANNELS_PADDED: tl.constexpr,
    ROWS: tl.constexpr,
):
    """The nearest of what the splits found, and its code."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = rows < count
    nearest = tl.load(distances + rows, mask=inside, other=0.0)
    index = tl.load(indices + rows, mask=inside, other=0)
    for split in range(1, splits):
        distance = tl.load(distances + split * count + rows, mask=inside, other=0.0)
        # The first of equal distances: splits are in the order of the codes.
        nearer = distance < nearest
        index = tl.where(nearer, tl.load(indices + split * count + rows, mask=inside, other=0), index)
        nearest = tl.where(nearer, distance, nearest)
    channels = tl.arange(0, CHANNELS_PADDED)
    present = inside[:, None] & (channels < CHANNELS)[None, :]
    code = tl.load(codes + index[:, None] * CHANNELS + channels[None, :], mask=present, other=0.0)
    tl.store(code_of + rows[:, None] * CHANNELS + channels[None, :], code, mask=present)
    tl.store(index_of + rows, index, mask=inside)
    tl.store(difference_of + rows, nearest / CHANNELS, mask=inside)


@torch.library.custom_op("nnunet_difftumor::code_statistics", mutates_args=())
def code_statistics(vectors: torch.Tensor, indices: torch.Tensor, codes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """How many vectors took each code, float32 (codes,), and their sum, float32 (codes, c).

    The sums add in no fixed order, unless torch.use_deterministic_algorithms is on.
    """
    channels = vectors.shape[1]
    counts = vectors.new_zeros(codes)
    sums = vectors.new_zeros(codes, channels)
    if torch.are_deterministic_algorithms_enabled():
        # Sorted by code, and added in that order.
        counts.index_put_((indices,), counts.new_ones(len(indices)), accumulate=True)
        sums.index_put_((indices,), vectors, accumulate=True)
        return counts, sums
    _add_up[(triton.cdiv(len(vectors), _ROWS),)](
        vectors,
        indices,
        counts,
        sums,
        len(vectors),
        CHANNELS=channels,
        CHANNELS_PADDED=triton.next_power_of_2(channels),
        ROWS=_ROWS,
        num_warps=4,
    )
    return counts, sums


@code_statistics.register_fake
def _(vectors, indices, codes):
    return vectors.new_empty(codes), vectors.new_empty(codes, vectors.shape[1])


@triton.jit
def _add_up(
    vectors,
    indices,
    counts,
    sums,
    count,
    CHANNELS: tl.constexpr,
    CHANNELS_PADDED: tl.constexpr,
    ROWS: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = rows < count
    index = tl.load(indices + rows, mask=inside, other=0)
    tl.atomic_add(counts + index, 1.0, mask=inside, sem="relaxed")
    channels = tl.arange(0, CHANNELS_PADDED)
    present = inside[:, None] & (channels < CHANNELS)[None, :]
    values = tl.load(vectors + rows[:, None] * CHANNELS + channels[None, :], mask=present, other=0.0)
    tl.atomic_add(sums + index[:, None] * CHANNELS + channels[None, :], values, mask=present, sem="relaxed")
