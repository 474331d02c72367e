"""Moments of a volume as a whole, and GroupNorm with modulation as one factor and one summand."""

import torch

from nnunet_difftumor.kernels.moments import Affine, PartialMoments


def moments_of(y: torch.Tensor) -> PartialMoments:
    """Of (b, n, d, h, w), in one piece."""
    values = y.to(torch.promote_types(y.dtype, torch.float32)).flatten(2)
    mean = values.mean(2, keepdim=True)
    deviations = (values - mean).square().sum(2)
    counts = values.new_full((len(values), 1), values.shape[2])
    return PartialMoments(counts, mean.movedim(2, 1), deviations[:, None])


def norm_of_moments(
    moments: PartialMoments,
    weight: torch.Tensor,
    *,
    bias: torch.Tensor,
    groups: int,
    eps: float,
    scale: torch.Tensor | None,
    shift: torch.Tensor | None,
) -> Affine:
    """See `nnunet_difftumor.kernels.norm_of_moments`."""
    counts = moments.counts[:, :, None]
    total = counts.sum(1)
    mean = (counts * moments.means).sum(1) / total
    squares = (moments.deviations + counts * (moments.means - mean[:, None]).square()).sum(1) / total
    mean, squares = (part.unflatten(1, (groups, -1)) for part in (mean, squares))
    of_group = mean.mean(2, keepdim=True)
    # Of a group: the channels' variances, and that of their means.
    variance = squares.mean(2, keepdim=True) + (mean - of_group).square().mean(2, keepdim=True)
    reciprocal = (variance + eps).rsqrt()
    factor = (weight.unflatten(0, (groups, -1)) * reciprocal).flatten(1)
    summand = bias - (of_group * reciprocal).expand_as(mean).flatten(1) * weight
    if scale is not None:
        factor, summand = factor * (1 + scale), summand * (1 + scale) + shift
    return Affine(factor, summand)
