"""Convolutions that keep the size, or scale it exactly, by repeating the rim; and convolutions within slices."""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional

from nnunet_difftumor.kernels import ConvolutionWeight, group_norm_modulate_silu, pack_convolution


def _replication(kernel: int, strides: Sequence[int]) -> tuple[int, ...]:
    """Voxels to add before and after each axis, last axis first, as torch's pad wants them: k - s, the larger half
    before.
    """
    padding = []
    for stride in reversed(strides):
        total = kernel - stride
        padding += [total - total // 2, total // 2]
    return tuple(padding)


class _Packed:
    """A convolution that arranges its weight for `kernels.convolve` once for every state of it."""

    weight: torch.Tensor
    _zero_rim = False
    _kept: tuple[Any, ConvolutionWeight] | None = None

    def packed(self, channels: Sequence[int] | None = None) -> ConvolutionWeight:
        """The weight for one input, or for two of so many channels in place of their concatenation."""
        weight = self.weight.detach()
        # Tensors of the inference mode do not tell whether their values stay.
        version = None if weight.is_inference() else weight._version
        state = (version, weight.data_ptr(), weight.dtype, weight.device, channels)
        if self._kept is None or version is None or self._kept[0] != state:
            stride = self.stride if weight.ndim == 5 else (1, *self.stride)
            made = pack_convolution(
                weight, stride=stride, transposed=self.transposed, zero_rim=self._zero_rim, channels=channels
            )
            self._kept = (state, made)
        return self._kept[1]

    def __getstate__(self) -> dict[str, Any]:
        # A copy packs its own.
        return {name: value for name, value in super().__getstate__().items() if name != "_kept"}


class SamePadConv3d(_Packed, nn.Conv3d):
    """Convolution of n voxels to n / stride, with the rim repeated.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        kernel: edge of the cubic kernel, at least the stride.
        strides: of z, x and y.
    """

    def __init__(self, channels_in: int, channels_out: int, *, kernel: int, strides: Sequence[int] = (1, 1, 1)):
        super().__init__(channels_in, channels_out, kernel, stride=tuple(strides))
        self.replication = _replication(kernel, strides)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if any(self.replication):
            x = functional.pad(x, self.replication, mode="replicate")
        return self.of_padded(x)

    def of_padded(self, x: torch.Tensor) -> torch.Tensor:
        """The same for an input that already has its repeated rim."""
        return super().forward(x)


class SamePadConvTranspose3d(_Packed, nn.ConvTranspose3d):
    """Transposed convolution of n voxels to n * stride, with the input's rim repeated."""

    def __init__(self, channels_in: int, channels_out: int, *, kernel: int, strides: Sequence[int]):
        super().__init__(channels_in, channels_out, kernel, stride=tuple(strides), padding=kernel - 1)
        self.replication = _replication(kernel, strides)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(functional.pad(x, self.replication, mode="replicate"))


class SliceConv2d(_Packed, nn.Conv2d):
    """2D convolution of every slice of (b, c, d, h, w); on a CPU much faster than a 3D one with a flat kernel."""

    _zero_rim = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _of_slices(super().forward, x)


class SliceConvTranspose2d(_Packed, nn.ConvTranspose2d):
    """2D transposed convolution of every slice of (b, c, d, h, w)."""

    _zero_rim = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _of_slices(super().forward, x)


def _of_slices(convolution, x: torch.Tensor) -> torch.Tensor:
    slices = convolution(rearrange(x, "b c d h w -> (b d) c h w"))
    return rearrange(slices, "(b d) c h w -> b c d h w", b=x.shape[0])


class GroupNormSiLU(nn.GroupNorm):
    """GroupNorm, optional modulation, SiLU, optional repetition of the rim, as one operation."""

    def forward(
        self,
        x: torch.Tensor,
        modulation: tuple[torch.Tensor, torch.Tensor] | None = None,
        *,
        replicate: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """x is (b, c, d, h, w); modulation is scale and shift, (b, c) each."""
        scale, shift = (None, None) if modulation is None else modulation
        return group_norm_modulate_silu(
            x,
            self.weight,
            bias=self.bias,
            groups=self.num_groups,
            eps=self.eps,
            scale=scale,
            shift=shift,
            replicate=replicate,
        )
