"""Pieces' moments joined, one group of one sample per program, into what a GroupNorm with modulation does to a volume.

Every lane joins the pieces that come to it (Chan et al., 1983), in one pass over them; then the lanes are joined.
Bound: a launch.
"""

import torch
import triton
import triton.language as tl

# Numbers of a tile (pieces x channels of a group).
_ELEMENTS = 1024


@torch.library.custom_op("nnunet_difftumor::norm_of_moments", mutates_args=())
def norm_of_moments(
    counts: torch.Tensor,
    means: torch.Tensor,
    deviations: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    scale: torch.Tensor | None,
    shift: torch.Tensor | None,
    groups: int,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor and summand, float32 (b, c); all tensors are contiguous."""
    batch, pieces, channels = means.shape
    factor = means.new_empty((batch, channels))
    summand = torch.empty_like(factor)
    group = channels // groups
    padded = triton.next_power_of_2(group)
    _norm_of_moments[(groups, batch)](
        *(counts, means, deviations, weight, bias, scale, shift, factor, summand, pieces, eps),
        CHANNELS=channels,
        GROUP=group,
        GROUP_PADDED=padded,
        PIECES=max(1, min(_ELEMENTS // padded, triton.next_power_of_2(pieces))),
        num_warps=4,
    )
    return factor, summand


@norm_of_moments.register_fake
def _(counts, means, deviations, weight, bias, scale, shift, groups, eps):
    factor = means.new_empty((means.shape[0], means.shape[2]))
    return factor, torch.empty_like(factor)


@triton.jit
def _norm_of_moments(
    counts,
    means,
    deviations,
    weight,
    bias,
    scale,
    shift,
    factors,
    summands,
    pieces,
    eps,
    CHANNELS: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_PADDED: tl.constexpr,
    PIECES: tl.constexpr,
):
    group, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    member = tl.arange(0, GROUP_PADDED)
    channel = group * GROUP + member
    own = member < GROUP
    count = tl.zeros((PIECES, GROUP_PADDED), tl.float32)
    mean = tl.zeros((PIECES, GROUP_PADDED), tl.float32)
    deviation = tl.zeros((PIECES, GROUP_PADDED), tl.float32)
    for start in range(0, pieces, PIECES):
        piece = start + tl.arange(0, PIECES)
        real = (piece < pieces)[:, None] & own[None, :]
        at = (sample * pieces + piece)[:, None] * CHANNELS + channel[None, :]
        here = tl.load(counts + sample * pieces + piece, mask=piece < pieces, other=0.0)[:, None]
        difference = tl.load(means + at, mask=real, other=0.0) - mean
        together = count + here
        share = here / tl.maximum(together, 1.0)
        deviation += tl.load(deviations + at, mask=real, other=0.0) + difference * difference * (count * share)
        mean += difference * share
        count = together
    real = own[None, :] & (count > 0)
    total = tl.sum(tl.where(real, count, 0.0))
    mean_of_group = tl.sum(tl.where(real, count * mean, 0.0)) / total
    apart = mean - mean_of_group
    variance = tl.sum(tl.where(real, deviation + apart * apart * count, 0.0)) / total
    reciprocal = 1.0 / tl.sqrt(variance + eps)
    factor = tl.load(weight + channel, mask=own, other=0.0).to(tl.float32) * reciprocal
    summand = tl.load(bias + channel, mask=own, other=0.0).to(tl.float32) - mean_of_group * factor
    if scale is not None:
        gain = 1.0 + tl.load(scale + sample * CHANNELS + channel, mask=own, other=0.0).to(tl.float32)
        factor *= gain
        summand = summand * gain + tl.load(shift + sample * CHANNELS + channel, mask=own, other=0.0).to(tl.float32)
    tl.store(factors + sample * CHANNELS + channel, factor, mask=own)
    tl.store(summands + sample * CHANNELS + channel, summand, mask=own)
