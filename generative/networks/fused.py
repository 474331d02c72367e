"""The networks by fused kernels, without gradients: what stands around a convolution is part of its launch.

Norm and SiLU are applied while a convolution loads, its bias, what is added to it and the moments that the next norm
needs are made while it stores, and the repeated rim is an index. A norm that follows is one small launch more, which
joins the moments. This is what CUDA runs in inference; `streaming` is its counterpart on a CPU.

Volumes are (b, c, d, h, w), channels last in memory; between the first and the last convolution they have the dtype of
the weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from nnunet_difftumor.kernels import Affine, PartialMoments, convolve, norm_of_moments, norm_silu
from nnunet_difftumor.kernels.implementation import needs_gradient, uses_triton


def runs_fused(network: nn.Module, x: torch.Tensor) -> bool:
    """Whether a network computes x without gradients where kernels run."""
    # Under autocast, as a training validates, each operation has the precision that it was trained with.
    if torch.compiler.is_compiling() or not uses_triton("x", x) or torch.is_autocast_enabled(x.device.type):
        return False
    return not needs_gradient(x, *network.parameters())


def encode(model: nn.Module, volume: torch.Tensor) -> torch.Tensor:
    """See `Autoencoder.encode`."""
    encoder = model.encoder
    x, norm = _convolve(encoder.conv_first, volume), None
    for stage in encoder.stages:
        res, last = stage["res"], stage is encoder.stages[-1]
        x, norm = _convolve_and_norm(stage["down"], x, then=res.norm1)
        inner, norm = _convolve_and_norm(res.conv1, x, norm=norm, then=res.norm2)
        if last:
            x, norm = _convolve_and_norm(res.conv2, inner, norm=norm, residual=x, then=encoder.final_norm)
        else:
            x = _convolve(res.conv2, inner, norm=norm, residual=x)
    return _convolve(model.to_latent, x, norm=norm, dtype=volume.dtype)


def decode(model: nn.Module, embeddings: torch.Tensor) -> torch.Tensor:
    """See `Autoencoder.decode_embeddings`."""
    decoder = model.decoder
    x, norm = _convolve_and_norm(model.from_latent, embeddings, then=decoder.first_norm)
    for stage in decoder.stages:
        res1, res2 = stage["res1"], stage["res2"]
        x, norm = _convolve_and_norm(stage["up"], x, norm=norm, then=res1.norm1)
        inner, norm = _convolve_and_norm(res1.conv1, x, norm=norm, then=res1.norm2)
        x, norm = _convolve_and_norm(res1.conv2, inner, norm=norm, residual=x, then=res2.norm1)
        inner, norm = _convolve_and_norm(res2.conv1, x, norm=norm, then=res2.norm2)
        x, norm = _convolve(res2.conv2, inner, norm=norm, residual=x), None
    return _convolve(decoder.conv_last, x, dtype=embeddings.dtype)


def predict_noise(
    unet: nn.Module, noisy: torch.Tensor, condition: torch.Tensor, positions: Any, modulations: Mapping
) -> torch.Tensor:
    """See `UNet.forward`.

    Args:
        unet: the network.
        noisy: (b, latent_channels, d, h, w).
        condition: (b, condition_channels, d, h, w).
        positions: of the attention along depth.
        modulations: of each residual block that has one, scale and shift, (b, c) each.
    """
    x = first = _convolve(unet.conv_first, noisy, condition)
    x = unet.first_attention(x, positions)

    def level(module: nn.Module, x: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        x = _residual(module.residual1, (x,) if skip is None else (x, skip), modulations)
        x = _residual(module.residual2, (x,), modulations)
        return module.depth_attention(module.spatial_attention(x), positions)

    def resampled(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return x if isinstance(module, nn.Identity) else _convolve(module, x)

    skips = []
    for module in unet.down:
        x = level(module, x)
        skips.append(x)
        x = resampled(module.resample, x)

    x = unet.middle_spatial_attention(_residual(unet.middle_residual1, (x,), modulations))
    x = _residual(unet.middle_residual2, (unet.middle_depth_attention(x, positions),), modulations)

    for module in unet.up:
        x = resampled(module.resample, level(module, x, skips.pop()))

    x = _residual(unet.last_residual, (x, first), modulations)
    return _convolve(unet.conv_last, x, dtype=noisy.dtype)


def _residual(block: nn.Module, inputs: Sequence[torch.Tensor], modulations: Mapping) -> torch.Tensor:
    """A residual block of the U-Net; two inputs stand for their concatenation."""
    h, norm = _convolve_and_norm(block.conv1, *inputs, then=block.norm1, modulation=modulations.get(block))
    h, norm = _convolve_and_norm(block.conv2, h, norm=norm, then=block.norm2)
    if isinstance(block.shortcut, nn.Identity):
        return norm_silu(h, norm=norm, residual=inputs[0])
    return _convolve(block.shortcut, *inputs, residual=h, residual_norm=norm)


def _convolve(conv: nn.Module, x: torch.Tensor, skip: torch.Tensor | None = None, **around: Any) -> torch.Tensor:
    channels = None if skip is None else (x.shape[1], skip.shape[1])
    return convolve(x, conv.packed(channels), bias=conv.bias, skip=skip, **around)


def _convolve_and_norm(
    conv: nn.Module,
    *inputs: torch.Tensor,
    then: nn.GroupNorm,
    modulation: tuple[torch.Tensor, torch.Tensor] | None = None,
    **around: Any,
) -> tuple[torch.Tensor, Affine]:
    """The output, and what a norm of it does, with its modulation."""
    moments: PartialMoments
    x, moments = _convolve(conv, *inputs, moments=True, **around)
    scale, shift = modulation or (None, None)
    norm = norm_of_moments(
        moments, then.weight, bias=then.bias, groups=then.num_groups, eps=then.eps, scale=scale, shift=shift
    )
    return x, norm
