"""3D autoencoder with a codebook (VQGAN; Esser et al., CVPR 2021), shaped as in DiffTumor (Chen et al., CVPR 2024).

Axes are (b, c, z, x, y); volumes are in [-1, 1]. Every size that the downsampling divides is possible.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.networks import fused, streaming
from nnunet_difftumor.generative.networks.codebook import Codebook
from nnunet_difftumor.generative.networks.convolutions import GroupNormSiLU, SamePadConv3d, SamePadConvTranspose3d
from nnunet_difftumor.generative.networks.sizes import check_sizes
from nnunet_difftumor.kernels import Quantized
from nnunet_difftumor.kernels.implementation import is_cpu_inference

NORM_EPS = 1e-6
_MOST = {
    "channels": 16,
    "hidden_channels": 1024,
    "latent_channels": 256,
    "codes": 1 << 20,
    "downsampling": 64,
    "norm_groups": 1024,
}


@dataclass(frozen=True)
class AutoencoderConfig:
    """Architecture; the defaults are those of the published weights.

    Attributes:
        channels: of the volume.
        hidden_channels: of the first convolution; each halving of the grid doubles them.
        latent_channels: of the latent and of a code.
        codes: number of codes.
        downsampling: voxels per latent voxel along z, x and y, powers of two.
        norm_groups: groups of every GroupNorm.
    """

    channels: int = 1
    hidden_channels: int = 16
    latent_channels: int = 8
    codes: int = 16384
    downsampling: tuple[int, int, int] = (4, 4, 4)
    norm_groups: int = 32

    def __post_init__(self):
        object.__setattr__(self, "downsampling", tuple(self.downsampling))
        check_sizes(self, _MOST)
        if len(self.downsampling) != 3 or any(factor & (factor - 1) for factor in self.downsampling):
            raise InputError(f"downsampling: expected three powers of two, got {self.downsampling}")
        if max(self.downsampling) == 1:
            raise InputError("downsampling: expected at least one factor above 1, got (1, 1, 1)")
        # The narrowest map with a norm is the last one of the decoder, or the first stage of the encoder.
        if 2 * self.hidden_channels % self.norm_groups:
            raise InputError(
                f"norm_groups: {self.norm_groups} groups do not divide {2 * self.hidden_channels} channels "
                "(twice hidden_channels)"
            )

    @property
    def strides(self) -> list[tuple[int, ...]]:
        """Stride of each stage along z, x and y; an axis that is done early keeps 1."""
        stages = max(self.downsampling).bit_length() - 1
        return [tuple(2 if factor >> (stage + 1) else 1 for factor in self.downsampling) for stage in range(stages)]


class Reconstruction(NamedTuple):
    """A volume that went through the codebook, and how it was quantized."""

    volume: torch.Tensor
    latent: torch.Tensor
    quantized: Quantized


class Autoencoder(nn.Module):
    """Encoder, codebook and decoder."""

    def __init__(self, config: AutoencoderConfig | None = None):
        super().__init__()
        self.config = config = config or AutoencoderConfig()
        wide = config.hidden_channels << len(config.strides)
        self.encoder = Encoder(config)
        self.to_latent = SamePadConv3d(wide, config.latent_channels, kernel=1)
        self.codebook = Codebook(config.codes, config.latent_channels)
        self.from_latent = SamePadConv3d(config.latent_channels, wide, kernel=1)
        self.decoder = Decoder(config)

    def forward(self, volume: torch.Tensor, *, statistics: bool = False) -> Reconstruction:
        """(b, channels, z, x, y) to its reconstruction; `statistics` for the codebook's update."""
        latent = self.encode(volume)
        quantized = self.codebook(latent, statistics=statistics)
        return Reconstruction(self.decode_embeddings(quantized.embeddings), latent, quantized)

    def encode(self, volume: torch.Tensor) -> torch.Tensor:
        """Latent (b, latent_channels, z / f, x / f, y / f) before quantization, unbounded.

        Raises:
            InputError: for a volume that is not (b, channels, z, x, y), or whose size the downsampling does not divide.
        """
        if volume.ndim != 5 or volume.shape[1] != self.config.channels:
            raise InputError(f"volume: expected (b, {self.config.channels}, z, x, y), got {tuple(volume.shape)}")
        check_patch(volume.shape[2:], self.config.downsampling)
        if is_cpu_inference(volume):
            return streaming.encode(self, volume)
        if fused.runs_fused(self, volume):
            return fused.encode(self, volume)
        return self._as_weights(lambda x: self.to_latent(self.encoder(x)), volume)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Volume of a latent, each vector replaced by its nearest code."""
        return self.decode_embeddings(self.codebook(latent).embeddings)

    def decode_indices(self, indices: torch.Tensor) -> torch.Tensor:
        """Volume of code indices (b, d, h, w)."""
        return self.decode_embeddings(self.codebook.lookup(indices))

    def decode_embeddings(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Volume (b, channels, z, x, y) of codes (b, latent_channels, d, h, w); nominally in [-1, 1], not clipped."""
        if is_cpu_inference(embeddings):
            return streaming.decode(self, embeddings)
        if fused.runs_fused(self, embeddings):
            return fused.decode(self, embeddings)
        return self._as_weights(lambda x: self.decoder(self.from_latent(x)), embeddings)

    def _as_weights(self, run: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """run(x), in bfloat16 where the weights are."""
        dtype = self.to_latent.weight.dtype
        return run(x.to(dtype)).to(x.dtype) if dtype == torch.bfloat16 else run(x)


def check_patch(size: Sequence[int], multiples: Sequence[int]) -> None:
    """Raises an InputError unless each of the last axes is a positive multiple, with the nearest sizes that fit."""
    if len(size) != len(multiples) or any(n < 1 or n % factor for n, factor in zip(size, multiples, strict=False)):
        fitting = [max(1, round(n / factor)) * factor for n, factor in zip(size, multiples, strict=False)]
        raise InputError(
            f"patch size {tuple(size)}: every axis must be a multiple of {tuple(multiples)}"
            + (f"; {tuple(fitting)} would fit" if len(size) == len(multiples) else "")
        )


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))))))."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm1 = GroupNormSiLU(groups, channels, eps=NORM_EPS)
        self.conv1 = SamePadConv3d(channels, channels, kernel=3)
        self.norm2 = GroupNormSiLU(groups, channels, eps=NORM_EPS)
        self.conv2 = SamePadConv3d(channels, channels, kernel=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1.of_padded(self.norm1(x, replicate=self.conv1.replication))
        return x + self.conv2.of_padded(self.norm2(h, replicate=self.conv2.replication))


class Encoder(nn.Module):
    """Per stage a halving convolution and a residual block; norm and SiLU at the end."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        channels = config.hidden_channels
        self.conv_first = SamePadConv3d(config.channels, channels, kernel=3)
        self.stages = nn.ModuleList()
        for strides in config.strides:
            down = SamePadConv3d(channels, 2 * channels, kernel=4, strides=strides)
            channels *= 2
            self.stages.append(nn.ModuleDict({"down": down, "res": ResidualBlock(channels, config.norm_groups)}))
        self.final_norm = GroupNormSiLU(config.norm_groups, channels, eps=NORM_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_first(x)
        for stage in self.stages:
            x = stage["res"](stage["down"](x))
        return self.final_norm(x)


class Decoder(nn.Module):
    """Norm and SiLU, per stage a doubling transposed convolution and two residual blocks, and a last convolution."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        channels = config.hidden_channels << len(config.strides)
        self.first_norm = GroupNormSiLU(config.norm_groups, channels, eps=NORM_EPS)
        self.stages = nn.ModuleList()
        for stage, strides in enumerate(config.strides):
            out = config.hidden_channels << (len(config.strides) - stage)
            up = SamePadConvTranspose3d(channels, out, kernel=4, strides=strides)
            blocks = {f"res{i}": ResidualBlock(out, config.norm_groups) for i in (1, 2)}
            self.stages.append(nn.ModuleDict({"up": up, **blocks}))
            channels = out
        self.conv_last = SamePadConv3d(channels, config.channels, kernel=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first_norm(x)
        for stage in self.stages:
            x = stage["res2"](stage["res1"](stage["up"](x)))
        return self.conv_last(x)
