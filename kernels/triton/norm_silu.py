"""Norm and SiLU of a channels-last volume, and its sum with another, in one pass.

Bound: one volume read and one written, 38 us for 32 channels at 96^3 in bfloat16 at 3 TB/s, and half as much again with
a residual. What the U-Net has takes less than a launch.
"""

import torch
import triton
import triton.language as tl

from nnunet_difftumor.kernels.moments import Affine
from nnunet_difftumor.kernels.triton.convolve import normalized_gradients, silu

# Elements of a tile (voxels x channels), and channels of it at most.
_ELEMENTS = 2048
_MOST_CHANNELS = 128


@torch.library.custom_op("nnunet_difftumor::norm_silu", mutates_args=())
def norm_silu(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
    """Like x; volumes are channels-last in memory, scale and shift contiguous."""
    y = torch.empty_like(x)
    batch, channels, *volume = x.shape
    voxels = volume[0] * volume[1] * volume[2]
    tile = min(_MOST_CHANNELS, triton.next_power_of_2(channels))
    _norm_silu[(triton.cdiv(voxels, _ELEMENTS // tile), triton.cdiv(channels, tile), batch)](
        *(x, scale, shift, residual, y, voxels),
        CHANNELS=channels,
        TILE_VOXELS=_ELEMENTS // tile,
        TILE_CHANNELS=tile,
        num_warps=4,
    )
    return y


@norm_silu.register_fake
def _(x, scale, shift, residual):
    return torch.empty_like(x)


def _save(ctx, inputs, output) -> None:
    *saved, residual = inputs
    ctx.save_for_backward(*saved)
    ctx.has_residual = residual is not None


def _gradients(ctx, gradient):
    x, scale, shift = ctx.saved_tensors
    of_x, of_scale, of_shift = normalized_gradients(gradient, x, Affine(scale, shift))
    return of_x, of_scale, of_shift, gradient if ctx.has_residual else None


norm_silu.register_autograd(_gradients, setup_context=_save)


@triton.jit
def _norm_silu(
    x,
    scale,
    shift,
    residual,
    y,
    voxels,
    CHANNELS: tl.constexpr,
    TILE_VOXELS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
):
    sample = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * TILE_CHANNELS + tl.arange(0, TILE_CHANNELS)
    voxel = tl.program_id(0) * TILE_VOXELS + tl.arange(0, TILE_VOXELS)
    real = channel < CHANNELS
    inside = (voxel < voxels)[:, None] & real[None, :]
    at = sample * voxels * CHANNELS + voxel[:, None] * CHANNELS + channel[None, :]
    factor = tl.load(scale + sample * CHANNELS + channel, mask=real, other=0.0)[None, :]
    summand = tl.load(shift + sample * CHANNELS + channel, mask=real, other=0.0)[None, :]
    values = silu(tl.load(x + at, mask=inside, other=0.0).to(tl.float32) * factor + summand)
    if residual is not None:
        values += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + at, values.to(y.dtype.element_ty), mask=inside)
