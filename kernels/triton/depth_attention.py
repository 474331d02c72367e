"""Attention along depth, one head of a few columns per program; no logits in memory.

A column is a sequence of d slices at one in-plane position. The pairs of channels that a rotation mixes are kept as two
halves, for q and k alike, which leaves q.k as it is.

Forward and backward move each tensor once between memory and chip. Bound at 24 x 24 columns of 24 slices and 8 heads of
32 channels, in bfloat16: 28 MB and 9 us forward, 50 MB and 17 us backward, at 3 TB/s; the logits alone, in float32, are
10.6 MB written and read in every pass of plain PyTorch.
"""

import torch
import triton
import triton.language as tl
from torch.utils.weak import WeakTensorKeyDictionary

from nnunet_difftumor.errors import InputError

MOST_SLICES = 128
MOST_HEAD_DIM = 128
# Groups of columns per head that are wanted at most: each has a partial sum of the bias's gradient.
_MOST_GROUPS = 264
_COLUMNS = 4

_tables: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def check(qkv: torch.Tensor, bias: torch.Tensor) -> None:
    """Raises an InputError for sizes that the kernel cannot take."""
    slices, head_dim = qkv.shape[2], qkv.shape[1] // (3 * bias.shape[0])
    if slices > MOST_SLICES:
        raise InputError(f"qkv: has {slices} slices, the kernel takes up to {MOST_SLICES}; take a smaller patch")
    if head_dim > MOST_HEAD_DIM:
        raise InputError(f"qkv: has {head_dim} channels per head, the kernel takes up to {MOST_HEAD_DIM}")


def rotation(frequencies: torch.Tensor, slices: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine, float32 (slices, head_dim / 2), once for every state of this tensor."""
    made = {} if frequencies.is_inference() else _tables.setdefault(frequencies, {})
    key = None if frequencies.is_inference() else (slices, frequencies._version)
    if key not in made:
        positions = torch.arange(slices, device=frequencies.device, dtype=torch.float32)
        angles = positions[:, None] * frequencies.detach().float()
        made[key] = (angles.cos(), angles.sin())
    return made[key]


@torch.library.custom_op("nnunet_difftumor::depth_attention", mutates_args=())
def depth_attention(qkv: torch.Tensor, bias: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """(b, heads * head_dim, d, h, w), channels-last in memory; cos and sin from `rotation`, bias float32."""
    out = _new_like(qkv, channels=qkv.shape[1] // 3)
    grid, options = _launch(qkv, bias)
    _forward[grid](
        qkv, bias, cos, sin, out, *_sizes(qkv), *qkv.stride(), *out.stride(), **options, num_warps=2, num_stages=2
    )
    return out


@depth_attention.register_fake
def _(qkv, bias, cos, sin):
    return _new_like(qkv, channels=qkv.shape[1] // 3)


@torch.library.custom_op("nnunet_difftumor::depth_attention_backward", mutates_args=())
def depth_attention_backward(
    gradient: torch.Tensor, qkv: torch.Tensor, bias: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of qkv and bias. The latter adds up in a fixed order."""
    of_qkv = _new_like(qkv, channels=qkv.shape[1])
    grid, options = _launch(qkv, bias)
    partial = bias.new_empty((grid[1], *bias.shape))
    _backward[grid](
        *(qkv, bias, cos, sin, gradient, of_qkv, partial),
        *_sizes(qkv),
        *(*qkv.stride(), *gradient.stride(), *of_qkv.stride()),
        **options,
        num_warps=2,
        num_stages=1,
    )
    return of_qkv, partial.sum(0)


@depth_attention_backward.register_fake
def _(gradient, qkv, bias, cos, sin):
    return _new_like(qkv, channels=qkv.shape[1]), torch.empty_like(bias)


def _save(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx, gradient):
    return *depth_attention_backward(gradient, *ctx.saved_tensors), None, None


depth_attention.register_autograd(_gradients, setup_context=_save)


def _new_like(qkv: torch.Tensor, *, channels: int) -> torch.Tensor:
    batch, _, *volume = qkv.shape
    return qkv.new_empty((batch, *volume, channels)).movedim(-1, 1)


def _sizes(qkv: torch.Tensor) -> tuple[int, int, int]:
    """Number of columns, height, width."""
    batch, _, _, height, width = qkv.shape
    return batch * height * width, height, width


def _launch(qkv: torch.Tensor, bias: torch.Tensor) -> tuple[tuple[int, int], dict]:
    heads, slices, _ = bias.shape
    head_dim = qkv.shape[1] // (3 * heads)
    columns = _sizes(qkv)[0]
    per_program = max(_COLUMNS, triton.cdiv(columns, _MOST_GROUPS))
    # Rounding to tf32 only where the user lets matrix products do so.
    exact = torch.get_float32_matmul_precision() == "highest"
    return (heads, triton.cdiv(columns, per_program)), {
        "scale": head_dim**-0.5,
        "per_program": per_program,
        "SLICES": slices,
        "SLICES_PADDED": max(16, triton.next_power_of_2(slices)),
        "HEADS": heads,
        "HEAD_DIM": head_dim,
        "HALF": max(16, triton.next_power_of_2(head_dim) // 2),
        "PRECISION": "tf32x3" if exact else "tf32",
    }


_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _tile(
    pointer,
    stride_slice,
    stride_channel,
    inside,
    SLICES_PADDED: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
):
    """(slices, channels) of one head in one column; 0 beyond."""
    slices = tl.arange(0, SLICES_PADDED)
    channels = tl.arange(0, 2 * HALF)
    return tl.load(
        pointer + slices[:, None] * stride_slice + channels[None, :] * stride_channel,
        mask=inside[:, None] & (channels < HEAD_DIM)[None, :],
        other=0.0,
    )


@triton.jit
def _rotated(tile, cos, sin, SLICES_PADDED: tl.constexpr, HALF: tl.constexpr):
    """The two halves, float32, each pair of channels turned by its slice's angle."""
    even, odd = tl.split(tl.reshape(tile.to(tl.float32), (SLICES_PADDED, HALF, 2)))
    return even * cos - odd * sin, odd * cos + even * sin


@triton.jit
def _rotated_tile(
    pointer,
    stride_slice,
    stride_channel,
    inside,
    cos,
    sin,
    SLICES_PADDED: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
):
    """The two halves of a tile in its own dtype, turned."""
    tile = _tile(pointer, stride_slice, stride_channel, inside, SLICES_PADDED, HEAD_DIM, HALF)
    even, odd = _rotated(tile, cos, sin, SLICES_PADDED, HALF)
    return even.to(tile.dtype), odd.to(tile.dtype)


@triton.jit
def _constants(
    bias, cos, sin, head, SLICES: tl.constexpr, SLICES_PADDED: tl.constexpr, HEAD_DIM: tl.constexpr, HALF: tl.constexpr
):
    """Bias in units of log 2, -inf for keys that are not there; cosine and sine."""
    slices = tl.arange(0, SLICES_PADDED)
    half = tl.arange(0, HALF)
    inside = slices < SLICES
    present = inside[:, None] & (half < HEAD_DIM // 2)[None, :]
    at = slices[:, None] * (HEAD_DIM // 2) + half[None, :]
    pairs = inside[:, None] & inside[None, :]
    weights = tl.load(bias + (head * SLICES + slices[:, None]) * SLICES + slices[None, :], mask=pairs, other=0.0)
    weights = tl.where(inside[None, :], weights * _LOG2E, float("-inf"))
    return weights, tl.load(cos + at, mask=present, other=0.0), tl.load(sin + at, mask=present, other=0.0)


@triton.jit
def _forward(
    qkv,
    bias,
    cos,
    sin,
    out,
    columns,
    height,
    width,
    in_batch,
    in_channel,
    in_slice,
    in_row,
    in_column,
    out_batch,
    out_channel,
    out_slice,
    out_row,
    out_column,
    scale,
    per_program,
    SLICES: tl.constexpr,
    SLICES_PADDED: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    PRECISION: tl.constexpr,
):
    head = tl.program_id(0)
    slices = tl.arange(0, SLICES_PADDED)
    channels = tl.arange(0, 2 * HALF)
    weights, cosine, sine = _constants(bias, cos, sin, head, SLICES, SLICES_PADDED, HEAD_DIM, HALF)
    dtype = qkv.dtype.element_ty
    of_head = head * HEAD_DIM * in_channel
    to_next = HEADS * HEAD_DIM * in_channel
    for step in range(per_program):
        column = tl.program_id(1) * per_program + step
        inside = (slices < SLICES) & (column < columns)
        batch = (column // (height * width)).to(tl.int64)
        row = column // width % height
        source = qkv + batch * in_batch + row * in_row + column % width * in_column + of_head
        q = _tile(source, in_slice, in_channel, inside, SLICES_PADDED, HEAD_DIM, HALF)
        k = _tile(source + to_next, in_slice, in_channel, inside, SLICES_PADDED, HEAD_DIM, HALF)
        v = _tile(source + 2 * to_next, in_slice, in_channel, inside, SLICES_PADDED, HEAD_DIM, HALF)
        q_even, q_odd = _rotated(q, cosine, sine, SLICES_PADDED, HALF)
        k_even, k_odd = _rotated(k, cosine, sine, SLICES_PADDED, HALF)
        in_log2 = scale * _LOG2E
        logits = tl.dot((q_even * in_log2).to(dtype), tl.trans(k_even.to(dtype)), input_precision=PRECISION)
        logits = tl.dot((q_odd * in_log2).to(dtype), tl.trans(k_odd.to(dtype)), acc=logits, input_precision=PRECISION)
        logits += weights
        power = tl.exp2(logits - tl.max(logits, 1)[:, None])
        attended = tl.dot(power.to(dtype), v, input_precision=PRECISION) / tl.sum(power, 1)[:, None]
        target = out + batch * out_batch + row * out_row + column % width * out_column + head * HEAD_DIM * out_channel
        tl.store(
            target + slices[:, None] * out_slice + channels[None, :] * out_channel,
            attended.to(out.dtype.element_ty),
            mask=inside[:, None] & (channels < HEAD_DIM)[None, :],
        )


@triton.jit
def _backward(
    qkv,
    bias,
    cos,
    sin,
    gradient,
    of_qkv,
    partial,
    columns,
    height,
    width,
    in_batch,
    in_channel,
    in_slice,
    in_row,
    in_column,
    gradient_batch,
    gradient_channel,
    gradient_slice,
    gradient_row,
    gradient_column,
    out_batch,
    out_channel,
    out_slice,
    out_row,
    out_column,
    scale,
    per_program,
    SLICES: tl.constexpr,
    SLICES_PADDED: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Computes the attention again: cheaper than to keep it.

    Registers are what is short: constants are read in every step, and in float32, whose products need three parts of
    each operand, q and k are read again, from the cache.
    """
    head = tl.program_id(0)
    slices = tl.arange(0, SLICES_PADDED)
    channels = tl.arange(0, 2 * HALF)
    dtype = qkv.dtype.element_ty
    of_head = head * HEAD_DIM * in_channel
    to_next = HEADS * HEAD_DIM * in_channel
    of_bias = tl.zeros((SLICES_PADDED, SLICES_PADDED), tl.float32)
    for step in tl.range(per_program, disable_licm=True):
        weights, cosine, sine = _constants(bias, cos, sin, head, SLICES, SLICES_PADDED, HEAD_DIM, HALF)
        column = tl.program_id(1) * per_program + step
        inside = (slices < SLICES) & (column < columns)
        present = inside[:, None] & (channels < HEAD_DIM)[None, :]
        batch = (column // (height * width)).to(tl.int64)
        row = column // width % height
        source = qkv + batch * in_batch + row * in_row + column % width * in_column + of_head
        target = of_qkv + batch * out_batch + row * out_row + column % width * out_column
        target += head * HEAD_DIM * out_channel + slices[:, None] * out_slice + channels[None, :] * out_channel
        beyond = HEADS * HEAD_DIM * out_channel
        q_even, q_odd = _rotated_tile(source, in_slice, in_channel, inside, cosine, sine, SLICES_PADDED, HEAD_DIM, HALF)
        k_even, k_odd = _rotated_tile(
            source + to_next, in_slice, in_channel, inside, cosine, sine, SLICES_PADDED, HEAD_DIM, HALF
        )
        logits = tl.dot(q_even, tl.trans(k_even), input_precision=PRECISION)
        logits = tl.dot(q_odd, tl.trans(k_odd), acc=logits, input_precision=PRECISION)
        logits = logits * (scale * _LOG2E) + weights
        power = tl.exp2(logits - tl.max(logits, 1)[:, None])
        attention = power / tl.sum(power, 1)[:, None]
        above = gradient + batch * gradient_batch + row * gradient_row + column % width * gradient_column
        above += head * HEAD_DIM * gradient_channel
        g = _tile(above, gradient_slice, gradient_channel, inside, SLICES_PADDED, HEAD_DIM, HALF).to(dtype)
        of_v = tl.dot(tl.trans(attention.to(dtype)), g, input_precision=PRECISION)
        tl.store(target + 2 * beyond, of_v.to(of_qkv.dtype.element_ty), mask=present)
        v = _tile(source + 2 * to_next, in_slice, in_channel, inside, SLICES_PADDED, HEAD_DIM, HALF)
        of_attention = tl.dot(g, tl.trans(v), input_precision=PRECISION)
        of_logits = attention * (of_attention - tl.sum(attention * of_attention, 1)[:, None])
        of_bias += of_logits
        scaled = (of_logits * scale).to(dtype)
        if dtype == tl.float32:
            k_even, k_odd = _rotated_tile(
                source + to_next, in_slice, in_channel, inside, cosine, sine, SLICES_PADDED, HEAD_DIM, HALF
            )
        # Turned back, and the halves made pairs again.
        even = tl.dot(scaled, k_even, input_precision=PRECISION)
        odd = tl.dot(scaled, k_odd, input_precision=PRECISION)
        of_q = tl.join(even * cosine + odd * sine, odd * cosine - even * sine)
        tl.store(target, tl.reshape(of_q, (SLICES_PADDED, 2 * HALF)).to(of_qkv.dtype.element_ty), mask=present)
        if dtype == tl.float32:
            q_even, q_odd = _rotated_tile(
                source, in_slice, in_channel, inside, cosine, sine, SLICES_PADDED, HEAD_DIM, HALF
            )
        flipped = tl.trans(scaled)
        even = tl.dot(flipped, q_even, input_precision=PRECISION)
        odd = tl.dot(flipped, q_odd, input_precision=PRECISION)
        of_k = tl.join(even * cosine + odd * sine, odd * cosine - even * sine)
        tl.store(target + beyond, tl.reshape(of_k, (SLICES_PADDED, 2 * HALF)).to(of_qkv.dtype.element_ty), mask=present)
    at = ((tl.program_id(1) * HEADS + head) * SLICES + slices[:, None]) * SLICES + slices[None, :]
    tl.store(partial + at, of_bias, mask=(slices < SLICES)[:, None] & (slices < SLICES)[None, :])
