"""Linear attention within slices: one head of one slice per program, the context (channels x channels) in registers.

With P the softmax of k over positions and Q that of q over channels, times head_dim^-0.5: context = P^T V, out = Q
context. Forward and backward go over the positions twice, with a running maximum for P, and keep nothing of their size.

Bound for 24 slices of 24 x 24 positions and 8 heads of 32 channels in bfloat16: 28 MB read and written, 9 us at 3 TB/s
(the second reading is from the second-level cache); plain PyTorch writes and reads both softmaxes in float32 besides.
"""

import torch
import triton
import triton.language as tl

from nnunet_difftumor.errors import InputError

MOST_HEAD_DIM = 128
# Positions of a tile. Exact float32 products take three parts of each operand, which would not fit into registers.
_POSITIONS, _POSITIONS_IN_THREE_PARTS = 64, 16


def check(qkv: torch.Tensor, heads: int) -> None:
    """Raises an InputError for sizes that the kernel cannot take."""
    head_dim = qkv.shape[1] // (3 * heads)
    if head_dim > MOST_HEAD_DIM:
        raise InputError(f"qkv: has {head_dim} channels per head, the kernel takes up to {MOST_HEAD_DIM}")


@torch.library.custom_op("nnunet_difftumor::spatial_linear_attention", mutates_args=())
def spatial_linear_attention(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    """(b, heads * head_dim, d, h, w), channels-last in memory."""
    out = _new_like(qkv, channels=qkv.shape[1] // 3)
    grid, sizes, options = _launch(qkv, heads)
    _forward[grid](qkv, out, *sizes, *qkv.stride(), *out.stride(), **options)
    return out


@spatial_linear_attention.register_fake
def _(qkv, heads):
    return _new_like(qkv, channels=qkv.shape[1] // 3)


@torch.library.custom_op("nnunet_difftumor::spatial_linear_attention_backward", mutates_args=())
def spatial_linear_attention_backward(gradient: torch.Tensor, qkv: torch.Tensor, heads: int) -> torch.Tensor:
    """Gradient of qkv."""
    of_qkv = _new_like(qkv, channels=qkv.shape[1])
    grid, sizes, options = _launch(qkv, heads)
    strides = (*qkv.stride(), *gradient.stride(), *of_qkv.stride())
    _backward[grid](qkv, gradient, of_qkv, *sizes, *strides, **options)
    return of_qkv


@spatial_linear_attention_backward.register_fake
def _(gradient, qkv, heads):
    return _new_like(qkv, channels=qkv.shape[1])


def _save(ctx, inputs, output) -> None:
    qkv, ctx.heads = inputs
    ctx.save_for_backward(qkv)


def _gradients(ctx, gradient):
    return spatial_linear_attention_backward(gradient, *ctx.saved_tensors, ctx.heads), None


spatial_linear_attention.register_autograd(_gradients, setup_context=_save)


def _new_like(qkv: torch.Tensor, *, channels: int) -> torch.Tensor:
    batch, _, *volume = qkv.shape
    return qkv.new_empty((batch, *volume, channels)).movedim(-1, 1)


def _launch(qkv: torch.Tensor, heads: int) -> tuple[tuple[int, int], tuple[int, int, int], dict]:
    batch, channels, slices, height, width = qkv.shape
    head_dim = channels // (3 * heads)
    # Rounding to tf32 only where the user lets matrix products do so.
    exact = torch.get_float32_matmul_precision() == "highest"
    most = _POSITIONS_IN_THREE_PARTS if exact and qkv.dtype == torch.float32 else _POSITIONS
    positions = min(most, max(16, triton.next_power_of_2(height * width)))
    return (
        (batch * slices, heads),
        (slices, height * width, width),
        {
            "scale": head_dim**-0.5,
            "HEADS": heads,
            "HEAD_DIM": head_dim,
            "CHANNELS": max(16, triton.next_power_of_2(head_dim)),
            "POSITIONS": positions,
            "PRECISION": "tf32x3" if exact else "tf32",
            "num_warps": 4 if positions >= 64 else 2,
            "num_stages": 2,
        },
    )


_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _tile(
    pointer,
    position,
    count,
    width,
    stride_row,
    stride_column,
    stride_channel,
    HEAD_DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """(positions, channels) of one head in one slice; 0 beyond."""
    channel = tl.arange(0, CHANNELS)
    at = position // width * stride_row + position % width * stride_column
    return tl.load(
        pointer + at[:, None] + channel[None, :] * stride_channel,
        mask=(position < count)[:, None] & (channel < HEAD_DIM)[None, :],
        other=0.0,
    )


@triton.jit
def _put(
    pointer,
    tile,
    position,
    count,
    width,
    stride_row,
    stride_column,
    stride_channel,
    HEAD_DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    channel = tl.arange(0, CHANNELS)
    at = position // width * stride_row + position % width * stride_column
    tl.store(
        pointer + at[:, None] + channel[None, :] * stride_channel,
        tile.to(pointer.dtype.element_ty),
        mask=(position < count)[:, None] & (channel < HEAD_DIM)[None, :],
    )


@triton.jit
def _over_channels(q, HEAD_DIM: tl.constexpr, CHANNELS: tl.constexpr):
    """Softmax over the channels of each position, float32."""
    real = (tl.arange(0, CHANNELS) < HEAD_DIM)[None, :]
    q = tl.where(real, q.to(tl.float32) * _LOG2E, float("-inf"))
    power = tl.exp2(q - tl.max(q, 1)[:, None])
    return power / tl.sum(power, 1)[:, None]


@triton.jit
def _forward(
    qkv,
    out,
    slices,
    count,
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
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    POSITIONS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    batch = (tl.program_id(0) // slices).to(tl.int64)
    depth = tl.program_id(0) % slices
    head = tl.program_id(1)
    source = qkv + batch * in_batch + depth * in_slice + head * HEAD_DIM * in_channel
    to_next = HEADS * HEAD_DIM * in_channel
    dtype = qkv.dtype.element_ty
    position = tl.arange(0, POSITIONS)
    largest = tl.full((CHANNELS,), float("-inf"), tl.float32)
    total = tl.zeros((CHANNELS,), tl.float32)
    context = tl.zeros((CHANNELS, CHANNELS), tl.float32)
    for start in range(0, count, POSITIONS):
        here = start + position
        k = _tile(source + to_next, here, count, width, in_row, in_column, in_channel, HEAD_DIM, CHANNELS)
        v = _tile(source + 2 * to_next, here, count, width, in_row, in_column, in_channel, HEAD_DIM, CHANNELS)
        k = tl.where((here < count)[:, None], k.to(tl.float32) * _LOG2E, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(k, 0))
        shrink = tl.exp2(largest - new_largest)
        power = tl.exp2(k - new_largest[None, :])
        total = total * shrink + tl.sum(power, 0)
        context = context * shrink[:, None] + tl.dot(tl.trans(power.to(dtype)), v, input_precision=PRECISION)
        largest = new_largest
    context = (context * (scale / total)[:, None]).to(dtype)
    target = out + batch * out_batch + depth * out_slice + head * HEAD_DIM * out_channel
    for start in range(0, count, POSITIONS):
        here = start + position
        q = _tile(source, here, count, width, in_row, in_column, in_channel, HEAD_DIM, CHANNELS)
        q = _over_channels(q, HEAD_DIM, CHANNELS).to(dtype)
        attended = tl.dot(q, context, input_precision=PRECISION)
        _put(target, attended, here, count, width, out_row, out_column, out_channel, HEAD_DIM, CHANNELS)


@triton.jit
def _backward(
    qkv,
    gradient,
    of_qkv,
    slices,
    count,
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
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    POSITIONS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    batch = (tl.program_id(0) // slices).to(tl.int64)
    depth = tl.program_id(0) % slices
    head = tl.program_id(1)
    source = qkv + batch * in_batch + depth * in_slice + head * HEAD_DIM * in_channel
    to_next = HEADS * HEAD_DIM * in_channel
    above = gradient + batch * gradient_batch + depth * gradient_slice + head * HEAD_DIM * gradient_channel
    dtype = qkv.dtype.element_ty
    position = tl.arange(0, POSITIONS)
    largest = tl.full((CHANNELS,), float("-inf"), tl.float32)
    total = tl.zeros((CHANNELS,), tl.float32)
    context = tl.zeros((CHANNELS, CHANNELS), tl.float32)
    of_context = tl.zeros((CHANNELS, CHANNELS), tl.float32)
    for start in range(0, count, POSITIONS):
        here = start + position
        q = _tile(source, here, count, width, in_row, in_column, in_channel, HEAD_DIM, CHANNELS)
        k = _tile(source + to_next, here, count, width, in_row, in_column, in_channel, HEAD_DIM, CHANNELS)
        v = _tile(source + 2 * to_next, here, count, width, in_row, in_column, in_channel, HEAD_DIM, CHANNELS)
        g = _tile(above, here, count, width, gradient_row, gradient_column, gradient_channel, HEAD_DIM, CHANNELS)
        k = tl.where((here < count)[:, None], k.to(tl.float32) * _LOG2E, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(k, 0))
        shrink = tl.exp2(largest - new_largest)
        power = tl.exp2(k - new_largest[None, :])
        total = total * shrink + tl.sum(power, 0)
        context = context * shrink[:, None] + tl.dot(tl.trans(power.to(dtype)), v, input_precision=PRECISION)
        largest = new_largest
        # Positions that are not there have no gradient, so their even softmax adds nothing.
        q = (_over_channels(q, HEAD_DIM, CHANNELS) * scale).to(dtype)
        of_context = tl.dot(tl.trans(q), g.to(dtype), acc=of_context, input_precision=PRECISION)
    context = context / total[:, None]
    # Of the softmax over positions: the mean of its gradient under itself.
    mean = tl.sum(context * of_context, 1)
    context, of_context = context.to(dtype), of_context.to(dtype)
    target = of_qkv + batch * out_batch + depth * out_slice + head * HEAD_DIM * out_channel
    beyond = HEADS * HEAD_DIM * out_channel
    for start in range(0, count, POSITIONS):
        here = start + position
        q = _tile(source, here, count, width, in_row, in_column, in_channel, HEAD_DIM, CHANNELS)
        g = _tile(above, here, count, width, gradient_row, gradient_column, gradient_channel, HEAD_DIM, CHANNELS)
        q = _over_channels(q, HEAD_DIM, CHANNELS)
        of_q = tl.dot(g.to(dtype), tl.trans(context), input_precision=PRECISION) * scale
        of_q = q * (of_q - tl.sum(q * of_q, 1)[:, None])
        _put(target, of_q, here, count, width, out_row, out_column, out_channel, HEAD_DIM, CHANNELS)
        k = _tile(source + to_next, here, count, width, in_row, in_column, in_channel, HEAD_DIM, CHANNELS)
        v = _tile(source + 2 * to_next, here, count, width, in_row, in_column, in_channel, HEAD_DIM, CHANNELS)
        attention = tl.exp2(k.to(tl.float32) * _LOG2E - largest[None, :]) / total[None, :]
        of_k = tl.dot(v, tl.trans(of_context), input_precision=PRECISION)
        of_k = attention * (of_k - mean[None, :])
        _put(target + beyond, of_k, here, count, width, out_row, out_column, out_channel, HEAD_DIM, CHANNELS)
        of_v = tl.dot(attention.to(dtype), of_context, input_precision=PRECISION)
        _put(target + 2 * beyond, of_v, here, count, width, out_row, out_column, out_channel, HEAD_DIM, CHANNELS)
