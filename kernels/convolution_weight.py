"""Weights of convolutions as the kernels read them, arranged once and not at every call."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels.checks import check_floating

# A step of a kernel takes so many channels of the input at most, and a program so many of the output.
MOST_AT_ONCE = 64
# The tensor cores' least.
LEAST_AT_ONCE = 16


class ConvolutionWeight(NamedTuple):
    """A weight with all that says how it is applied; `pack_convolution` makes it.

    Attributes:
        weight: in torch's layout, (n, c, kd, kh, kw), or (c, n, kd, kh, kw) if transposed.
        packed: (phases, padded n, length): for each phase and channel of the output the factors of its sums, taps in
            the order of the input and with them its channels, as `Part` says. What is padded is zero.
        stride: of d, h and w.
        transposed: whether the output is the larger one.
        zero_rim: whether zeros are around the input, and not its rim repeated.
        channels: of the input, or of the two that stand for it.
    """

    weight: torch.Tensor
    packed: torch.Tensor
    stride: tuple[int, int, int]
    transposed: bool
    zero_rim: bool
    channels: tuple[int, ...]

    @property
    def channels_out(self) -> int:
        return self.weight.shape[1 if self.transposed else 0]

    def size_out(self, size: Sequence[int]) -> tuple[int, ...]:
        """Output's (d, h, w) of the input's."""
        return tuple(n * s if self.transposed else n // s for n, s in zip(size, self.stride, strict=True))

    @property
    def padding(self) -> list[int]:
        """Voxels that the plain operation adds before and after each axis, last axis first, as torch's pad wants."""
        padding = []
        for kernel, stride in zip(reversed(self.weight.shape[2:]), reversed(self.stride), strict=True):
            before = _before(kernel, stride)
            padding += [before, kernel - stride - before]
        return padding


class Part(NamedTuple):
    """How the channels of one input lie in a packed weight.

    Attributes:
        channels: of the input.
        flat: whether channels follow each other without a gap from tap to tap, so that a step takes several taps.
        step: factors of a sum that are taken at once, a power of two.
        length: factors of a sum, with the padding.
    """

    channels: int
    flat: bool
    step: int
    length: int

    @classmethod
    def of(cls, channels: int, taps: int) -> "Part":
        flat = channels <= LEAST_AT_ONCE
        step = _step(channels * taps if flat else channels)
        return cls(channels, flat, step, _padded(channels * taps, step) if flat else taps * _padded(channels, step))


def pack_convolution(
    weight: torch.Tensor,
    *,
    stride: Sequence[int] = (1, 1, 1),
    transposed: bool = False,
    zero_rim: bool = False,
    channels: Sequence[int] | None = None,
) -> ConvolutionWeight:
    """Arranges the weight of a convolution that keeps, divides or multiplies the size; for `convolve`.

    k - stride voxels are added to each axis, the larger half before: the rim repeated, or zeros. A transposed
    convolution lays every voxel down over its kernel, and cuts k - 1 voxels off each end.

    Args:
        weight: floating (n, c, kd, kh, kw), or (c, n, kd, kh, kw) if transposed; of four axes, (n, c, kh, kw), for a
            convolution within slices. Gradients go to it. A later change of it is not seen.
        stride: of d, h and w, from 1 to the kernel's size; transposed, 1, or 2 with a kernel of 4.
        transposed: n voxels to n * stride, instead of n to n / stride.
        zero_rim: zeros around the input, after its norm and SiLU.
        channels: of two inputs that stand for their concatenation; they add up to c.

    Raises:
        InputError: for a weight, stride or channels that are none of these.
    """
    check_floating("weight", weight)
    if weight.ndim not in (4, 5) or weight.numel() == 0:
        raise InputError(f"weight: expected (n, c, kd, kh, kw) or (n, c, kh, kw), got {tuple(weight.shape)}")
    if weight.ndim == 4:
        weight = weight.unsqueeze(2)
    stride = tuple(stride)
    kernel = weight.shape[2:]
    if len(stride) != 3 or not all(
        isinstance(s, int) and 1 <= s <= k and (not transposed or s == 1 or (s, k) == (2, 4))
        for s, k in zip(stride, kernel, strict=True)
    ):
        possible = "1, or 2 with a kernel of 4" if transposed else "from 1 to the kernel's size"
        raise InputError(f"stride: expected three numbers, {possible}, got {stride} for a kernel of {tuple(kernel)}")
    total = weight.shape[0 if transposed else 1]
    channels = (total,) if channels is None else tuple(channels)
    if not 1 <= len(channels) <= 2 or min(channels) < 1 or sum(channels) != total:
        raise InputError(f"channels: expected one or two numbers that add up to {total}, got {channels}")
    with torch.no_grad():
        packed = _pack(weight, stride, transposed, channels)
    return ConvolutionWeight(weight, packed, stride, transposed, zero_rim, channels)


def phases_of(weight: ConvolutionWeight) -> tuple[int, ...]:
    """Classes of output voxels along d, h and w that take other factors: the remainders of a transposed stride."""
    return weight.stride if weight.transposed else (1, 1, 1)


def taps_of(weight: ConvolutionWeight) -> tuple[int, ...]:
    """Voxels of the input along d, h and w that a voxel of the output takes."""
    phases = phases_of(weight)
    return tuple(k // p for k, p in zip(weight.weight.shape[2:], phases, strict=True))


def before_of(weight: ConvolutionWeight) -> tuple[int, ...]:
    """Voxels before the input along d, h and w at which the first voxel of the output begins."""
    return tuple(_before(k, s) for k, s in zip(weight.weight.shape[2:], weight.stride, strict=True))


def outputs_at_once(channels_out: int) -> int:
    """Channels of the output that a program makes, a power of two."""
    return _step(channels_out)


def _before(kernel: int, stride: int) -> int:
    return (kernel - stride + 1) // 2


def _step(channels: int) -> int:
    return min(MOST_AT_ONCE, max(LEAST_AT_ONCE, 1 << (channels - 1).bit_length()))


def _padded(count: int, step: int) -> int:
    return -(-count // step) * step


def _pack(weight: torch.Tensor, stride: Sequence[int], transposed: bool, channels: Sequence[int]) -> torch.Tensor:
    phases = [_phase(weight, remainders, stride) for remainders in product(*map(range, stride))] if transposed else []
    by_phase = torch.stack(phases or [weight.permute(0, 2, 3, 4, 1)])
    count, n = by_phase.shape[:2]
    taps = by_phase.shape[2:-1].numel()
    packed = []
    for factors in by_phase.split(list(channels), dim=-1):
        part = Part.of(factors.shape[-1], taps)
        if part.flat:
            packed.append(weight.new_zeros(count, n, part.length))
            packed[-1][:, :, : taps * part.channels] = factors.flatten(2)
        else:
            wide = weight.new_zeros(count, n, taps, part.length // taps)
            wide[..., : part.channels] = factors.flatten(2, 4)
            packed.append(wide.flatten(2))
    whole = torch.cat(packed, dim=-1)
    out = whole.new_zeros(count, _padded(n, outputs_at_once(n)), whole.shape[-1])
    out[:, :n] = whole
    return out


def _phase(weight: torch.Tensor, remainders: Sequence[int], stride: Sequence[int]) -> torch.Tensor:
    """(n, d, h, w, c) of a transposed weight (c, n, kd, kh, kw): what reaches the voxels with these remainders.

    Voxel s * q + r takes tap t of voxel (s * q + r + k - 1 - t) / s of the padded input. In the input's order those are
    t = k - 1 - r, then always s less.
    """
    for axis, (r, s) in enumerate(zip(remainders, stride, strict=True), start=2):
        taps = range(weight.shape[axis] - 1 - r, -1, -s)
        weight = weight.index_select(axis, torch.tensor(list(taps), device=weight.device))
    return weight.permute(1, 2, 3, 4, 0)
