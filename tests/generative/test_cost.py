"""Floating-point operations of the released size on a patch of 96^3, on the device meta: nothing is computed."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nnunet_difftumor.generative.networks.autoencoder import Autoencoder
from nnunet_difftumor.generative.networks.unet import UNet


def flops(function, *arguments, **named) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(*arguments, **named)
    return counter.get_total_flops() / 1e9


def test_encoding_decoding_and_a_step_cost_what_the_public_code_costs():
    with torch.device("meta"):
        first, second = Autoencoder(), UNet()
        volume, latent = torch.empty(1, 1, 96, 96, 96), torch.empty(1, 8, 24, 24, 24)
        condition, steps = torch.empty(1, 9, 24, 24, 24), torch.zeros(1, dtype=torch.int64)
    assert flops(first.encode, volume) == pytest.approx(30.00, rel=0.02)
    assert flops(first.decode_embeddings, latent) == pytest.approx(337.06, rel=0.02)
    assert flops(second, latent, steps, condition=condition) == pytest.approx(13.43, rel=0.02)


def test_quantization_costs_one_product_of_vectors_and_codes():
    from nnunet_difftumor.kernels import vector_quantize

    vectors, codebook = torch.zeros(128, 8), torch.zeros(16384, 8)
    # A ninth channel holds the codes' norms, which the published code adds to the product: 0.1 % of a tumor's cost.
    assert flops(vector_quantize, vectors, codebook) == pytest.approx(2 * 128 * 16384 * 9 / 1e9, rel=0.02)
