"""GroupNorm, modulation, SiLU and the repeated rim: the volume is read twice and written once.

Three launches: mean and squared deviations of every channel in chunks of voxels; one program per sample and group that
joins them; and the values with their rim. Deviations are taken from each tile's own mean and joined (Chan et al.,
1983), since the difference of mean square and squared mean loses digits where the mean is large.

Bound: reading and writing, 48 us for 32 channels at 96^3 in bfloat16 at 3 TB/s (113 MB twice read, once written). Eager
PyTorch takes five passes with float32 between them. At 24^3, launches decide, three instead of five or six.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from nnunet_difftumor.errors import InputError

# Elements of a tile (voxels x channels), and voxels that a program of the first launch goes over at most.
_ELEMENTS = 4096
_MOST_CHUNKS = 512
MOST_CHANNELS = 1024


@torch.library.custom_op("nnunet_difftumor::group_norm_modulate_silu", mutates_args=())
def group_norm_modulate_silu(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    scale: torch.Tensor | None,
    shift: torch.Tensor | None,
    groups: int,
    eps: float,
    replicate: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values in the dtype and memory format of x; mean and reciprocal deviation of the groups, float32 (b, groups).

    Parameters are float32 and contiguous, x is dense.
    """
    launch = _Launch(x, groups, elements=_ELEMENTS)
    mean, reciprocal = launch.moments(eps)
    y = _padded_like(x, replicate)
    launch.apply(y, _Parameters(weight, bias, scale, shift, mean, reciprocal, groups), replicate)
    return y, mean, reciprocal


@group_norm_modulate_silu.register_fake
def _(x, weight, bias, scale, shift, groups, eps, replicate):
    moments = x.new_empty((len(x), groups), dtype=torch.float32)
    return _padded_like(x, replicate), moments, torch.empty_like(moments)


@torch.library.custom_op("nnunet_difftumor::group_norm_modulate_silu_backward", mutates_args=())
def group_norm_modulate_silu_backward(
    gradient: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    scale: torch.Tensor | None,
    shift: torch.Tensor | None,
    mean: torch.Tensor,
    reciprocal: torch.Tensor,
    groups: int,
    replicate: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradient of x, and per sample and channel those of slope and intercept, float32 (b, c).

    silu's argument is slope * normalized + intercept, with slope = weight (1 + scale) and
    intercept = bias (1 + scale) + shift.
    """
    # Sums over a rim take many registers.
    launch = _Launch(x, groups, elements=_ELEMENTS // 4 if any(replicate) else _ELEMENTS)
    return launch.gradients(gradient, _Parameters(weight, bias, scale, shift, mean, reciprocal, groups), replicate)


@group_norm_modulate_silu_backward.register_fake
def _(gradient, x, weight, bias, scale, shift, mean, reciprocal, groups, replicate):
    per_channel = x.new_empty(x.shape[:2], dtype=torch.float32)
    return torch.empty_like(x), per_channel, torch.empty_like(per_channel)


def _save(ctx, inputs, output) -> None:
    x, weight, bias, scale, shift, ctx.groups, _, ctx.replicate = inputs
    ctx.save_for_backward(x, weight, bias, scale, shift, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _gradients(ctx, gradient, _of_mean, _of_reciprocal):
    weight, bias, scale = ctx.saved_tensors[1:4]
    of_x, of_slope, of_intercept = group_norm_modulate_silu_backward(
        gradient, *ctx.saved_tensors, ctx.groups, ctx.replicate
    )
    factor = 1 if scale is None else 1 + scale
    of_weight, of_bias = (of_slope * factor).sum(0), (of_intercept * factor).sum(0)
    if scale is None:
        return of_x, of_weight, of_bias, None, None, None, None, None
    return of_x, of_weight, of_bias, of_slope * weight + of_intercept * bias, of_intercept, None, None, None


group_norm_modulate_silu.register_autograd(_gradients, setup_context=_save)


def check(x: torch.Tensor) -> None:
    """Raises an InputError for sizes that the kernel cannot take."""
    if x.shape[1] > MOST_CHANNELS:
        raise InputError(f"x: has {x.shape[1]} channels, the kernel takes up to {MOST_CHANNELS}")


def is_dense(x: torch.Tensor) -> bool:
    """Whether its voxels lie behind each other, channel by channel or voxel by voxel."""
    return x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last_3d)


def _padded_like(x: torch.Tensor, replicate: Sequence[int]) -> torch.Tensor:
    batch, channels, *volume = x.shape
    width, height, depth = (replicate[axis] + replicate[axis + 1] for axis in (0, 2, 4))
    channels_last = not x.is_contiguous()
    return torch.empty(
        (batch, channels, volume[0] + depth, volume[1] + height, volume[2] + width),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last_3d if channels_last else torch.contiguous_format,
    )


class _Volume(NamedTuple):
    """A dense tensor (b, c, d, h, w), as kernels take it."""

    elements: torch.Tensor
    stride_sample: int
    stride_channel: int
    depth: int
    height: int
    width: int
    voxels: int

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "_Volume":
        _, channels, *size = tensor.shape
        voxels = size[0] * size[1] * size[2]
        return cls(tensor, channels * voxels, voxels if tensor.is_contiguous() else 1, *size, voxels)


class _Parameters(NamedTuple):
    """Of the operation, and the moments of the groups, as kernels take them."""

    weight: torch.Tensor
    bias: torch.Tensor
    scale: torch.Tensor | None
    shift: torch.Tensor | None
    means: torch.Tensor
    reciprocals: torch.Tensor
    groups: int


class _Launch:
    """The launches for one tensor."""

    def __init__(self, x: torch.Tensor, groups: int, *, elements: int):
        self.x, self.groups, self.volume = x, groups, _Volume.of(x)
        self.batch, self.channels = x.shape[:2]
        voxels = self.volume.voxels
        # Voxels of a program: all channels where they lie together, one channel where its voxels do.
        together = not x.is_contiguous()
        self.tile_channels = triton.next_power_of_2(self.channels) if together else 1
        self.tile_voxels = max(16, elements // self.tile_channels)
        self.channel_tiles = 1 if together else self.channels
        per_chunk = triton.cdiv(voxels, _MOST_CHUNKS)
        self.tiles_per_chunk = triton.cdiv(max(per_chunk, self.tile_voxels), self.tile_voxels)
        self.chunks = triton.cdiv(voxels, self.tiles_per_chunk * self.tile_voxels)

    def moments(self, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.x
        partial = x.new_empty((2, self.batch, self.chunks, self.channels), dtype=torch.float32)
        mean = x.new_empty((self.batch, self.groups), dtype=torch.float32)
        reciprocal = torch.empty_like(mean)
        _chunk_moments[(self.chunks, self.channel_tiles, self.batch)](
            self.volume, partial[0], partial[1], self.chunks, **self._tiles()
        )
        _join_moments[(self.groups, self.batch)](
            *(partial[0], partial[1], mean, reciprocal, self.volume.voxels, self.chunks, eps),
            PER_CHUNK=self.tiles_per_chunk * self.tile_voxels,
            CHANNELS=self.channels,
            GROUP=self.channels // self.groups,
            GROUP_PADDED=triton.next_power_of_2(self.channels // self.groups),
            CHUNKS=min(64, triton.next_power_of_2(self.chunks)),
            num_warps=1,
        )
        return mean, reciprocal

    def apply(self, y: torch.Tensor, parameters: _Parameters, replicate: Sequence[int]) -> None:
        out, before = _Volume.of(y), (replicate[4], replicate[2], replicate[0])
        _apply[self._grid(out.voxels)](
            *(self.volume, out, parameters, before),
            MODULATED=parameters.scale is not None,
            PADDED=any(replicate),
            **self._tiles(chunked=False),
        )

    def gradients(
        self, gradient: torch.Tensor, parameters: _Parameters, replicate: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = self.x
        above = _Volume.of(
            gradient.contiguous(memory_format=torch.contiguous_format if x.is_contiguous() else torch.channels_last_3d)
        )
        partial = x.new_empty((2, self.batch, self.chunks, self.channels), dtype=torch.float32)
        options = {"MODULATED": parameters.scale is not None, "RIM": tuple(replicate)}
        _channel_gradients[(self.chunks, self.channel_tiles, self.batch)](
            *(self.volume, above, parameters, partial[0], partial[1], self.chunks), **options, **self._tiles()
        )
        of_slope, of_intercept = partial[0].sum(1), partial[1].sum(1)
        slope = parameters.weight if parameters.scale is None else parameters.weight * (1 + parameters.scale)
        count = self.volume.voxels * self.channels // self.groups
        means = [(slope * total).view(self.batch, self.groups, -1).sum(2) / count for total in (of_intercept, of_slope)]
        of_x = torch.empty_like(x)
        _input_gradient[self._grid(self.volume.voxels)](
            *(self.volume, above, _Volume.of(of_x), parameters, *means), **options, **self._tiles(chunked=False)
        )
        return of_x, of_slope, of_intercept

    def _grid(self, voxels: int) -> tuple[int, int, int]:
        """One program for a tile of voxels and channels of a sample."""
        return triton.cdiv(voxels, self.tile_voxels), self.channel_tiles, self.batch

    def _tiles(self, *, chunked: bool = True) -> dict:
        # Known when they compile, so that they read 16 bytes at once also where 16 does not divide the channels.
        fixed = {"CHANNELS": self.channels, "STRIDE_VOXEL": 1 if self.x.is_contiguous() else self.channels}
        tiles = {"TILE_VOXELS": self.tile_voxels, "TILE_CHANNELS": self.tile_channels, "num_warps": 4}
        return fixed | tiles | ({"TILES": self.tiles_per_chunk} if chunked else {})


_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _channels_of(volume, sample, channel):
    """Pointers (1, channels) to the first voxel of a sample's channels."""
    return volume.elements + sample.to(tl.int64) * volume.stride_sample + channel[None, :] * volume.stride_channel


@triton.jit
def _chunk_moments(
    x,
    means,
    deviations,
    chunks,
    CHANNELS: tl.constexpr,
    STRIDE_VOXEL: tl.constexpr,
    TILE_VOXELS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
    TILES: tl.constexpr,
):
    """Mean and sum of squared deviations of every channel over a chunk of voxels."""
    chunk, sample = tl.program_id(0), tl.program_id(2)
    channel = tl.program_id(1) * TILE_CHANNELS + tl.arange(0, TILE_CHANNELS)
    source = _channels_of(x, sample, channel)
    count = 0.0
    mean = tl.zeros((TILE_CHANNELS,), tl.float32)
    deviation = tl.zeros((TILE_CHANNELS,), tl.float32)
    for tile in range(TILES):
        voxel = (chunk * TILES + tile) * TILE_VOXELS + tl.arange(0, TILE_VOXELS)
        inside = (voxel < x.voxels)[:, None] & (channel < CHANNELS)[None, :]
        values = tl.load(source + voxel[:, None].to(tl.int64) * STRIDE_VOXEL, mask=inside, other=0.0).to(tl.float32)
        here = tl.maximum(tl.minimum(x.voxels - (chunk * TILES + tile) * TILE_VOXELS, TILE_VOXELS), 0).to(tl.float32)
        own = tl.sum(values, 0) / tl.maximum(here, 1.0)
        apart = tl.where(inside, values - own[None, :], 0.0)
        # Chan et al.: two sets joined.
        together = count + here
        share = here / tl.maximum(together, 1.0)
        difference = own - mean
        deviation += tl.sum(apart * apart, 0) + difference * difference * (count * share)
        mean += difference * share
        count = together
    at = (sample * chunks + chunk) * CHANNELS + channel
    tl.store(means + at, mean, mask=channel < CHANNELS)
    tl.store(deviations + at, deviation, mask=channel < CHANNELS)


@triton.jit
def _join_moments(
    means,
    deviations,
    group_means,
    reciprocals,
    voxels,
    chunks,
    eps,
    PER_CHUNK: tl.constexpr,
    CHANNELS: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_PADDED: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Mean and reciprocal standard deviation of one group."""
    group, sample = tl.program_id(0), tl.program_id(1)
    member = tl.arange(0, GROUP_PADDED)
    at = sample * chunks * CHANNELS + group * GROUP + member[None, :]
    weighted = tl.zeros((CHUNKS, GROUP_PADDED), tl.float32)
    for start in range(0, chunks, CHUNKS):
        chunk = start + tl.arange(0, CHUNKS)
        inside = (chunk < chunks)[:, None] & (member < GROUP)[None, :]
        count = tl.minimum(voxels - chunk * PER_CHUNK, PER_CHUNK).to(tl.float32)
        mean = tl.load(means + at + chunk[:, None] * CHANNELS, mask=inside, other=0.0)
        weighted += mean * tl.where(chunk < chunks, count, 0.0)[:, None]
    total = voxels.to(tl.float32) * GROUP
    mean_of_group = tl.sum(weighted) / total
    squares = tl.zeros((CHUNKS, GROUP_PADDED), tl.float32)
    for start in range(0, chunks, CHUNKS):
        chunk = start + tl.arange(0, CHUNKS)
        inside = (chunk < chunks)[:, None] & (member < GROUP)[None, :]
        count = tl.minimum(voxels - chunk * PER_CHUNK, PER_CHUNK).to(tl.float32)
        mean = tl.load(means + at + chunk[:, None] * CHANNELS, mask=inside, other=0.0)
        own = tl.load(deviations + at + chunk[:, None] * CHANNELS, mask=inside, other=0.0)
        apart = mean - mean_of_group
        squares += tl.where(inside, own + apart * apart * count[:, None], 0.0)
    variance = tl.sum(squares) / total
    out = sample * (CHANNELS // GROUP) + group
    tl.store(group_means + out, mean_of_group)
    tl.store(reciprocals + out, 1.0 / tl.sqrt(variance + eps))


@triton.jit
def _per_channel(parameters, sample, channel, CHANNELS: tl.constexpr, MODULATED: tl.constexpr):
    """Mean, reciprocal deviation, slope and intercept of each channel."""
    real = channel < CHANNELS
    group = sample * parameters.groups + channel // (CHANNELS // parameters.groups)
    slope = tl.load(parameters.weight + channel, mask=real, other=0.0)
    intercept = tl.load(parameters.bias + channel, mask=real, other=0.0)
    if MODULATED:
        factor = 1.0 + tl.load(parameters.scale + sample * CHANNELS + channel, mask=real, other=0.0)
        slope *= factor
        intercept = intercept * factor + tl.load(parameters.shift + sample * CHANNELS + channel, mask=real, other=0.0)
    mean = tl.load(parameters.means + group, mask=real, other=0.0)
    reciprocal = tl.load(parameters.reciprocals + group, mask=real, other=0.0)
    return mean, reciprocal, slope, intercept


@triton.jit
def _apply(
    x,
    y,
    parameters,
    before,
    MODULATED: tl.constexpr,
    PADDED: tl.constexpr,
    CHANNELS: tl.constexpr,
    STRIDE_VOXEL: tl.constexpr,
    TILE_VOXELS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
):
    sample = tl.program_id(2)
    channel = tl.program_id(1) * TILE_CHANNELS + tl.arange(0, TILE_CHANNELS)
    mean, reciprocal, slope, intercept = _per_channel(parameters, sample, channel, CHANNELS, MODULATED)
    at = tl.program_id(0) * TILE_VOXELS + tl.arange(0, TILE_VOXELS)
    voxel = at
    if PADDED:
        # Of the rim, the nearest voxel inside.
        column = tl.minimum(tl.maximum(at % y.width - before[2], 0), x.width - 1)
        row = tl.minimum(tl.maximum(at // y.width % y.height - before[1], 0), x.height - 1)
        slice_ = tl.minimum(tl.maximum(at // (y.width * y.height) - before[0], 0), x.depth - 1)
        voxel = (slice_ * x.height + row) * x.width + column
    inside = (at < y.voxels)[:, None] & (channel < CHANNELS)[None, :]
    source = _channels_of(x, sample, channel)
    values = tl.load(source + voxel[:, None].to(tl.int64) * STRIDE_VOXEL, mask=inside, other=0.0).to(tl.float32)
    argument = (values - mean[None, :]) * (reciprocal * slope)[None, :] + intercept[None, :]
    activated = argument / (1.0 + tl.exp2(-argument * _LOG2E))
    target = _channels_of(y, sample, channel) + at[:, None].to(tl.int64) * STRIDE_VOXEL
    tl.store(target, activated.to(y.elements.dtype.element_ty), mask=inside)


@triton.jit
def _gathered(
    gradient,
    above,
    x,
    first,
    voxel,
    inside,
    RIM: tl.constexpr,
    STRIDE_VOXEL: tl.constexpr,
    TILE_VOXELS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
):
    """Sum of the gradients of all places to which the voxels of a tile, from `first` on, were repeated, float32."""
    # Named one by one: an element of a constexpr tuple is none itself, and static_range takes nothing else.
    x0: tl.constexpr = RIM[0]
    x1: tl.constexpr = RIM[1]
    y0: tl.constexpr = RIM[2]
    y1: tl.constexpr = RIM[3]
    z0: tl.constexpr = RIM[4]
    z1: tl.constexpr = RIM[5]
    column = voxel % x.width
    row = voxel // x.width % x.height
    slice_ = voxel // (x.width * x.height)
    total = tl.zeros((TILE_VOXELS, TILE_CHANNELS), tl.float32)
    for dz in range(-z0, z1 + 1):
        # Most tiles have no voxel of the first or last slice.
        of_rim = (dz < 0) & (first < x.width * x.height)
        of_rim = of_rim | ((dz > 0) & (first + TILE_VOXELS > x.width * x.height * (x.depth - 1)))
        if (dz == 0) | of_rim:
            there_z = (dz == 0) | ((dz < 0) & (slice_ == 0)) | ((dz > 0) & (slice_ == x.depth - 1))
            for dy in range(-y0, y1 + 1):
                there_y = there_z & ((dy == 0) | ((dy < 0) & (row == 0)) | ((dy > 0) & (row == x.height - 1)))
                for dx in tl.static_range(-x0, x1 + 1):
                    there = there_y
                    if dx < 0:
                        there = there & (column == 0)
                    if dx > 0:
                        there = there & (column == x.width - 1)
                    at = ((slice_ + z0 + dz) * gradient.height + row + y0 + dy) * gradient.width + column + x0 + dx
                    pointers = above + at[:, None].to(tl.int64) * STRIDE_VOXEL
                    total += tl.load(pointers, mask=inside & there[:, None], other=0.0).to(tl.float32)
    return total


@triton.jit
def _channel_gradients(
    x,
    gradient,
    parameters,
    of_slope,
    of_intercept,
    chunks,
    MODULATED: tl.constexpr,
    RIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    STRIDE_VOXEL: tl.constexpr,
    TILE_VOXELS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
    TILES: tl.constexpr,
):
    """Gradients of slope and intercept, summed over a chunk of voxels."""
    chunk, sample = tl.program_id(0), tl.program_id(2)
    channel = tl.program_id(1) * TILE_CHANNELS + tl.arange(0, TILE_CHANNELS)
    mean, reciprocal, slope, intercept = _per_channel(parameters, sample, channel, CHANNELS, MODULATED)
    source = _channels_of(x, sample, channel)
    above = _channels_of(gradient, sample, channel)
    slopes = tl.zeros((TILE_CHANNELS,), tl.float32)
    intercepts = tl.zeros((TILE_CHANNELS,), tl.float32)
    for tile in range(TILES):
        voxel = (chunk * TILES + tile) * TILE_VOXELS + tl.arange(0, TILE_VOXELS)
        inside = (voxel < x.voxels)[:, None] & (channel < CHANNELS)[None, :]
        values = tl.load(source + voxel[:, None].to(tl.int64) * STRIDE_VOXEL, mask=inside, other=0.0).to(tl.float32)
        normalized = (values - mean[None, :]) * reciprocal[None, :]
        argument = normalized * slope[None, :] + intercept[None, :]
        sigmoid = 1.0 / (1.0 + tl.exp2(-argument * _LOG2E))
        first = (chunk * TILES + tile) * TILE_VOXELS
        g = _gathered(gradient, above, x, first, voxel, inside, RIM, STRIDE_VOXEL, TILE_VOXELS, TILE_CHANNELS)
        g *= sigmoid * (1.0 + argument * (1.0 - sigmoid))
        slopes += tl.sum(g * normalized, 0)
        intercepts += tl.sum(g, 0)
    at = (sample * chunks + chunk) * CHANNELS + channel
    tl.store(of_slope + at, slopes, mask=channel < CHANNELS)
    tl.store(of_intercept + at, intercepts, mask=channel < CHANNELS)


@triton.jit
def _input_gradient(
    x,
    gradient,
    of_x,
    parameters,
    mean_gradients,
    mean_products,
    MODULATED: tl.constexpr,
    RIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    STRIDE_VOXEL: tl.constexpr,
    TILE_VOXELS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
):
    sample = tl.program_id(2)
    channel = tl.program_id(1) * TILE_CHANNELS + tl.arange(0, TILE_CHANNELS)
    mean, reciprocal, slope, intercept = _per_channel(parameters, sample, channel, CHANNELS, MODULATED)
    group = sample * parameters.groups + channel // (CHANNELS // parameters.groups)
    mean_gradient = tl.load(mean_gradients + group, mask=channel < CHANNELS, other=0.0)
    mean_product = tl.load(mean_products + group, mask=channel < CHANNELS, other=0.0)
    voxel = tl.program_id(0) * TILE_VOXELS + tl.arange(0, TILE_VOXELS)
    inside = (voxel < x.voxels)[:, None] & (channel < CHANNELS)[None, :]
    source = _channels_of(x, sample, channel)
    above = _channels_of(gradient, sample, channel)
    values = tl.load(source + voxel[:, None].to(tl.int64) * STRIDE_VOXEL, mask=inside, other=0.0).to(tl.float32)
    normalized = (values - mean[None, :]) * reciprocal[None, :]
    argument = normalized * slope[None, :] + intercept[None, :]
    sigmoid = 1.0 / (1.0 + tl.exp2(-argument * _LOG2E))
    first = tl.program_id(0) * TILE_VOXELS
    g = _gathered(gradient, above, x, first, voxel, inside, RIM, STRIDE_VOXEL, TILE_VOXELS, TILE_CHANNELS)
    g *= sigmoid * (1.0 + argument * (1.0 - sigmoid)) * slope[None, :]
    result = reciprocal[None, :] * (g - mean_gradient[None, :] - normalized * mean_product[None, :])
    target = _channels_of(of_x, sample, channel) + voxel[:, None].to(tl.int64) * STRIDE_VOXEL
    tl.store(target, result.to(of_x.elements.dtype.element_ty), mask=inside)
