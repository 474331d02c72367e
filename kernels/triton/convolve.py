"""Convolutions of channels-last volumes as sums of matrix products over the kernel's taps, with all around them fused.

A program makes a tile of places and channels of the output. It reads the input's tile of every tap from memory that
other programs have in the cache too, by an index that stays within the volume: the repeated rim is no copy. Norm and
SiLU act on what was read, before the product; bias, residual and the moments for the next norm on the float32 sums.

Two loops. The deep one, for 3^3 kernels without stride, makes four slices and reads every slice of the input once for
the up to three of them that take it; on an H100 a prototype of it, without anything fused, reached 326 TFLOP/s at
32 channels and 96^3 in bfloat16, where cuDNN's best was 119. The plain one takes places in a row and serves all else:
any kernel and stride, transposed convolutions as one plain convolution for each remainder of the stride, two inputs in
place of their concatenation, kernels within slices.

Bound: 2 * taps * c * n operations per voxel at 800 TFLOP/s, 61 us for 3^3 and 32 -> 32 channels at 96^3. The norm is
computed again at every tap, in the deep loop 13.5 times for a voxel. The two special functions of a sigmoid, at 16 a
clock and processor, would take 0.2 ms there; in bfloat16 one has to do, an approximate tanh.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels.convolution_weight import (
    ConvolutionWeight,
    Part,
    before_of,
    outputs_at_once,
    phases_of,
    taps_of,
)
from nnunet_difftumor.kernels.moments import Affine
from nnunet_difftumor.kernels.reference import convolve as plain

# Slices, and edge of the square of places, that a program of the deep loop makes.
_DEPTH, _EDGE = 4, 8
# Fewer programs would leave processors of a large GPU (an H100 has 132) without work.
_LEAST_PROGRAMS = 132
# Bytes of shared memory that a program may have, by compute capability; others have 99 KB.
_SHARED = {80: 163 * 1024, 87: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024, 103: 227 * 1024}
_LEAST_SHARED = 99 * 1024


@torch.library.custom_op("nnunet_difftumor::convolve", mutates_args=())
def convolve(
    x: torch.Tensor,
    skip: torch.Tensor | None,
    weight: torch.Tensor,
    packed: torch.Tensor,
    bias: torch.Tensor,
    scale: torch.Tensor | None,
    shift: torch.Tensor | None,
    residual: torch.Tensor | None,
    residual_scale: torch.Tensor | None,
    residual_shift: torch.Tensor | None,
    stride: Sequence[int],
    transposed: bool,
    zero_rim: bool,
    moments: bool,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The output, channels-last; with `moments` counts, means and deviations of its pieces, else three empty tensors.

    Volumes are channels-last in memory, all else is contiguous.
    """
    whole = _whole(x, skip, weight, packed, stride, transposed, zero_rim)
    plan = _Plan.of(x, whole)
    y, *partial = _outputs(x, whole, plan, moments, dtype)
    before = _Norm(scale, shift)
    after = _After(bias, residual, residual_scale, residual_shift)
    joined = _Moments(*partial) if moments else None
    source, target = _Volume.of(x), _Volume.of(y)
    parts = _parts(whole)
    options = {
        "OUT": whole.channels_out,
        "OUT_TILE": outputs_at_once(whole.channels_out),
        "OUT_PADDED": packed.shape[1],
        "PRECISION": "tf32x3" if _is_exact(packed) else "tf32",
        "num_warps": plan.warps,
        "num_stages": plan.stages,
    }
    if plan.deep:
        _convolve_deep[plan.grid](
            *(source, target, packed, before, after, joined),
            CHANNELS=parts[0].channels,
            STEP=parts[0].step,
            DEPTH=_DEPTH,
            EDGE=_EDGE,
            **options,
        )
    else:
        _convolve_rows[plan.grid](
            *(source, skip, target, packed, before, after, joined),
            TAPS=taps_of(whole),
            STRIDE=(1, 1, 1) if transposed else whole.stride,
            PHASES=phases_of(whole),
            BEFORE=before_of(whole),
            ZERO_RIM=zero_rim,
            PART=tuple(parts[0]._replace(step=_step(packed, parts[0]))),
            SKIP_PART=tuple(parts[-1]._replace(step=_step(packed, parts[-1]))),
            ROWS=plan.rows,
            **options,
        )
    return y, *partial


@convolve.register_fake
def _(
    x,
    skip,
    weight,
    packed,
    bias,
    scale,
    shift,
    residual,
    residual_scale,
    residual_shift,
    stride,
    transposed,
    zero_rim,
    moments,
    dtype,
):
    whole = _whole(x, skip, weight, packed, stride, transposed, zero_rim)
    return _outputs(x, whole, _Plan.of(x, whole), moments, dtype)


def _save(ctx, inputs, output) -> None:
    x, skip, weight, packed, bias, scale, shift, residual, residual_scale, residual_shift, *ctx.options, _, _ = inputs
    ctx.save_for_backward(x, skip, weight, packed, bias, scale, shift, residual, residual_scale, residual_shift)
    ctx.mark_non_differentiable(*output[1:])


def _gradients(ctx, gradient, *_):
    x, skip, weight, packed, bias, scale, shift, residual, residual_scale, residual_shift = ctx.saved_tensors
    whole = _whole(x, skip, weight, packed, *ctx.options)
    norm = None if scale is None else Affine(scale, shift)
    padded = plain.padded_input(x, skip, norm, whole)
    cut = [k - 1 if whole.transposed else 0 for k in weight.shape[2:]]
    of_padded, of_weight, of_bias = torch.ops.aten.convolution_backward(
        *(gradient.to(weight.dtype), padded, weight, [whole.channels_out], whole.stride, cut),
        *((1, 1, 1), whole.transposed, (0, 0, 0), 1, (True, True, True)),
    )
    of_x, of_skip = _cropped(of_padded, x, whole), None
    if skip is not None:
        of_x, of_skip = of_x.split(list(whole.channels), dim=1)
        of_skip = of_skip.to(skip.dtype)
    of_scale = of_shift = of_residual = of_residual_scale = of_residual_shift = None
    if norm is not None:
        of_x, of_scale, of_shift = normalized_gradients(of_x, x, norm)
    of_x = of_x.to(x.dtype)
    if residual_scale is not None:
        of_residual, of_residual_scale, of_residual_shift = normalized_gradients(
            gradient, residual, Affine(residual_scale, residual_shift)
        )
    elif residual is not None:
        of_residual = gradient.to(residual.dtype)
    of_added = (of_residual, of_residual_scale, of_residual_shift)
    return of_x, of_skip, of_weight, None, of_bias.to(bias.dtype), of_scale, of_shift, *of_added, *(None,) * 5


convolve.register_autograd(_gradients, setup_context=_save)


def _cropped(of_padded: torch.Tensor, x: torch.Tensor, whole: ConvolutionWeight) -> torch.Tensor:
    """Gradient of what was padded."""
    if not whole.zero_rim:
        # Only shape and device of its second argument matter.
        like = of_padded.new_empty((len(x), sum(whole.channels), *x.shape[2:]))
        return torch.ops.aten.replication_pad3d_backward(of_padded, like, whole.padding)
    for axis, (before, n) in enumerate(zip(before_of(whole), x.shape[2:], strict=True), start=2):
        of_padded = of_padded.narrow(axis, before, n)
    return of_padded


def normalized_gradients(gradient: torch.Tensor, x: torch.Tensor, norm: Affine) -> tuple[torch.Tensor, ...]:
    """Gradients of x, scale and shift, of that of silu(x * scale + shift)."""
    of_argument = torch.ops.aten.silu_backward(gradient.float(), plain.affine(x, norm))
    of_x = (of_argument * norm.scale[:, :, None, None, None]).to(x.dtype)
    return of_x, (of_argument * x).sum((2, 3, 4)), of_argument.sum((2, 3, 4))


def check(out_shape: Sequence[int]) -> None:
    """Raises an InputError for an output that the kernel cannot address."""
    _, n, depth, height, width = out_shape
    if n * depth * height * width >= 2**31:
        raise InputError(f"x: makes {tuple(out_shape[1:])} per sample, the kernels take up to {2**31} elements")


def _whole(x, skip, weight, packed, stride, transposed, zero_rim) -> ConvolutionWeight:
    channels = (x.shape[1],) if skip is None else (x.shape[1], skip.shape[1])
    return ConvolutionWeight(weight, packed, tuple(stride), transposed, zero_rim, channels)


def _outputs(
    x: torch.Tensor, weight: ConvolutionWeight, plan: "_Plan", moments: bool, dtype: torch.dtype
) -> tuple[torch.Tensor, ...]:
    n, size = weight.channels_out, weight.size_out(x.shape[2:])
    y = torch.empty((len(x), n, *size), dtype=dtype, device=x.device, memory_format=torch.channels_last_3d)
    shapes = ((len(x), plan.pieces), (len(x), plan.pieces, n), (len(x), plan.pieces, n)) if moments else (0, 0, 0)
    return y, *(x.new_empty(shape, dtype=torch.float32) for shape in shapes)


@dataclass(frozen=True)
class _Plan:
    """Which loop runs, and how. Only what is said to be measured has been, by a prototype in bfloat16 on an H100.

    Attributes:
        deep: whether four slices at once.
        rows: places of a program of the plain loop.
        grid: programs; of the first axis, all tiles of channels of a tile of places follow each other.
        pieces: of the moments of a sample.
        warps: of a program.
        stages: of a program's loop; loads are on their way for one less.
    """

    deep: bool
    rows: int
    grid: tuple[int, int, int]
    pieces: int
    warps: int
    stages: int

    @classmethod
    def of(cls, x: torch.Tensor, weight: ConvolutionWeight) -> "_Plan":
        batch, size = len(x), weight.size_out(x.shape[2:])
        squares = triton.cdiv(size[0], _DEPTH) * triton.cdiv(size[1], _EDGE) * triton.cdiv(size[2], _EDGE)
        stages = _deep_stages(x, weight)
        if stages and batch * squares >= _LEAST_PROGRAMS:
            # Measured: 4 warps.
            return cls(True, _EDGE**2, (squares, 1, batch), squares, 4, stages)
        phases = math.prod(phases_of(weight))
        places, out = math.prod(size) // phases, outputs_at_once(weight.channels_out)
        tiles = weight.packed.shape[1] // out
        # Measured: 128 places and 8 warps. Unmeasured: half of both, where that would be few programs.
        many = batch * phases * tiles * triton.cdiv(places, 128) >= 2 * _LEAST_PROGRAMS
        rows, warps = (128, 8) if many else (64, 4)
        step = max(_step(weight.packed, part) for part in _parts(weight))
        grid = (triton.cdiv(places, rows) * tiles, phases, batch)
        stages = _stages(_bytes(x, weight), (rows + out) * step, most=3)
        return cls(False, rows, grid, triton.cdiv(places, rows) * phases, warps, stages)


def _deep_stages(x: torch.Tensor, weight: ConvolutionWeight) -> int:
    """Stages of the deep loop; 0 where it cannot run, or would have too few registers."""
    channels, out = weight.channels[0], outputs_at_once(weight.channels_out)
    part = _parts(weight)[0]
    if (
        (weight.weight.shape[2:], weight.stride, weight.zero_rim) != ((3, 3, 3), (1, 1, 1), False)
        or (part.flat or channels > part.step or weight.packed.shape[1] > out)
        or len(weight.channels) > 1
        or _is_exact(weight.packed)
    ):
        return 0
    # Where matrix units take operands from shared memory; elsewhere these are in registers too. Of three reasons for
    # many registers, two are too many.
    roomy = _SHARED.get(_architecture(), 0) > _SHARED[80]
    if (part.step > 32) + (_bytes(x, weight) > 2) + (not roomy) > 1:
        return 0
    # Measured: two stages at 32 channels, three at 64.
    stages = _stages(
        _bytes(x, weight), ((_DEPTH + 2) * _EDGE**2 + 3 * out) * part.step, most=2 if part.step <= 32 else 3
    )
    return stages if stages > 1 else 0


def _parts(weight: ConvolutionWeight) -> list[Part]:
    taps = math.prod(taps_of(weight))
    return [Part.of(channels, taps) for channels in weight.channels]


def _bytes(x: torch.Tensor, weight: ConvolutionWeight) -> int:
    """Of an element, of the wider of the two."""
    return max(x.element_size(), weight.packed.element_size())


def _step(packed: torch.Tensor, part: Part) -> int:
    """Factors at once; exact products of float32 need registers for three of each."""
    return min(part.step, 32) if _is_exact(packed) else part.step


def _stages(bytes_: int, elements: int, *, most: int) -> int:
    """How many stages of so many elements fit into shared memory."""
    # Sums over places need some too, and the system.
    room = _SHARED.get(_architecture(), _LEAST_SHARED) - 4096
    return max(1, min(most, room // (elements * bytes_)))


def _is_exact(packed: torch.Tensor) -> bool:
    """Whether products are to be those of float32; rounding to tf32 only where the user lets matrix products do so."""
    return packed.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"


def _architecture() -> int:
    """Compute capability; 80 stands for the interpreter, and for tensors without memory where there is no GPU."""
    if triton.knobs.runtime.interpret:
        return 80
    try:
        return triton.runtime.driver.active.get_current_target().arch
    except RuntimeError:  # of triton: no driver is active
        return 80


class _Volume(NamedTuple):
    """A channels-last tensor (b, c, d, h, w), as kernels take it."""

    elements: torch.Tensor
    depth: int
    height: int
    width: int

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "_Volume":
        return cls(tensor, *tensor.shape[2:])


class _Norm(NamedTuple):
    """Of the input, float32 (b, c) each, or nothing."""

    scale: torch.Tensor | None
    shift: torch.Tensor | None


class _After(NamedTuple):
    """What is added to the sums; the residual after its own norm and SiLU, if it has one."""

    bias: torch.Tensor
    residual: torch.Tensor | None
    scale: torch.Tensor | None
    shift: torch.Tensor | None


class _Moments(NamedTuple):
    """Of the pieces, to be written."""

    counts: torch.Tensor
    means: torch.Tensor
    deviations: torch.Tensor


_LOG2E = tl.constexpr(1.4426950408889634)
# The interpreter runs no instructions of a GPU.
_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def silu(argument):
    return argument / (1.0 + tl.exp2(-argument * _LOG2E))


@triton.jit
def _silu_by_tanh(argument):
    """x sigmoid(x) as h + h tanh(h), h = x / 2; off by at most 0.00025 |x|, an eighth of what bfloat16 rounds off x."""
    half = 0.5 * argument
    tanh = tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [half], dtype=tl.float32, is_pure=True, pack=1)
    return half + half * tanh


@triton.jit
def _within(index, size):
    """The nearest index of an axis."""
    return tl.minimum(tl.maximum(index, 0), size - 1)


@triton.jit
def _normalized(values, norm, sample, channel, real, CHANNELS: tl.constexpr, DTYPE: tl.constexpr):
    """silu(norm(values)), or the values, as DTYPE; zero in channels that there are not."""
    if norm.scale is not None:
        scale = tl.load(norm.scale + sample * CHANNELS + channel, mask=real, other=0.0)[None, :]
        shift = tl.load(norm.shift + sample * CHANNELS + channel, mask=real, other=0.0)[None, :]
        argument = values.to(tl.float32) * scale + shift
        values = _silu_by_tanh(argument) if tl.bfloat16 == DTYPE and not _INTERPRETED else silu(argument)
    return values.to(DTYPE)


@triton.jit
def _finished(sums, y, after, sample, voxel, inside, channel, OUT: tl.constexpr):
    """Adds what is to be added, stores, and returns the values as they are stored, in float32.

    voxel is the index in the output (places,), channel that of the output (channels,).
    """
    real = channel < OUT
    mask = inside[:, None] & real[None, :]
    at = sample * (y.depth * y.height * y.width) * OUT
    place = voxel[:, None] * OUT + channel[None, :]
    sums += tl.load(after.bias + channel, mask=real, other=0.0).to(tl.float32)[None, :]
    if after.residual is not None:
        residual = tl.load(after.residual + at + place, mask=mask, other=0.0).to(tl.float32)
        if after.scale is not None:
            scale = tl.load(after.scale + sample * OUT + channel, mask=real, other=0.0)[None, :]
            shift = tl.load(after.shift + sample * OUT + channel, mask=real, other=0.0)[None, :]
            residual = silu(residual * scale + shift)
        sums += residual
    rounded = sums.to(y.elements.dtype.element_ty)
    tl.store(y.elements + at + place, rounded, mask=mask)
    return rounded.to(tl.float32)


@triton.jit
def _put_moments(moments, count, mean, deviation, at, channel, first, OUT: tl.constexpr):
    """Of one piece, whose programs have some channels each; the first one writes the count."""
    tl.store(moments.counts + at, count, mask=first)
    tl.store(moments.means + at * OUT + channel, mean, mask=channel < OUT)
    tl.store(moments.deviations + at * OUT + channel, deviation, mask=channel < OUT)


@triton.jit
def _added_taps(
    sums,
    x,
    elements,
    weights,
    norm,
    sample,
    from_z,
    from_y,
    from_x,
    TAPS: tl.constexpr,
    PART: tl.constexpr,
    ZERO_RIM: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """sums, and the products of all taps of one input with their weights.

    from_z, from_y and from_x (places, 1) are where the first tap is, perhaps outside; sample is int64, and weights
    (1, channels of the output) point to the first factor of this input.
    """
    td: tl.constexpr = TAPS[0]
    th: tl.constexpr = TAPS[1]
    tw: tl.constexpr = TAPS[2]
    channels: tl.constexpr = PART[0]
    flat: tl.constexpr = PART[1]
    factors: tl.constexpr = PART[2]
    length: tl.constexpr = PART[3]
    padded: tl.constexpr = channels if flat else length // (td * th * tw)
    source = elements + sample * (x.depth * x.height * x.width) * channels
    for index in range(length // factors):
        at = index * factors + tl.arange(0, factors)
        if flat:
            tap = (at // channels)[None, :]
            channel = at % channels
            real = at < td * th * tw * channels
        else:
            tap = index // (padded // factors)
            channel = index % (padded // factors) * factors + tl.arange(0, factors)
            real = channel < channels
        at_z = from_z + tap // (th * tw)
        at_y = from_y + tap // tw % th
        at_x = from_x + tap % tw
        there = real[None, :]
        if ZERO_RIM:
            in_volume = (at_z >= 0) & (at_z < x.depth) & (at_y >= 0) & (at_y < x.height)
            in_volume = in_volume & (at_x >= 0) & (at_x < x.width)
            there = there & in_volume
        else:
            at_z, at_y, at_x = _within(at_z, x.depth), _within(at_y, x.height), _within(at_x, x.width)
        pointers = source + ((at_z * x.height + at_y) * x.width + at_x) * channels + channel[None, :]
        if ZERO_RIM or padded * td * th * tw != length or channels != padded:
            values = tl.load(pointers, mask=there, other=0.0)
        else:
            values = tl.load(pointers)
        values = _normalized(values, norm, sample, channel, real, channels, weights.dtype.element_ty)
        if ZERO_RIM and norm.scale is not None:
            # The rim is zero after the norm, not before.
            values = tl.where(in_volume, values, 0.0).to(values.dtype)
        sums = tl.dot(values, tl.load(weights + at[:, None]), sums, input_precision=PRECISION)
    return sums


@triton.jit
def _convolve_rows(
    x,
    skip,
    y,
    packed,
    norm,
    after,
    moments,
    TAPS: tl.constexpr,
    STRIDE: tl.constexpr,
    PHASES: tl.constexpr,
    BEFORE: tl.constexpr,
    ZERO_RIM: tl.constexpr,
    PART: tl.constexpr,
    SKIP_PART: tl.constexpr,
    ROWS: tl.constexpr,
    OUT: tl.constexpr,
    OUT_TILE: tl.constexpr,
    OUT_PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Places in a row of one phase of a sample, and some channels."""
    # Named one by one: an element of a constexpr tuple is none itself.
    sd: tl.constexpr = STRIDE[0]
    sh: tl.constexpr = STRIDE[1]
    sw: tl.constexpr = STRIDE[2]
    pd: tl.constexpr = PHASES[0]
    ph: tl.constexpr = PHASES[1]
    pw: tl.constexpr = PHASES[2]
    bd: tl.constexpr = BEFORE[0]
    bh: tl.constexpr = BEFORE[1]
    bw: tl.constexpr = BEFORE[2]
    length: tl.constexpr = PART[3]
    of_skip: tl.constexpr = 0 if skip is None else SKIP_PART[3]
    tiles: tl.constexpr = OUT_PADDED // OUT_TILE
    tile, phase, sample = tl.program_id(0) // tiles, tl.program_id(1), tl.program_id(2).to(tl.int64)
    channel = tl.program_id(0) % tiles * OUT_TILE + tl.arange(0, OUT_TILE)
    depth, height, width = y.depth // pd, y.height // ph, y.width // pw
    places = depth * height * width
    row = tile * ROWS + tl.arange(0, ROWS)
    inside = row < places
    # The last place again where there is none: it can be read.
    place = tl.minimum(row, places - 1)
    q_x, q_y, q_z = place % width, place // width % height, place // (width * height)
    r_x, r_y, r_z = phase % pw, phase // pw % ph, phase // (pw * ph)
    from_z = (q_z * sd - bd + r_z)[:, None]
    from_y = (q_y * sh - bh + r_y)[:, None]
    from_x = (q_x * sw - bw + r_x)[:, None]
    sums = tl.zeros((ROWS, OUT_TILE), tl.float32)
    weights = packed + (phase * OUT_PADDED + channel)[None, :] * (length + of_skip)
    sums = _added_taps(
        sums, x, x.elements, weights, norm, sample, from_z, from_y, from_x, TAPS, PART, ZERO_RIM, PRECISION
    )
    if skip is not None:
        sums = _added_taps(
            sums, x, skip, weights + length, norm, sample, from_z, from_y, from_x, TAPS, SKIP_PART, ZERO_RIM, PRECISION
        )
    voxel = ((q_z * pd + r_z) * y.height + q_y * ph + r_y) * y.width + q_x * pw + r_x
    values = _finished(sums, y, after, sample, voxel, inside, channel, OUT)
    if moments is not None:
        count = tl.minimum(places - tile * ROWS, ROWS).to(tl.float32)
        mean = tl.sum(tl.where(inside[:, None], values, 0.0), 0) / count
        apart = tl.where(inside[:, None], values - mean[None, :], 0.0)
        pieces = tl.num_programs(0) // tiles
        at = (sample * tl.num_programs(1) + phase) * pieces + tile
        _put_moments(moments, count, mean, tl.sum(apart * apart, 0), at, channel, tl.program_id(0) % tiles == 0, OUT)


@triton.jit
def _slice_of(
    source, x, z, place, channel, norm, sample, CHANNELS: tl.constexpr, STEP: tl.constexpr, DTYPE: tl.constexpr
):
    """Places (places, 1) of one slice of the input, or of the nearest that there is, after the norm."""
    pointers = source + _within(z, x.depth) * (x.height * x.width * CHANNELS) + place + channel[None, :]
    real = channel < CHANNELS
    values = tl.load(pointers) if CHANNELS == STEP else tl.load(pointers, mask=real[None, :], other=0.0)
    return _normalized(values, norm, sample, channel, real, CHANNELS, DTYPE)


@triton.jit
def _squares(values, mean, inside):
    apart = tl.where(inside[:, None], values - mean[None, :], 0.0)
    return tl.sum(apart * apart, 0)


@triton.jit
def _convolve_deep(
    x,
    y,
    packed,
    norm,
    after,
    moments,
    CHANNELS: tl.constexpr,
    STEP: tl.constexpr,
    DEPTH: tl.constexpr,
    EDGE: tl.constexpr,
    OUT: tl.constexpr,
    OUT_TILE: tl.constexpr,
    OUT_PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A square of places in four slices of a sample, for a 3^3 kernel: six slices of the input are read."""
    tl.static_assert(DEPTH == 4)
    sample = tl.program_id(2).to(tl.int64)
    across, down = tl.cdiv(x.width, EDGE), tl.cdiv(x.height, EDGE)
    tile = tl.program_id(0)
    z = tile // (across * down) * DEPTH
    square = tl.arange(0, EDGE * EDGE)
    row = tile // across % down * EDGE + square // EDGE
    column = tile % across * EDGE + square % EDGE
    inside = (row < x.height) & (column < x.width)
    k = tl.arange(0, STEP)
    channel = tl.arange(0, OUT_TILE)
    source = x.elements + sample * (x.depth * x.height * x.width) * CHANNELS
    weights = packed + channel[None, :] * (27 * STEP) + k[:, None]
    dtype: tl.constexpr = packed.dtype.element_ty
    sums0 = tl.zeros((EDGE * EDGE, OUT_TILE), tl.float32)
    sums1 = tl.zeros((EDGE * EDGE, OUT_TILE), tl.float32)
    sums2 = tl.zeros((EDGE * EDGE, OUT_TILE), tl.float32)
    sums3 = tl.zeros((EDGE * EDGE, OUT_TILE), tl.float32)
    for tap in range(9):
        at_y, at_x = _within(row + tap // 3 - 1, x.height), _within(column + tap % 3 - 1, x.width)
        place = ((at_y * x.width + at_x) * CHANNELS)[:, None]
        w0 = tl.load(weights + tap * STEP)
        w1 = tl.load(weights + (9 + tap) * STEP)
        w2 = tl.load(weights + (18 + tap) * STEP)
        values = _slice_of(source, x, z - 1, place, k, norm, sample, CHANNELS, STEP, dtype)
        sums0 = tl.dot(values, w0, sums0, input_precision=PRECISION)
        values = _slice_of(source, x, z, place, k, norm, sample, CHANNELS, STEP, dtype)
        sums0 = tl.dot(values, w1, sums0, input_precision=PRECISION)
        sums1 = tl.dot(values, w0, sums1, input_precision=PRECISION)
        values = _slice_of(source, x, z + 1, place, k, norm, sample, CHANNELS, STEP, dtype)
        sums0 = tl.dot(values, w2, sums0, input_precision=PRECISION)
        sums1 = tl.dot(values, w1, sums1, input_precision=PRECISION)
        sums2 = tl.dot(values, w0, sums2, input_precision=PRECISION)
        values = _slice_of(source, x, z + 2, place, k, norm, sample, CHANNELS, STEP, dtype)
        sums1 = tl.dot(values, w2, sums1, input_precision=PRECISION)
        sums2 = tl.dot(values, w1, sums2, input_precision=PRECISION)
        sums3 = tl.dot(values, w0, sums3, input_precision=PRECISION)
        values = _slice_of(source, x, z + 3, place, k, norm, sample, CHANNELS, STEP, dtype)
        sums2 = tl.dot(values, w2, sums2, input_precision=PRECISION)
        sums3 = tl.dot(values, w1, sums3, input_precision=PRECISION)
        values = _slice_of(source, x, z + 4, place, k, norm, sample, CHANNELS, STEP, dtype)
        sums3 = tl.dot(values, w2, sums3, input_precision=PRECISION)
    voxel = (z * x.height + row) * x.width + column
    plane = x.height * x.width
    in1, in2, in3 = inside & (z + 1 < x.depth), inside & (z + 2 < x.depth), inside & (z + 3 < x.depth)
    values0 = _finished(sums0, y, after, sample, voxel, inside, channel, OUT)
    values1 = _finished(sums1, y, after, sample, voxel + plane, in1, channel, OUT)
    values2 = _finished(sums2, y, after, sample, voxel + 2 * plane, in2, channel, OUT)
    values3 = _finished(sums3, y, after, sample, voxel + 3 * plane, in3, channel, OUT)
    if moments is not None:
        in_plane = tl.minimum(x.height - tile // across % down * EDGE, EDGE)
        in_plane *= tl.minimum(x.width - tile % across * EDGE, EDGE)
        count = (in_plane * tl.minimum(x.depth - z, DEPTH)).to(tl.float32)
        total = tl.where(inside[:, None], values0, 0.0) + tl.where(in1[:, None], values1, 0.0)
        total += tl.where(in2[:, None], values2, 0.0) + tl.where(in3[:, None], values3, 0.0)
        mean = tl.sum(total, 0) / count
        deviation = _squares(values0, mean, inside) + _squares(values1, mean, in1)
        deviation += _squares(values2, mean, in2) + _squares(values3, mean, in3)
        at = sample * tl.num_programs(0) + tile
        _put_moments(moments, count, mean, deviation, at, channel, True, OUT)
