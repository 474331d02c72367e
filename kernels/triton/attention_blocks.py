"""Whole attention blocks of the U-Net, norm to residual, in two launches; q, k, v and logits are not in memory.

The first takes one head of one sequence per program: norm, projection to q, k and v, attention. A sequence is a column
of slices, or the positions of a slice. The second adds the projection of all heads to the input. The pairs of channels
that a rotation mixes are kept as two halves, for q and k alike, which leaves q.k as it is.

Bound at 24 slices of 24 x 24 positions, 24 channels and 8 heads of 32 channels, in bfloat16: 2 MB in and out and 14 MB
of attended heads between the launches, 5 us at 3 TB/s. As single operations a block moves 61 MB in five launches. At
the other levels launches decide.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from nnunet_difftumor.errors import InputError

# Of a softmax, whose logits are in registers: slices of a column, or positions of a slice.
MOST_TOKENS = 128
MOST_HEAD_DIM = 128
# Positions of a tile of linear attention. Exact float32 products take three parts of each operand, which would not fit
# into registers.
_POSITIONS, _POSITIONS_IN_THREE_PARTS = 64, 16
# Of the second launch: rows where there are many, rows where there are few, and programs that are many.
_ROWS, _FEW_ROWS, _PROGRAMS = 64, 16, 132
_MOST_COLUMNS = 64


def check(x: torch.Tensor, *, heads: int, head_dim: int, tokens: int = 1) -> None:
    """Raises an InputError for sizes that the kernels cannot take; `tokens` are the slices under a softmax."""
    if tokens > MOST_TOKENS:
        raise InputError(f"x: has {tokens} slices, the kernel takes up to {MOST_TOKENS}; take a smaller patch")
    if head_dim > MOST_HEAD_DIM:
        raise InputError(f"to_qkv: has {head_dim} channels per head, the kernel takes up to {MOST_HEAD_DIM}")
    # Offsets within a sample are computed in 32 bits.
    elements = x[0, 0].numel() * heads * head_dim
    if elements >= 2**31:
        raise InputError(f"x: its heads have {elements} elements in a sample, the kernels take up to {2**31}")


@torch.library.custom_op("nnunet_difftumor::depth_block", mutates_args=())
def depth_block(
    x: torch.Tensor,
    gain: torch.Tensor,
    to_qkv: torch.Tensor,
    to_out: torch.Tensor,
    bias: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    """(b, c, d, h, w), channels-last in memory; parameters are contiguous, bias, cos and sin float32."""
    batch, _, slices, height, width = x.shape
    attended = _attended(x, to_qkv)
    of_sequence = {"sequences": height * width, "sequence_width": width, "token_width": 1}
    _launch_softmax(
        *(_columns(x), gain, to_qkv, (bias, cos, sin), _columns(attended), eps),
        **{"batch": batch, "tokens": slices, "heads": len(bias), **of_sequence},
    )
    return _added(x, attended, to_out, None)


@torch.library.custom_op("nnunet_difftumor::spatial_block", mutates_args=())
def spatial_block(
    x: torch.Tensor, gain: torch.Tensor, to_qkv: torch.Tensor, to_out: torch.Tensor, heads: int, eps: float
) -> torch.Tensor:
    """(b, c, d, h, w), channels-last in memory; parameters are contiguous."""
    batch, _, slices, height, width = x.shape
    attended = _attended(x, to_qkv)
    of_sequence = {"sequences": slices, "sequence_width": 1, "token_width": width}
    _launch_softmax(
        *(_slices(x), gain, to_qkv, None, _slices(attended), eps),
        **{"batch": batch, "tokens": height * width, "heads": heads, **of_sequence},
    )
    return _added(x, attended, to_out, None)


@torch.library.custom_op("nnunet_difftumor::linear_block", mutates_args=())
def linear_block(
    x: torch.Tensor,
    gain: torch.Tensor,
    to_qkv: torch.Tensor,
    to_out: torch.Tensor,
    out_bias: torch.Tensor,
    heads: int,
    eps: float,
) -> torch.Tensor:
    """(b, c, d, h, w), channels-last in memory; parameters are contiguous."""
    batch, channels, slices, height, width = x.shape
    attended = _attended(x, to_qkv)
    head_dim = len(to_qkv) // (3 * heads)
    most = _POSITIONS_IN_THREE_PARTS if _in_three_parts(x) else _POSITIONS
    positions = min(most, max(16, triton.next_power_of_2(height * width)))
    _attend_linearly[(batch * slices, heads)](
        *(_slices(x), gain, to_qkv, _slices(attended), slices, height * width, width, eps, head_dim**-0.5),
        HEADS=heads,
        HEAD_DIM=head_dim,
        HEAD_PADDED=max(16, triton.next_power_of_2(head_dim)),
        CHANNELS=channels,
        CHUNK=_chunk(x),
        POSITIONS=positions,
        PRECISION=_precision(),
        num_warps=4 if positions >= 64 else 2,
        num_stages=2,
    )
    return _added(x, attended, to_out, out_bias)


@depth_block.register_fake
def _(x, gain, to_qkv, to_out, bias, cos, sin, eps):
    return _new_like(x)


@spatial_block.register_fake
def _(x, gain, to_qkv, to_out, heads, eps):
    return _new_like(x)


@linear_block.register_fake
def _(x, gain, to_qkv, to_out, out_bias, heads, eps):
    return _new_like(x)


class _Tokens(NamedTuple):
    """A tensor (b, c, d, h, w) as sequences of tokens: strides of all that a kernel goes along.

    Sequences, and the tokens of each, are numbered in rows of a width that the kernel is told: `outer` is the stride
    from row to row, `inner` that within one.
    """

    elements: torch.Tensor
    batch: int
    outer: int
    inner: int
    token_outer: int
    token_inner: int
    channel: int


def _columns(tensor: torch.Tensor) -> _Tokens:
    """A sequence of slices at each position."""
    batch, channel, slice_, row, column = tensor.stride()
    return _Tokens(tensor, batch, row, column, slice_, 0, channel)


def _slices(tensor: torch.Tensor) -> _Tokens:
    """A sequence of positions in each slice."""
    batch, channel, slice_, row, column = tensor.stride()
    return _Tokens(tensor, batch, slice_, 0, row, column, channel)


def _new_like(x: torch.Tensor, *, channels: int | None = None) -> torch.Tensor:
    batch, own, *volume = x.shape
    return x.new_empty((batch, *volume, channels or own)).movedim(-1, 1)


def _attended(x: torch.Tensor, to_qkv: torch.Tensor) -> torch.Tensor:
    """For all heads of every position."""
    return _new_like(x, channels=len(to_qkv) // 3)


def _precision() -> str:
    """Rounding to tf32 only where the user lets matrix products do so."""
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def _in_three_parts(x: torch.Tensor) -> bool:
    return x.dtype == torch.float32 and _precision() == "tf32x3"


def _chunk(x: torch.Tensor) -> int:
    """Channels that are multiplied at once; few where registers are short."""
    return 16 if x.shape[1] <= 16 or _in_three_parts(x) else 32


def _launch_softmax(
    x: _Tokens,
    gain: torch.Tensor,
    to_qkv: torch.Tensor,
    places: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None,
    out: _Tokens,
    eps: float,
    *,
    batch: int,
    tokens: int,
    heads: int,
    sequences: int,
    sequence_width: int,
    token_width: int,
) -> None:
    head_dim = len(to_qkv) // (3 * heads)
    tile = max(16, triton.next_power_of_2(tokens))
    bias, cos, sin = places or (None, None, None)
    _attend[(batch * sequences, heads)](
        *(x, gain, to_qkv, bias, cos, sin, out),
        *(sequences, sequence_width, token_width, eps, head_dim**-0.5),
        TOKENS=tokens,
        TILE=tile,
        HEADS=heads,
        HEAD_DIM=head_dim,
        HALF=max(16, triton.next_power_of_2(head_dim) // 2),
        CHANNELS=x.elements.shape[1],
        CHUNK=_chunk(x.elements),
        PRECISION=_precision(),
        num_warps=max(4 if x.elements.dtype == torch.float32 else 2, tile // 16),
        num_stages=2,
    )


def _added(
    x: torch.Tensor, attended: torch.Tensor, to_out: torch.Tensor, out_bias: torch.Tensor | None
) -> torch.Tensor:
    """x and the projection of all heads."""
    batch, channels, slices, height, width = x.shape
    out = _new_like(x)
    positions, inner = slices * height * width, attended.shape[1]
    columns = min(_MOST_COLUMNS, max(16, triton.next_power_of_2(channels)))
    rows = _ROWS if batch * triton.cdiv(positions, _ROWS) >= _PROGRAMS and not _in_three_parts(x) else _FEW_ROWS
    _project_and_add[(triton.cdiv(positions, rows), triton.cdiv(channels, columns), batch)](
        *(attended, to_out, out_bias, x, out, positions, height * width, width, *x.stride()),
        CHANNELS=channels,
        INNER=inner,
        ROWS=rows,
        COLUMNS=columns,
        CHUNK=min(32 if _in_three_parts(x) else 64, max(16, triton.next_power_of_2(inner))),
        PRECISION=_precision(),
        num_warps=4 if rows == _ROWS else 2,
        num_stages=3,
    )
    return out


_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _channels(source, at, inside, stride, start, CHANNELS: tl.constexpr, CHUNK: tl.constexpr):
    """(tokens, channels from `start` on) in float32; 0 beyond, and which are not beyond."""
    channel = start + tl.arange(0, CHUNK)
    present = inside[:, None] & (channel < CHANNELS)[None, :]
    values = tl.load(source + at[:, None] + channel[None, :] * stride, mask=present, other=0.0)
    return values.to(tl.float32), present


@triton.jit
def _moments(source, at, inside, stride, eps, CHANNELS: tl.constexpr, CHUNK: tl.constexpr):
    """Mean and reciprocal deviation of each token's channels, from differences to the mean: no digits cancel."""
    total = tl.sum(_channels(source, at, inside, stride, 0, CHANNELS, CHUNK)[0], 1)
    for start in range(CHUNK, CHANNELS, CHUNK):
        total += tl.sum(_channels(source, at, inside, stride, start, CHANNELS, CHUNK)[0], 1)
    mean = total / CHANNELS
    squares = tl.zeros_like(mean)
    for start in range(0, CHANNELS, CHUNK):
        values, present = _channels(source, at, inside, stride, start, CHANNELS, CHUNK)
        difference = tl.where(present, values - mean[:, None], 0.0)
        squares += tl.sum(difference * difference, 1)
    return mean, 1.0 / tl.sqrt(squares / CHANNELS + eps)


@triton.jit
def _normed(source, at, inside, stride, start, mean, reciprocal, gain, CHANNELS: tl.constexpr, CHUNK: tl.constexpr):
    """(tokens, channels from `start` on) after the norm, in the tensor's dtype; 0 beyond."""
    values, _ = _channels(source, at, inside, stride, start, CHANNELS, CHUNK)
    channel = start + tl.arange(0, CHUNK)
    factor = tl.load(gain + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)
    return ((values - mean[:, None]) * reciprocal[:, None] * factor[None, :]).to(source.dtype.element_ty)


@triton.jit
def _rows_of(weight, row, wanted, start, dtype, CHANNELS: tl.constexpr, CHUNK: tl.constexpr):
    """(channels from `start` on, rows) of a matrix (rows, channels); 0 beyond."""
    channel = start + tl.arange(0, CHUNK)
    present = (channel < CHANNELS)[:, None] & wanted[None, :]
    return tl.load(weight + row[None, :] * CHANNELS + channel[:, None], mask=present, other=0.0).to(dtype)


@triton.jit
def _attend(
    x,
    gain,
    to_qkv,
    bias,
    cos,
    sin,
    out,
    sequences,
    sequence_width,
    token_width,
    eps,
    scale,
    TOKENS: tl.constexpr,
    TILE: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    CHANNELS: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    batch = (tl.program_id(0) // sequences).to(tl.int64)
    sequence = tl.program_id(0) % sequences
    head = tl.program_id(1)
    token = tl.arange(0, TILE)
    half = tl.arange(0, HALF)
    whole = tl.arange(0, 2 * HALF)
    inside = token < TOKENS
    dtype = x.elements.dtype.element_ty
    row, column = sequence // sequence_width, sequence % sequence_width
    source = x.elements + batch * x.batch + row * x.outer + column * x.inner
    at = token // token_width * x.token_outer + token % token_width * x.token_inner
    mean, reciprocal = _moments(source, at, inside, x.channel, eps, CHANNELS, CHUNK)
    q_even = tl.zeros((TILE, HALF), tl.float32)
    q_odd = tl.zeros((TILE, HALF), tl.float32)
    k_even = tl.zeros((TILE, HALF), tl.float32)
    k_odd = tl.zeros((TILE, HALF), tl.float32)
    v = tl.zeros((TILE, 2 * HALF), tl.float32)
    of_pair = half < HEAD_DIM // 2
    of_head = whole < HEAD_DIM
    even = head * HEAD_DIM + 2 * half
    to_next = HEADS * HEAD_DIM
    for start in range(0, CHANNELS, CHUNK):
        normed = _normed(source, at, inside, x.channel, start, mean, reciprocal, gain, CHANNELS, CHUNK)
        weight = _rows_of(to_qkv, even, of_pair, start, dtype, CHANNELS, CHUNK)
        q_even = tl.dot(normed, weight, acc=q_even, input_precision=PRECISION)
        weight = _rows_of(to_qkv, even + 1, of_pair, start, dtype, CHANNELS, CHUNK)
        q_odd = tl.dot(normed, weight, acc=q_odd, input_precision=PRECISION)
        weight = _rows_of(to_qkv, to_next + even, of_pair, start, dtype, CHANNELS, CHUNK)
        k_even = tl.dot(normed, weight, acc=k_even, input_precision=PRECISION)
        weight = _rows_of(to_qkv, to_next + even + 1, of_pair, start, dtype, CHANNELS, CHUNK)
        k_odd = tl.dot(normed, weight, acc=k_odd, input_precision=PRECISION)
        weight = _rows_of(to_qkv, 2 * to_next + head * HEAD_DIM + whole, of_head, start, dtype, CHANNELS, CHUNK)
        v = tl.dot(normed, weight, acc=v, input_precision=PRECISION)
    if cos is not None:
        turned = inside[:, None] & of_pair[None, :]
        angle = token[:, None] * (HEAD_DIM // 2) + half[None, :]
        cosine = tl.load(cos + angle, mask=turned, other=0.0)
        sine = tl.load(sin + angle, mask=turned, other=0.0)
        q_even, q_odd = q_even * cosine - q_odd * sine, q_odd * cosine + q_even * sine
        k_even, k_odd = k_even * cosine - k_odd * sine, k_odd * cosine + k_even * sine
    in_log2 = scale * _LOG2E
    logits = tl.dot((q_even * in_log2).to(dtype), tl.trans(k_even.to(dtype)), input_precision=PRECISION)
    logits = tl.dot((q_odd * in_log2).to(dtype), tl.trans(k_odd.to(dtype)), acc=logits, input_precision=PRECISION)
    if bias is not None:
        pairs = inside[:, None] & inside[None, :]
        place = (head * TOKENS + token[:, None]) * TOKENS + token[None, :]
        logits += tl.load(bias + place, mask=pairs, other=0.0) * _LOG2E
    logits = tl.where(inside[None, :], logits, float("-inf"))
    power = tl.exp2(logits - tl.max(logits, 1)[:, None])
    attended = tl.dot(power.to(dtype), v.to(dtype), input_precision=PRECISION) / tl.sum(power, 1)[:, None]
    target = out.elements + batch * out.batch + row * out.outer + column * out.inner + head * HEAD_DIM * out.channel
    to = token // token_width * out.token_outer + token % token_width * out.token_inner
    tl.store(
        target + to[:, None] + whole[None, :] * out.channel,
        attended.to(out.elements.dtype.element_ty),
        mask=inside[:, None] & of_head[None, :],
    )


@triton.jit
def _attend_linearly(
    x,
    gain,
    to_qkv,
    out,
    slices,
    count,
    width,
    eps,
    scale,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_PADDED: tl.constexpr,
    CHANNELS: tl.constexpr,
    CHUNK: tl.constexpr,
    POSITIONS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Goes over the positions of a slice twice, with a running maximum for the softmax of k: any number of them."""
    batch = (tl.program_id(0) // slices).to(tl.int64)
    slice_ = tl.program_id(0) % slices
    head = tl.program_id(1)
    source = x.elements + batch * x.batch + slice_ * x.outer
    target = out.elements + batch * out.batch + slice_ * out.outer + head * HEAD_DIM * out.channel
    dtype = x.elements.dtype.element_ty
    position = tl.arange(0, POSITIONS)
    channel = tl.arange(0, HEAD_PADDED)
    real = channel < HEAD_DIM
    of_q = head * HEAD_DIM + channel
    to_next = HEADS * HEAD_DIM
    largest = tl.full((HEAD_PADDED,), float("-inf"), tl.float32)
    total = tl.zeros((HEAD_PADDED,), tl.float32)
    context = tl.zeros((HEAD_PADDED, HEAD_PADDED), tl.float32)
    for first in range(0, count, POSITIONS):
        here = first + position
        inside = here < count
        at = here // width * x.token_outer + here % width * x.token_inner
        mean, reciprocal = _moments(source, at, inside, x.channel, eps, CHANNELS, CHUNK)
        k = tl.zeros((POSITIONS, HEAD_PADDED), tl.float32)
        v = tl.zeros((POSITIONS, HEAD_PADDED), tl.float32)
        for start in range(0, CHANNELS, CHUNK):
            normed = _normed(source, at, inside, x.channel, start, mean, reciprocal, gain, CHANNELS, CHUNK)
            weight = _rows_of(to_qkv, to_next + of_q, real, start, dtype, CHANNELS, CHUNK)
            k = tl.dot(normed, weight, acc=k, input_precision=PRECISION)
            weight = _rows_of(to_qkv, 2 * to_next + of_q, real, start, dtype, CHANNELS, CHUNK)
            v = tl.dot(normed, weight, acc=v, input_precision=PRECISION)
        k = tl.where(inside[:, None], k * _LOG2E, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(k, 0))
        shrink = tl.exp2(largest - new_largest)
        power = tl.exp2(k - new_largest[None, :])
        total = total * shrink + tl.sum(power, 0)
        added = tl.dot(tl.trans(power.to(dtype)), v.to(dtype), input_precision=PRECISION)
        context = context * shrink[:, None] + added
        largest = new_largest
    context = (context * (scale / total)[:, None]).to(dtype)
    for first in range(0, count, POSITIONS):
        here = first + position
        inside = here < count
        at = here // width * x.token_outer + here % width * x.token_inner
        mean, reciprocal = _moments(source, at, inside, x.channel, eps, CHANNELS, CHUNK)
        q = tl.zeros((POSITIONS, HEAD_PADDED), tl.float32)
        for start in range(0, CHANNELS, CHUNK):
            normed = _normed(source, at, inside, x.channel, start, mean, reciprocal, gain, CHANNELS, CHUNK)
            weight = _rows_of(to_qkv, of_q, real, start, dtype, CHANNELS, CHUNK)
            q = tl.dot(normed, weight, acc=q, input_precision=PRECISION)
        q = tl.where(real[None, :], q * _LOG2E, float("-inf"))
        power = tl.exp2(q - tl.max(q, 1)[:, None])
        share = (power / tl.sum(power, 1)[:, None]).to(dtype)
        attended = tl.dot(share, context, input_precision=PRECISION)
        to = here // width * out.token_outer + here % width * out.token_inner
        tl.store(
            target + to[:, None] + channel[None, :] * out.channel,
            attended.to(out.elements.dtype.element_ty),
            mask=inside[:, None] & real[None, :],
        )


@triton.jit
def _project_and_add(
    attended,
    to_out,
    out_bias,
    x,
    out,
    positions,
    area,
    width,
    in_batch,
    in_channel,
    in_slice,
    in_row,
    in_column,
    CHANNELS: tl.constexpr,
    INNER: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Channels-last memory but for x, whose strides are given."""
    sample = tl.program_id(2).to(tl.int64)
    position = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = position < positions
    real = channel < CHANNELS
    present = inside[:, None] & real[None, :]
    dtype = x.dtype.element_ty
    heads = attended + sample * positions * INNER + position * INNER
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, INNER, CHUNK):
        element = start + tl.arange(0, CHUNK)
        wanted = inside[:, None] & (element < INNER)[None, :]
        values = tl.load(heads[:, None] + element[None, :], mask=wanted, other=0.0)
        weight = _rows_of(to_out, channel, real, start, dtype, INNER, CHUNK)
        total = tl.dot(values, weight, acc=total, input_precision=PRECISION)
    if out_bias is not None:
        total += tl.load(out_bias + channel, mask=real, other=0.0).to(tl.float32)[None, :]
    at = position // area * in_slice + position % area // width * in_row + position % width * in_column
    before = tl.load(x + sample * in_batch + at[:, None] + channel[None, :] * in_channel, mask=present, other=0.0)
    total += before.to(tl.float32)
    target = out + sample * positions * CHANNELS + position[:, None] * CHANNELS + channel[None, :]
    tl.store(target, total.to(out.dtype.element_ty), mask=present)
