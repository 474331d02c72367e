"""Convolutions that keep the size, or scale it exactly, by repeating the rim; and convolutions within slices."""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional

from nnunet_difftumor.kernels import group_norm_modulate_silu


def _replication(kernel: int, strides: Sequence[int]) -> tuple[int, ...]:
    """Voxels to add before and after each axis, last axis first, as torch's pad wants them: k - s, the larger half
    before.
    """
    padding = []
    for stride in reversed(strides):
        total = kernel - stride
        padding += [total - total // 2, total // 2]
    return tuple(padding)


class SamePadConv3d(nn.Conv3d):
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


class SamePadConvTranspose3d(nn.ConvTranspose3d):
    """Transposed convolution of n voxels to n * stride, with the input's rim repeated."""

    def __init__(self, channels_in: int, channels_out: int, *, kernel: int, strides: Sequence[int]):
        super().__init__(channels_in, channels_out, kernel, stride=tuple(strides), padding=kernel - 1)
        self.replication = _replication(kernel, strides)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(functional.pad(x, self.replication, mode="replicate"))


class SliceConv2d(nn.Conv2d):
    """2D convolution of every slice of (b, c, d, h, w); on a CPU much faster than a 3D one with a flat kernel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _of_slices(super().forward, x)


class SliceConvTranspose2d(nn.ConvTranspose2d):
    """2D transposed convolution of every slice of (b, c, d, h, w)."""

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
