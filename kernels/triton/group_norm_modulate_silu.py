"""GroupNorm, modulation, SiLU and the repeated rim: the volume is read twice and written once.

Three launches: mean and squared deviations of every channel in chunks of voxels; one program per sample and group that
joins them; and the values with their rim. Deviations are taken from each tile's own mean and joined (Chan et al.,
1983), since the difference of mean square and squared mean loses digits where the mean is large.

Bound: reading and writing, 48 us for 32 channels at 96^3 in bfloat16 at 3 TB/s (113 MB twice read, once written). Eager
PyTorch takes five passes with float32 between them. At 24^3, launches decide, three instead of five or six.
"""

from collections.abc import Sequence

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
    launch.apply(y, (weight, bias, scale, shift, mean, reciprocal), replicate)
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
    return launch.gradients(gradient, (weight, bias, scale, shift, mean, reciprocal), replicate)


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


class _Launch:
    """The launches for one tensor."""

    def __init__(self, x: torch.Tensor, groups: int, *, elements: int):
        self.x, self.groups = x, groups
        self.batch, self.channels, *self.volume = x.shape
        self.voxels = self.volume[0] * self.volume[1] * self.volume[2]
        # Voxels of a program: all channels where they lie together, one channel where its voxels do.
        together = not x.is_contiguous()
        self.tile_channels = triton.next_power_of_2(self.channels) if together else 1
        self.tile_voxels = max(16, elements // self.tile_channels)
        self.channel_tiles = 1 if together else self.channels
        per_chunk = triton.cdiv(self.voxels, _MOST_CHUNKS)
        self.tiles_per_chunk = triton.cdiv(max(per_chunk, self.tile_voxels), self.tile_voxels)
        self.chunks = triton.cdiv(self.voxels, self.tiles_per_chunk * self.tile_voxels)

    def moments(self, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.x
        partial = x.new_empty((2, self.batch, self.chunks, self.channels), dtype=torch.float32)
        mean = x.new_empty((self.batch, self.groups), dtype=torch.float32)
        reciprocal = torch.empty_like(mean)
        _chunk_moments[(self.chunks, self.channel_tiles, self.batch)](
            x, partial[0], partial[1], self.voxels, *self._strides(x), self.chunks, **self._tiles()
        )
        _join_moments[(self.groups, self.batch)](
            *(partial[0], partial[1], mean, reciprocal, self.voxels, self.chunks, eps),
            PER_CHUNK=self.tiles_per_chunk * self.tile_voxels,
            CHANNELS=self.channels,
            GROUP=self.channels // self.groups,
            GROUP_PADDED=triton.next_power_of_2(self.channels // self.groups),
            CHUNKS=min(64, triton.next_power_of_2(self.chunks)),
            num_warps=1,
        )
        return mean, reciprocal

    def apply(self, y: torch.Tensor, parameters: tuple, replicate: Sequence[int]) -> None:
        before = (replicate[4], replicate[2], replicate[0])
        voxels = y.shape[2] * y.shape[3] * y.shape[4]
        _apply[(triton.cdiv(voxels, self.tile_voxels), self.channel_tiles, self.batch)](
            *(self.x, y, *self._given(parameters), self.groups),
            *(*self.volume, *y.shape[3:], voxels, *before),
            *(*self._strides(self.x), *self._strides(y)),
            MODULATED=parameters[2] is not None,
            PADDED=any(replicate),
            **self._tiles(chunked=False),
        )

    def gradients(
        self, gradient: torch.Tensor, parameters: tuple, replicate: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = self.x
        gradient = gradient.contiguous(
            memory_format=torch.contiguous_format if x.is_contiguous() else torch.channels_last_3d
        )
        partial = x.new_empty((2, self.batch, self.chunks, self.channels), dtype=torch.float32)
        rim = (replicate[4], replicate[5], replicate[2], replicate[3], replicate[0], replicate[1])
        options = {
            "MODULATED": parameters[2] is not None,
            **dict(zip(("Z0", "Z1", "Y0", "Y1", "X0", "X1"), rim, strict=True)),
        }
        place = (*self.volume, *gradient.shape[3:], *self._strides(x), *self._strides(gradient))
        given = self._given(parameters)
        _channel_gradients[(self.chunks, self.channel_tiles, self.batch)](
            *(x, gradient, *given, partial[0], partial[1], self.groups, self.voxels, self.chunks),
            *place,
            **options,
            **self._tiles(),
        )
        of_slope, of_intercept = partial[0].sum(1), partial[1].sum(1)
        slope = parameters[0] if parameters[2] is None else parameters[0] * (1 + parameters[2])
        count = self.voxels * self.channels // self.groups
        means = [(slope * total).view(self.batch, self.groups, -1).sum(2) / count for total in (of_intercept, of_slope)]
        of_x = torch.empty_like(x)
        _input_gradient[(triton.cdiv(self.voxels, self.tile_voxels), self.channel_tiles, self.batch)](
            *(x, gradient, of_x, *given, *means, self.groups, self.voxels),
            *(*place, *self._strides(of_x)),
            **options,
            **self._tiles(chunked=False),
        )
        return of_x, of_slope, of_intercept

    def _given(self, parameters: tuple) -> tuple:
        """Parameters, with something in the place of a modulation that is not there and not read."""
        weight, bias, scale, shift, mean, reciprocal = parameters
        return weight, bias, weight if scale is None else scale, bias if shift is None else shift, mean, reciprocal

    def _tiles(self, *, chunked: bool = True) -> dict:
        # Known when they compile, so that they read 16 bytes at once also where 16 does not divide the channels.
        fixed = {"CHANNELS": self.channels, "STRIDE_VOXEL": 1 if self.x.is_contiguous() else self.channels}
        tiles = {"TILE_VOXELS": self.tile_voxels, "TILE_CHANNELS": self.tile_channels, "num_warps": 4}
        return fixed | tiles | ({"TILES": self.tiles_per_chunk} if chunked else {})

    @staticmethod
    def _strides(tensor: torch.Tensor) -> tuple[int, int]:
        """Of sample and channel of a dense tensor."""
        channels = tensor.shape[1]
        voxels = tensor.shape[2] * tensor.shape[3] * tensor.shape[4]
        return channels * voxels, voxels if tensor.is_contiguous() else 1


_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _chunk_moments(
    x,
    means,
    deviations,
    voxels,
    stride_sample,
    stride_channel,
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
    source = x + sample.to(tl.int64) * stride_sample + channel[None, :] * stride_channel
    count = 0.0
    mean = tl.zeros((TILE_CHANNELS,), tl.float32)
    deviation = tl.zeros((TILE_CHANNELS,), tl.float32)
    for tile in range(TILES):
        voxel = (chunk * TILES + tile) * TILE_VOXELS + tl.arange(0, TILE_VOXELS)
        inside = (voxel < voxels)[:, None] & (channel < CHANNELS)[None, :]
        values = tl.load(source + voxel[:, None].to(tl.int64) * STRIDE_VOXEL, mask=inside, other=0.0).to(tl.float32)
        here = tl.maximum(tl.minimum(voxels - (chunk * TILES + tile) * TILE_VOXELS, TILE_VOXELS), 0).to(tl.float32)
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
def _per_channel(
    weight,
    bias,
    scale,
    shift,
    means,
    reciprocals,
    sample,
    channel,
    groups,
    CHANNELS: tl.constexpr,
    MODULATED: tl.constexpr,
):
    """Mean, reciprocal deviation, slope and intercept of each channel."""
    real = channel < CHANNELS
    group = sample * groups + channel // (CHANNELS // groups)
    slope = tl.load(weight + channel, mask=real, other=0.0)
    intercept = tl.load(bias + channel, mask=real, other=0.0)
    if MODULATED:
        factor = 1.0 + tl.load(scale + sample * CHANNELS + channel, mask=real, other=0.0)
        slope *= factor
        intercept = intercept * factor + tl.load(shift + sample * CHANNELS + channel, mask=real, other=0.0)
    mean = tl.load(means + group, mask=real, other=0.0)
    reciprocal = tl.load(reciprocals + group, mask=real, other=0.0)
    return mean, reciprocal, slope, intercept


@triton.jit
def _apply(
    x,
    y,
    weight,
    bias,
    scale,
    shift,
    means,
    reciprocals,
    groups,
    depth,
    height,
    width,
    out_height,
    out_width,
    out_voxels,
    before_z,
    before_y,
    before_x,
    stride_sample,
    stride_channel,
    out_sample,
    out_channel,
    MODULATED: tl.constexpr,
    PADDED: tl.constexpr,
    CHANNELS: tl.constexpr,
    STRIDE_VOXEL: tl.constexpr,
    TILE_VOXELS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
):
    sample = tl.program_id(2)
    channel = tl.program_id(1) * TILE_CHANNELS + tl.arange(0, TILE_CHANNELS)
    mean, reciprocal, slope, intercept = _per_channel(
        weight, bias, scale, shift, means, reciprocals, sample, channel, groups, CHANNELS, MODULATED
    )
    at = tl.program_id(0) * TILE_VOXELS + tl.arange(0, TILE_VOXELS)
    voxel = at
    if PADDED:
        # Of the rim, the nearest voxel inside.
        column = tl.minimum(tl.maximum(at % out_width - before_x, 0), width - 1)
        row = tl.minimum(tl.maximum(at // out_width % out_height - before_y, 0), height - 1)
        slice_ = tl.minimum(tl.maximum(at // (out_width * out_height) - before_z, 0), depth - 1)
        voxel = (slice_ * height + row) * width + column
    inside = (at < out_voxels)[:, None] & (channel < CHANNELS)[None, :]
    source = x + sample.to(tl.int64) * stride_sample + channel[None, :] * stride_channel
    values = tl.load(source + voxel[:, None].to(tl.int64) * STRIDE_VOXEL, mask=inside, other=0.0).to(tl.float32)
    argument = (values - mean[None, :]) * (reciprocal * slope)[None, :] + intercept[None, :]
    activated = argument / (1.0 + tl.exp2(-argument * _LOG2E))
    target = y + sample.to(tl.int64) * out_sample + channel[None, :] * out_channel
    tl.store(target + at[:, None].to(tl.int64) * STRIDE_VOXEL, activated.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _gathered(
    gradient,
    first,
    voxel,
    inside,
    depth,
    height,
    width,
    out_height,
    out_width,
    STRIDE_VOXEL: tl.constexpr,
    Z0: tl.constexpr,
    Z1: tl.constexpr,
    Y0: tl.constexpr,
    Y1: tl.constexpr,
    X0: tl.constexpr,
    X1: tl.constexpr,
    TILE_VOXELS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
):
    """Sum of the gradients of all places to which the voxels of a tile, from `first` on, were repeated, float32."""
    column = voxel % width
    row = voxel // width % height
    slice_ = voxel // (width * height)
    total = tl.zeros((TILE_VOXELS, TILE_CHANNELS), tl.float32)
    for z in range(-Z0, Z1 + 1):
        # Most tiles have no voxel of the first or last slice.
        of_rim = (z < 0) & (first < width * height)
        of_rim = of_rim | ((z > 0) & (first + TILE_VOXELS > width * height * (depth - 1)))
        if (z == 0) | of_rim:
            there_z = (z == 0) | ((z < 0) & (slice_ == 0)) | ((z > 0) & (slice_ == depth - 1))
            for y in range(-Y0, Y1 + 1):
                there_y = there_z & ((y == 0) | ((y < 0) & (row == 0)) | ((y > 0) & (row == height - 1)))
                for x in tl.static_range(-X0, X1 + 1):
                    there = there_y
                    if x < 0:
                        there = there & (column == 0)
                    if x > 0:
                        there = there & (column == width - 1)
                    at = ((slice_ + Z0 + z) * out_height + row + Y0 + y) * out_width + column + X0 + x
                    pointers = gradient + at[:, None].to(tl.int64) * STRIDE_VOXEL
                    total += tl.load(pointers, mask=inside & there[:, None], other=0.0).to(tl.float32)
    return total


@triton.jit
def _channel_gradients(
    x,
    gradient,
    weight,
    bias,
    scale,
    shift,
    means,
    reciprocals,
    of_slope,
    of_intercept,
    groups,
    voxels,
    chunks,
    depth,
    height,
    width,
    out_height,
    out_width,
    stride_sample,
    stride_channel,
    out_sample,
    out_channel,
    MODULATED: tl.constexpr,
    Z0: tl.constexpr,
    Z1: tl.constexpr,
    Y0: tl.constexpr,
    Y1: tl.constexpr,
    X0: tl.constexpr,
    X1: tl.constexpr,
    CHANNELS: tl.constexpr,
    STRIDE_VOXEL: tl.constexpr,
    TILE_VOXELS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
    TILES: tl.constexpr,
):
    """Gradients of slope and intercept, summed over a chunk of voxels."""
    chunk, sample = tl.program_id(0), tl.program_id(2)
    channel = tl.program_id(1) * TILE_CHANNELS + tl.arange(0, TILE_CHANNELS)
    mean, reciprocal, slope, intercept = _per_channel(
        weight, bias, scale, shift, means, reciprocals, sample, channel, groups, CHANNELS, MODULATED
    )
    source = x + sample.to(tl.int64) * stride_sample + channel[None, :] * stride_channel
    above = gradient + sample.to(tl.int64) * out_sample + channel[None, :] * out_channel
    slopes = tl.zeros((TILE_CHANNELS,), tl.float32)
    intercepts = tl.zeros((TILE_CHANNELS,), tl.float32)
    for tile in range(TILES):
        voxel = (chunk * TILES + tile) * TILE_VOXELS + tl.arange(0, TILE_VOXELS)
        inside = (voxel < voxels)[:, None] & (channel < CHANNELS)[None, :]
        values = tl.load(source + voxel[:, None].to(tl.int64) * STRIDE_VOXEL, mask=inside, other=0.0).to(tl.float32)
        normalized = (values - mean[None, :]) * reciprocal[None, :]
        argument = normalized * slope[None, :] + intercept[None, :]
        sigmoid = 1.0 / (1.0 + tl.exp2(-argument * _LOG2E))
        g = _gathered(
            above,
            (chunk * TILES + tile) * TILE_VOXELS,
            voxel,
            inside,
            depth,
            height,
            width,
            out_height,
            out_width,
            STRIDE_VOXEL,
            Z0,
            Z1,
            Y0,
            Y1,
            X0,
            X1,
            TILE_VOXELS,
            TILE_CHANNELS,
        )
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
    weight,
    bias,
    scale,
    shift,
    means,
    reciprocals,
    mean_gradients,
    mean_products,
    groups,
    voxels,
    depth,
    height,
    width,
    out_height,
    out_width,
    stride_sample,
    stride_channel,
    out_sample,
    out_channel,
    own_sample,
    own_channel,
    MODULATED: tl.constexpr,
    Z0: tl.constexpr,
    Z1: tl.constexpr,
    Y0: tl.constexpr,
    Y1: tl.constexpr,
    X0: tl.constexpr,
    X1: tl.constexpr,
    CHANNELS: tl.constexpr,
    STRIDE_VOXEL: tl.constexpr,
    TILE_VOXELS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
):
    sample = tl.program_id(2)
    channel = tl.program_id(1) * TILE_CHANNELS + tl.arange(0, TILE_CHANNELS)
    mean, reciprocal, slope, intercept = _per_channel(
        weight, bias, scale, shift, means, reciprocals, sample, channel, groups, CHANNELS, MODULATED
    )
    group = sample * groups + channel // (CHANNELS // groups)
    mean_gradient = tl.load(mean_gradients + group, mask=channel < CHANNELS, other=0.0)
    mean_product = tl.load(mean_products + group, mask=channel < CHANNELS, other=0.0)
    voxel = tl.program_id(0) * TILE_VOXELS + tl.arange(0, TILE_VOXELS)
    inside = (voxel < voxels)[:, None] & (channel < CHANNELS)[None, :]
    source = x + sample.to(tl.int64) * stride_sample + channel[None, :] * stride_channel
    above = gradient + sample.to(tl.int64) * out_sample + channel[None, :] * out_channel
    values = tl.load(source + voxel[:, None].to(tl.int64) * STRIDE_VOXEL, mask=inside, other=0.0).to(tl.float32)
    normalized = (values - mean[None, :]) * reciprocal[None, :]
    argument = normalized * slope[None, :] + intercept[None, :]
    sigmoid = 1.0 / (1.0 + tl.exp2(-argument * _LOG2E))
    g = _gathered(
        above,
        tl.program_id(0) * TILE_VOXELS,
        voxel,
        inside,
        depth,
        height,
        width,
        out_height,
        out_width,
        STRIDE_VOXEL,
        Z0,
        Z1,
        Y0,
        Y1,
        X0,
        X1,
        TILE_VOXELS,
        TILE_CHANNELS,
    )
    g *= sigmoid * (1.0 + argument * (1.0 - sigmoid)) * slope[None, :]
    result = reciprocal[None, :] * (g - mean_gradient[None, :] - normalized * mean_product[None, :])
    target = of_x + sample.to(tl.int64) * own_sample + channel[None, :] * own_channel
    tl.store(target + voxel[:, None].to(tl.int64) * STRIDE_VOXEL, result.to(of_x.dtype.element_ty), mask=inside)
