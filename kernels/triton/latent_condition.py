"""The condition of a masked volume in two launches, of a dozen in PyTorch: what they take is the launches themselves.

Whether a sample's mask vanishes on the grid is known only when all of it was seen. So the first launch notes of every
tile of the grid whether one of its voxels is in the mask, and the second reads these notes before it writes.
"""

import torch
import triton
import triton.language as tl

# Voxels of the latent's grid per program, and notes read at once.
_VOXELS, _NOTES = 256, 64


@torch.library.custom_op("nnunet_difftumor::latent_condition", mutates_args=())
def latent_condition(
    latent: torch.Tensor, mask: torch.Tensor, code_min: torch.Tensor, code_range: torch.Tensor
) -> torch.Tensor:
    """float32 (b, c + 1, d, h, w) of a float32 latent, in its memory format; the two scalars are float32."""
    batch, channels, depth, height, width = latent.shape
    out = _new(latent)
    block = tuple(size // own for size, own in zip(mask.shape[2:], latent.shape[2:], strict=True))
    tiles = triton.cdiv(depth * height * width, _VOXELS)
    notes = latent.new_empty((batch, tiles), dtype=torch.int32)
    bytes_, mask_strides = mask.view(torch.uint8), (mask.stride(0), *mask.stride()[2:])
    grid = (tiles, batch)
    sizes = (depth * height * width, height * width, width)
    _note[grid](bytes_, notes, *sizes, *mask_strides, *block, VOXELS=_VOXELS, num_warps=4)
    _write[grid](
        *(latent, bytes_, notes, code_min, code_range, out),
        *(*sizes, *latent.stride(), *mask_strides, *out.stride(), *block),
        CHANNELS=channels,
        VOXELS=_VOXELS,
        NOTES=_NOTES,
        num_warps=4,
    )
    return out


@latent_condition.register_fake
def _(latent, mask, code_min, code_range):
    return _new(latent)


def _new(latent: torch.Tensor) -> torch.Tensor:
    batch, channels, *grid = latent.shape
    channels_last = latent.is_contiguous(memory_format=torch.channels_last_3d) and not latent.is_contiguous()
    return torch.empty(
        (batch, channels + 1, *grid),
        dtype=latent.dtype,
        device=latent.device,
        memory_format=torch.channels_last_3d if channels_last else torch.contiguous_format,
    )


@triton.jit
def _note(
    mask,
    notes,
    voxels,
    area,
    width,
    mask_sample,
    mask_slice,
    mask_row,
    mask_column,
    block_slice,
    block_row,
    block_column,
    VOXELS: tl.constexpr,
):
    """Whether a tile's voxels have a first voxel in the mask."""
    voxel = tl.program_id(0) * VOXELS + tl.arange(0, VOXELS)
    sample = tl.program_id(1).to(tl.int64)
    at = voxel // area * block_slice * mask_slice + voxel % area // width * block_row * mask_row
    at += voxel % width * block_column * mask_column
    first = tl.load(mask + sample * mask_sample + at, mask=voxel < voxels, other=0)
    tl.store(notes + sample * tl.num_programs(0) + tl.program_id(0), tl.max(first.to(tl.int32), 0))


@triton.jit
def _write(
    latent,
    mask,
    notes,
    code_min,
    code_range,
    out,
    voxels,
    area,
    width,
    in_sample,
    in_channel,
    in_slice,
    in_row,
    in_column,
    mask_sample,
    mask_slice,
    mask_row,
    mask_column,
    out_sample,
    out_channel,
    out_slice,
    out_row,
    out_column,
    block_slice,
    block_row,
    block_column,
    CHANNELS: tl.constexpr,
    VOXELS: tl.constexpr,
    NOTES: tl.constexpr,
):
    voxel = tl.program_id(0) * VOXELS + tl.arange(0, VOXELS)
    sample = tl.program_id(1).to(tl.int64)
    inside = voxel < voxels
    slice_, row, column = voxel // area, voxel % area // width, voxel % width
    kept = 0
    for start in range(0, tl.num_programs(0), NOTES):
        tile = start + tl.arange(0, NOTES)
        of_tile = notes + sample * tl.num_programs(0) + tile
        kept = tl.maximum(kept, tl.max(tl.load(of_tile, mask=tile < tl.num_programs(0), other=0), 0))
    # Of a mask that vanishes all voxels of a block, of others the first.
    slices = tl.where(kept == 0, block_slice, 1)
    rows = tl.where(kept == 0, block_row, 1)
    columns = tl.where(kept == 0, block_column, 1)
    first = mask + sample * mask_sample + slice_ * block_slice * mask_slice + row * block_row * mask_row
    first += column * block_column * mask_column
    of_mask = tl.zeros((VOXELS,), tl.int32)
    for i in range(slices):
        for j in range(rows):
            for k in range(columns):
                seen = tl.load(first + i * mask_slice + j * mask_row + k * mask_column, mask=inside, other=0)
                of_mask = tl.maximum(of_mask, seen.to(tl.int32))
    least, extent = tl.load(code_min), tl.load(code_range)
    source = latent + sample * in_sample + slice_ * in_slice + row * in_row + column * in_column
    target = out + sample * out_sample + slice_ * out_slice + row * out_row + column * out_column
    for channel in tl.static_range(CHANNELS):
        value = tl.load(source + channel * in_channel, mask=inside, other=0.0)
        # Rounded as PyTorch rounds: plain division in Triton is not.
        scaled = tl.div_rn(2.0 * (value - least), extent) - 1.0
        tl.store(target + channel * out_channel, scaled, mask=inside)
    tl.store(target + CHANNELS * out_channel, tl.where(of_mask > 0, 1.0, -1.0), mask=inside)
