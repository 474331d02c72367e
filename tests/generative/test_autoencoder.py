"""Sizes, gradients and errors of the autoencoder; its values are in test_seeded and test_parity_autoencoder."""

import pytest
import seeded
import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder, AutoencoderConfig

SMALL = {"hidden_channels": 4, "codes": 16, "norm_groups": 4}


@pytest.mark.parametrize("downsampling", [(4, 4, 4), (4, 2, 4), (1, 2, 8), (2, 1, 1)])
@pytest.mark.parametrize("size", [(8, 8, 8), (16, 8, 24)])
@torch.no_grad()
def test_every_size_that_the_downsampling_divides_comes_back(downsampling, size):
    model = Autoencoder(AutoencoderConfig(downsampling=downsampling, **SMALL)).eval()
    model.codebook.embeddings.normal_(generator=torch.Generator().manual_seed(0))
    result = model(torch.zeros(3, 1, *size))
    assert result.volume.shape == (3, 1, *size)
    assert result.latent.shape == (3, 8, *(n // factor for n, factor in zip(size, downsampling, strict=True)))
    assert result.quantized.indices.shape == (3, *result.latent.shape[2:])


@torch.no_grad()
def test_a_sample_does_not_depend_on_its_batch():
    model, (volume, _) = seeded.autoencoder(), seeded.patch()
    torch.testing.assert_close(model(volume).volume[1:], model(volume[1:]).volume, rtol=1e-5, atol=1e-5)


def test_every_parameter_learns():
    model, (volume, _) = seeded.autoencoder(), seeded.patch()
    result = model(volume)
    ((result.volume - volume).square().mean() + result.quantized.commitment_loss).backward()
    without = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert without == []


@torch.no_grad()
def test_bfloat16_stays_close_on_equal_codes():
    model, (volume, _) = seeded.autoencoder(), seeded.patch()
    indices = model(volume[:1, :, :8, :16, :16]).quantized.indices
    exact = model.decode_indices(indices)
    with torch.autocast("cpu", torch.bfloat16):
        half = model.decode_indices(indices)
    assert ((half - exact).norm() / exact.norm()).item() < 2e-2


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 8, 8, 10), r"patch size \(8, 8, 10\).*multiple of \(4, 4, 4\); \(8, 8, 8\) would fit"),
        ((1, 1, 1, 8, 8), r"patch size \(1, 8, 8\).*\(4, 8, 8\) would fit"),
        ((1, 2, 8, 8, 8), r"volume: expected \(b, 1, z, x, y\)"),
        ((1, 8, 8, 8), r"volume: expected \(b, 1, z, x, y\)"),
    ],
)
def test_impossible_volumes_are_explained(shape, message):
    with pytest.raises(InputError, match=message):
        Autoencoder(AutoencoderConfig(**SMALL)).encode(torch.zeros(shape))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"downsampling": (4, 3, 4)}, "downsampling"),
        ({"downsampling": (4, 4)}, "downsampling"),
        ({"downsampling": (1, 1, 1)}, "downsampling"),
        ({"norm_groups": 3}, "norm_groups"),
        ({"codes": 0}, "codes"),
    ],
)
def test_impossible_architectures_are_explained(changed, named):
    with pytest.raises(InputError, match=named):
        AutoencoderConfig(**(SMALL | changed))


def test_indices_beyond_the_codebook_are_refused():
    with pytest.raises(InputError, match="indices: expected 0 to 15, got 0 to 16"):
        Autoencoder(AutoencoderConfig(**SMALL)).decode_indices(torch.tensor([[[[0, 16]]]]))
