"""The fused convolution's reference against the networks' own layers and blocks."""

import pytest
import torch
from torch import nn

from nnunet_difftumor.generative.networks import autoencoder, unet
from nnunet_difftumor.generative.networks.convolutions import (
    SamePadConv3d,
    SamePadConvTranspose3d,
    SliceConv2d,
    SliceConvTranspose2d,
)
from nnunet_difftumor.kernels import (
    Affine,
    PartialMoments,
    convolve,
    norm_of_moments,
    norm_silu,
    pack_convolution,
)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(module: nn.Module) -> nn.Module:
    """With other weights than those of a start, biases too."""
    for seed, parameter in enumerate(module.parameters()):
        parameter.data = 0.3 * randn(*parameter.shape, seed=seed)
    return module.double()


SLICES = {"zero_rim": True}
LAYERS = [
    (SamePadConv3d(3, 5, kernel=3), {}),
    (SamePadConv3d(3, 5, kernel=1), {}),
    (SamePadConv3d(3, 5, kernel=4, strides=(2, 1, 2)), {"stride": (2, 1, 2)}),
    (SamePadConvTranspose3d(3, 5, kernel=4, strides=(2, 2, 2)), {"stride": (2, 2, 2), "transposed": True}),
    (SamePadConvTranspose3d(3, 5, kernel=4, strides=(1, 2, 1)), {"stride": (1, 2, 1), "transposed": True}),
    (SliceConv2d(3, 5, 7, padding=3), SLICES),
    (SliceConv2d(3, 5, 3, padding=1), SLICES),
    (SliceConv2d(3, 5, 4, stride=2, padding=1), SLICES | {"stride": (1, 2, 2)}),
    (SliceConvTranspose2d(3, 5, 4, stride=2, padding=1), SLICES | {"stride": (1, 2, 2), "transposed": True}),
]


@pytest.mark.parametrize(("layer", "options"), LAYERS)
def test_it_is_what_the_networks_layers_do(layer, options):
    seeded(layer)
    x = randn(2, 3, 4, 6, 8)
    torch.testing.assert_close(convolve(x, pack_convolution(layer.weight, **options), bias=layer.bias), layer(x))


def affine_after(norm: nn.GroupNorm, moments: PartialMoments, **modulation: torch.Tensor) -> Affine:
    return norm_of_moments(moments, norm.weight, bias=norm.bias, groups=norm.num_groups, eps=norm.eps, **modulation)


@torch.no_grad()
def test_a_residual_block_of_the_autoencoder_in_four_calls():
    block, before = seeded(autoencoder.ResidualBlock(8, 4)), seeded(SamePadConv3d(2, 8, kernel=3))
    volume = randn(2, 2, 3, 4, 5)
    x, moments = convolve(volume, pack_convolution(before.weight), bias=before.bias, moments=True)
    first = affine_after(block.norm1, moments)
    h, moments = convolve(x, pack_convolution(block.conv1.weight), bias=block.conv1.bias, norm=first, moments=True)
    second = affine_after(block.norm2, moments)
    y = convolve(h, pack_convolution(block.conv2.weight), bias=block.conv2.bias, norm=second, residual=x)
    torch.testing.assert_close(y, block(before(volume)))


@pytest.mark.parametrize("skips", [True, False])
@torch.no_grad()
def test_a_residual_block_of_the_u_net_in_five_calls(skips):
    channels = (4, 3) if skips else (6,)
    block = seeded(unet.ResidualBlock(sum(channels), 6, time=5, groups=3))
    x, *skip = (randn(2, c, 3, 4, 5, seed=c) for c in channels)
    skip = skip[0] if skips else None
    scale, shift = block.scale_and_shift(randn(2, 5))
    both = {"zero_rim": True, "channels": channels}
    h, moments = convolve(
        x, pack_convolution(block.conv1.weight, **both), bias=block.conv1.bias, skip=skip, moments=True
    )
    norm = affine_after(block.norm1, moments, scale=scale, shift=shift)
    second = pack_convolution(block.conv2.weight, zero_rim=True)
    h, moments = convolve(h, second, bias=block.conv2.bias, norm=norm, moments=True)
    last = affine_after(block.norm2, moments)
    if skips:
        weight = pack_convolution(block.shortcut.weight, **both)
        y = convolve(x, weight, bias=block.shortcut.bias, skip=skip, residual=h, residual_norm=last)
    else:
        y = norm_silu(h, norm=last, residual=x)
    whole = x if skip is None else torch.cat((x, skip), 1)
    torch.testing.assert_close(y, block(whole, randn(2, 5)))


def test_pieces_are_joined_whatever_their_sizes():
    x = 30 + randn(2, 6, 2, 3, 7)
    rows = x.flatten(2).movedim(2, 1)
    pieces = [rows[:, :5], rows[:, 5:6], rows[:, 6:]]
    moments = PartialMoments(
        torch.tensor([[float(piece.shape[1]) for piece in pieces]] * 2).double(),
        torch.stack([piece.mean(1) for piece in pieces], 1),
        torch.stack([(piece - piece.mean(1, keepdim=True)).square().sum(1) for piece in pieces], 1),
    )
    norm = seeded(nn.GroupNorm(3, 6))
    scale, shift = affine_after(norm, moments)
    torch.testing.assert_close(x * scale[:, :, None, None, None] + shift[:, :, None, None, None], norm(x))


def test_a_packed_weight_has_every_factor_once_and_zeros():
    for layer, options in LAYERS:
        weight = pack_convolution(layer.weight.detach(), **options)
        whole, packed = weight.weight.flatten(), weight.packed.flatten()
        assert torch.equal(packed[packed != 0].sort().values, whole.sort().values)


def test_gradients_equal_finite_differences():
    tensors = (randn(1, 2, 2, 3, 2), randn(3, 2, 3, 3, 3), randn(3), randn(1, 2), randn(1, 2), randn(1, 3, 2, 3, 2))

    def operation(x, weight, bias, scale, shift, residual):
        return convolve(x, pack_convolution(weight), bias=bias, norm=Affine(scale, shift), residual=residual)

    assert torch.autograd.gradcheck(operation, [tensor.requires_grad_() for tensor in tensors])


def test_half_precision_is_rounded_once():
    x, weight, bias = (randn(*shape).to(torch.bfloat16) for shape in ((1, 8, 3, 4, 5), (6, 8, 3, 3, 3), (6,)))
    residual = 100 * randn(1, 6, 3, 4, 5).to(torch.bfloat16)
    y = convolve(x, pack_convolution(weight), bias=bias, residual=residual)
    wide = convolve(x.double(), pack_convolution(weight.double()), bias=bias.double(), residual=residual.double())
    assert ((y.double() - wide).abs() <= wide.abs() * 2**-8).all()
