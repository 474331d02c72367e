"""The networks by fused kernels give what their modules give in float64."""

import copy

import parity
import pytest
import torch
from against_float64 import TOLERANCES, dtype_of

from nnunet_difftumor.generative.networks.autoencoder import Autoencoder, AutoencoderConfig
from nnunet_difftumor.generative.networks.unet import UNet, UNetConfig
from nnunet_difftumor.kernels.implementation import implementation


def seeded(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def filled(network: torch.nn.Module) -> torch.nn.Module:
    """With weights that are all different from their defaults, norms' too."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        around = 1.0 if parameter.ndim == 1 else 0.0
        parameter.data = around + 0.2 * torch.randn(parameter.shape, generator=generator)
    return network.eval().requires_grad_(False)


def assert_as_float64(network, run, *inputs, precision="float32"):
    """run(network, *inputs) by fused kernels, in a precision of the weights, and in float64 by modules."""
    with torch.inference_mode():
        with implementation("reference"):
            wide = run(copy.deepcopy(network).double(), *(x.double() for x in inputs))
        with implementation("triton"):
            seen = run(copy.deepcopy(network).to(dtype_of(precision)), *inputs)
    assert seen.dtype == torch.float32 and seen.shape == wide.shape
    assert float((seen - wide).norm() / wide.norm()) < TOLERANCES[precision]


AUTOENCODER = AutoencoderConfig(hidden_channels=2, codes=8, latent_channels=3, norm_groups=2, downsampling=(2, 4, 4))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_encoder(precision):
    network = filled(Autoencoder(AUTOENCODER))
    assert_as_float64(network, lambda net, x: net.encode(x), seeded(2, 1, 4, 8, 4), precision=precision)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_decoder(precision):
    network = filled(Autoencoder(AUTOENCODER))
    assert_as_float64(network, lambda net, x: net.decode_embeddings(x), seeded(2, 3, 2, 1, 2), precision=precision)


@pytest.mark.parametrize("tables", [False, True])
def test_unet(tables):
    config = UNetConfig(3, 4, channels=4, multipliers=(1, 2), heads=1, head_dim=4, norm_groups=2)
    steps = torch.tensor([0, 3])

    def run(net, noisy, condition):
        prepared = net.tables(steps, depth=2) if tables else None
        return net(noisy, steps, condition=condition, tables=prepared)

    assert_as_float64(filled(UNet(config)), run, seeded(2, 3, 2, 2, 4), seeded(2, 4, 2, 2, 4))


def test_weights_that_change_are_packed_again():
    network = filled(Autoencoder(AUTOENCODER))
    x = seeded(1, 1, 2, 4, 4)
    with torch.no_grad(), implementation("triton"):
        before = network.encode(x)
        network.to_latent.bias.add_(1)
        network.encoder.conv_first.weight.mul_(2)
        changed = network.encode(x)
        network.encoder.conv_first.weight.div_(2)
        torch.testing.assert_close(network.encode(x), before + 1)
    assert not torch.allclose(changed, before + 1)


@pytest.mark.long
def test_unet_gives_the_recorded_numbers_of_the_public_code():
    network, arrays = parity.unet(8), parity.load("unet_dim8_8")
    noisy, condition = parity.tensor(arrays["in/x"]), parity.tensor(arrays["in/cond"])
    with torch.inference_mode(), implementation("triton"):
        found = network(noisy, torch.tensor([2]), condition=condition)
    parity.assert_close(found, arrays["out/eps_t2"])


@pytest.mark.long
def test_encoder_gives_the_recorded_numbers_of_the_public_code():
    network, arrays = parity.autoencoder("vqgan_small", codes=512), parity.load("vqgan_small")
    with torch.inference_mode(), implementation("triton"):
        latent = network.encode(parity.tensor(arrays["in/b/x"]))
    parity.assert_close(latent, arrays["out/b/enc/pre_vq_conv"])
