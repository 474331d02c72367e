"""U-Net that predicts the noise in a latent, with attention factorized into slices and depth, as in DiffTumor
(Chen et al., CVPR 2024), after video diffusion (Ho et al., 2022).

Axes are (b, c, d, h, w) = (b, c, z, x, y). Convolutions act within slices, depth is mixed by attention only and never
downsampled: any depth is possible, and any height and width that the levels divide.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.networks import fused
from nnunet_difftumor.generative.networks.attention import (
    DepthAttention,
    DepthPositions,
    RelativePositionBias,
    SpatialAttention,
    SpatialLinearAttention,
    rotary_frequencies,
)
from nnunet_difftumor.generative.networks.autoencoder import check_patch
from nnunet_difftumor.generative.networks.convolutions import GroupNormSiLU, SliceConv2d, SliceConvTranspose2d
from nnunet_difftumor.generative.networks.sizes import check_sizes
from nnunet_difftumor.kernels.implementation import is_cpu_inference

NORM_EPS = 1e-5
_MOST = {
    "latent_channels": 256,
    "condition_channels": 257,
    "channels": 1024,
    "multipliers": 64,
    "heads": 64,
    "head_dim": 512,
    "norm_groups": 1024,
}


@dataclass(frozen=True)
class UNetConfig:
    """Architecture; the defaults are those of the published weights.

    Attributes:
        latent_channels: of the noisy latent and of the predicted noise.
        condition_channels: of the condition: latent of the masked volume, and the mask.
        channels: of the first level.
        multipliers: channels of each level, in multiples; each level but the last halves height and width.
        heads: of every attention.
        head_dim: channels of a head, even.
        norm_groups: groups of every GroupNorm.
    """

    latent_channels: int = 8
    condition_channels: int = 9
    channels: int = 24
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    heads: int = 8
    head_dim: int = 32
    norm_groups: int = 8

    def __post_init__(self):
        object.__setattr__(self, "multipliers", tuple(self.multipliers))
        check_sizes(self, _MOST)
        if not self.multipliers:
            raise InputError("multipliers: expected one for each level, got none")
        if self.head_dim < 2 or self.head_dim % 2:
            raise InputError(f"head_dim: expected an even number, got {self.head_dim}")
        if self.channels % 2 or self.channels < 4:
            raise InputError(f"channels: expected an even number from 4 on, got {self.channels}")
        if any(self.channels * multiplier % self.norm_groups for multiplier in self.multipliers):
            raise InputError(f"norm_groups: {self.norm_groups} groups do not divide the channels {self.widths}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)

    @property
    def downsampling(self) -> tuple[int, int, int]:
        """Voxels of the latent per voxel of the coarsest level, along z, x and y."""
        factor = 2 ** (len(self.multipliers) - 1)
        return 1, factor, factor


class StepTables(NamedTuple):
    """What depends on the time steps of a batch and the depth of its latents, but not on the latents.

    Attributes:
        positions: of the attention along depth.
        modulations: of each residual block that has one, scale and shift, (b, c) each.
    """

    positions: DepthPositions
    modulations: Mapping["ResidualBlock", tuple[torch.Tensor, torch.Tensor]]


class UNet(nn.Module):
    """Predicts the noise in a noisy latent."""

    def __init__(self, config: UNetConfig | None = None):
        super().__init__()
        self.config = config = config or UNetConfig()
        heads = {"heads": config.heads, "head_dim": config.head_dim}
        widths, time = config.widths, 4 * config.channels

        def residual(channels_in: int, channels_out: int, time: int | None = time) -> ResidualBlock:
            return ResidualBlock(channels_in, channels_out, time=time, groups=config.norm_groups)

        self.position_bias = RelativePositionBias(config.heads)
        self.register_buffer("frequencies", rotary_frequencies(config.head_dim))
        self.time_embedding = TimeEmbedding(config.channels, time)
        self.conv_first = SliceConv2d(config.latent_channels + config.condition_channels, config.channels, 7, padding=3)
        self.first_attention = DepthAttention(config.channels, **heads)

        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            before, last = widths[max(level - 1, 0)], level == len(widths) - 1
            resample = nn.Identity() if last else SliceConv2d(width, width, 4, stride=2, padding=1)
            self.down.append(Level(residual(before, width), residual(width, width), resample=resample, **heads))

        self.middle_residual1 = residual(widths[-1], widths[-1])
        self.middle_spatial_attention = SpatialAttention(widths[-1], **heads)
        self.middle_depth_attention = DepthAttention(widths[-1], **heads)
        self.middle_residual2 = residual(widths[-1], widths[-1])

        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            width = widths[max(level - 1, 0)]
            resample = SliceConvTranspose2d(width, width, 4, stride=2, padding=1) if level else nn.Identity()
            self.up.append(
                Level(residual(2 * widths[level], width), residual(width, width), resample=resample, **heads)
            )

        self.last_residual = residual(2 * config.channels, config.channels, time=None)
        self.conv_last = SliceConv2d(config.channels, config.latent_channels, 1)

    def tables(self, steps: torch.Tensor, *, depth: int) -> StepTables:
        """What `forward` computes before it looks at latents.

        Args:
            steps: int64 (b,), from 0.
            depth: of the latents.
        """
        return StepTables(self.positions(depth), self.modulations(self.time_embedding(steps)))

    def modulations(self, time: torch.Tensor) -> dict["ResidualBlock", tuple[torch.Tensor, torch.Tensor]]:
        """Scale and shift, (b, c) each, of each residual block that has them, of embedded steps."""
        blocks = [module for module in self.modules() if isinstance(module, ResidualBlock) and module.modulation]
        # Contiguous, as the kernels take them: else each would copy them at every call.
        return {block: tuple(part.contiguous() for part in block.scale_and_shift(time)) for block in blocks}

    def positions(self, depth: int) -> DepthPositions:
        """Those of so many slices."""
        return DepthPositions.of(self.position_bias(depth), self.frequencies)

    def time_modules(self) -> list[nn.Module]:
        """The layers that `tables` needs."""
        blocks = (module for module in self.modules() if isinstance(module, ResidualBlock))
        return [*self.time_embedding.modules(), *(block.modulation for block in blocks if block.modulation)]

    def forward(
        self, noisy: torch.Tensor, steps: torch.Tensor, *, condition: torch.Tensor, tables: StepTables | None = None
    ) -> torch.Tensor:
        """The predicted noise.

        Args:
            noisy: (b, latent_channels, d, h, w).
            steps: int64 (b,), from 0.
            condition: (b, condition_channels, d, h, w).
            tables: of these steps and this depth, if they are there.

        Returns:
            (b, latent_channels, d, h, w).

        Raises:
            InputError: for shapes that do not fit together, or a height or width that the levels do not divide.
        """
        self._check(noisy, steps, condition)
        if tables is None:
            positions, time = self.positions(noisy.shape[2]), self.time_embedding(steps)
        else:
            positions, time = tables
        if fused.runs_fused(self, noisy):
            modulations = self.modulations(time) if tables is None else time
            return fused.predict_noise(self, noisy, condition, positions, modulations)
        x = torch.cat((noisy, condition), dim=1)
        if self.conv_first.weight.dtype == torch.bfloat16:
            x = x.bfloat16()
        if is_cpu_inference(x):
            x = x.contiguous(memory_format=torch.channels_last_3d)
        x = first = self.conv_first(x)
        x = self.first_attention(x, positions)

        skips = []
        for level in self.down:
            x = level(x, time, positions)
            skips.append(x)
            x = level.resample(x)

        x = self.middle_spatial_attention(self.middle_residual1(x, time))
        x = self.middle_residual2(self.middle_depth_attention(x, positions), time)

        for level in self.up:
            x = level(torch.cat((x, skips.pop()), dim=1), time, positions)
            x = level.resample(x)

        x = self.conv_last(self.last_residual(torch.cat((x, first), dim=1)))
        return x.to(noisy.dtype) if self.conv_first.weight.dtype == torch.bfloat16 else x

    def _check(self, noisy: torch.Tensor, steps: torch.Tensor, condition: torch.Tensor) -> None:
        batch = noisy.shape[0]
        for name, tensor, channels in (
            ("noisy latent", noisy, self.config.latent_channels),
            ("condition", condition, self.config.condition_channels),
        ):
            if tensor.ndim != 5 or tensor.shape[1] != channels or tensor.shape[2:] != noisy.shape[2:] or not batch:
                raise InputError(f"{name}: expected (b, {channels}, d, h, w), got {tuple(tensor.shape)}")
        if condition.shape[0] != batch or steps.shape != (batch,):
            raise InputError(
                f"batch: {batch} latents need as many conditions and steps, got {condition.shape[0]} and "
                f"steps of shape {tuple(steps.shape)}"
            )
        check_patch(noisy.shape[2:], self.config.downsampling)


class Level(nn.Module):
    """Two residual blocks, linear attention within slices, attention along depth; `resample` is called by the U-Net."""

    def __init__(
        self, residual1: nn.Module, residual2: "ResidualBlock", *, resample: nn.Module, heads: int, head_dim: int
    ):
        super().__init__()
        channels = residual2.channels
        self.residual1 = residual1
        self.residual2 = residual2
        self.spatial_attention = SpatialLinearAttention(channels, heads=heads, head_dim=head_dim)
        self.depth_attention = DepthAttention(channels, heads=heads, head_dim=head_dim)
        self.resample = resample

    def forward(self, x: torch.Tensor, time: "Time", positions: DepthPositions) -> torch.Tensor:
        x = self.residual2(self.residual1(x, time), time)
        return self.depth_attention(self.spatial_attention(x), positions)


class ResidualBlock(nn.Module):
    """Two convolutions with norm and SiLU after each, the first modulated by the time step, and a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, *, time: int | None, groups: int):
        super().__init__()
        self.channels = channels_out
        self.modulation = None if time is None else nn.Linear(time, 2 * channels_out)
        self.conv1 = SliceConv2d(channels_in, channels_out, 3, padding=1)
        self.norm1 = GroupNormSiLU(groups, channels_out, eps=NORM_EPS)
        self.conv2 = SliceConv2d(channels_out, channels_out, 3, padding=1)
        self.norm2 = GroupNormSiLU(groups, channels_out, eps=NORM_EPS)
        self.shortcut = nn.Identity() if channels_in == channels_out else SliceConv2d(channels_in, channels_out, 1)

    def scale_and_shift(self, time: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.modulation(functional.silu(time)).chunk(2, dim=1)

    def forward(self, x: torch.Tensor, time: "Time | None" = None) -> torch.Tensor:
        scale_shift = None
        if self.modulation is not None:
            scale_shift = self.scale_and_shift(time) if isinstance(time, torch.Tensor) else time[self]
        h = self.norm1(self.conv1(x), scale_shift)
        return self.norm2(self.conv2(h)) + self.shortcut(x)


# Embedded steps (b, channels), or what the blocks make of them.
Time = torch.Tensor | Mapping[ResidualBlock, tuple[torch.Tensor, torch.Tensor]]


class TimeEmbedding(nn.Module):
    """Sines and cosines of the step (Vaswani et al., NeurIPS 2017), then two linear layers."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.channels = channels
        self.linear1 = nn.Linear(channels, out)
        self.linear2 = nn.Linear(out, out)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        """int64 (b,) to (b, out)."""
        waves = sinusoids(steps, self.channels).to(self.linear1.weight.dtype)
        return self.linear2(functional.gelu(self.linear1(waves)))


def sinusoids(steps: torch.Tensor, channels: int) -> torch.Tensor:
    """float32 (b, channels): sin, then cos, of steps * exp(-k ln(10000) / (channels / 2 - 1)), k = 0 ..."""
    half = channels // 2
    frequencies = torch.exp(torch.arange(half, device=steps.device) * (-math.log(10000) / (half - 1)))
    angles = steps[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=1)
