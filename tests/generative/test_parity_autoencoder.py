"""The autoencoder computes what the public code computes with the same weights."""

import json

import parity
import pytest
import torch
from torch.nn import functional

from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.importing.published_weights import published_name
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder
from nnunet_difftumor.generative.networks.codebook import Codebook, as_vectors
from nnunet_difftumor.generative.networks.unet import UNet, UNetConfig

STAGES = {
    "enc/encoder.conv_first": "encoder.conv_first",
    "enc/encoder.conv_blocks.0.down": "encoder.stages.0.down",
    "enc/encoder.conv_blocks.0.res": "encoder.stages.0.res",
    "enc/encoder.conv_blocks.1.down": "encoder.stages.1.down",
    "enc/encoder.conv_blocks.1.res": "encoder.stages.1.res",
    "enc/encoder.final_block": "encoder.final_norm",
    "enc/encoder": "encoder",
    "enc/pre_vq_conv": "to_latent",
    "dec/post_vq_conv": "from_latent",
    "dec/decoder.final_block": "decoder.first_norm",
    "dec/decoder.conv_blocks.0.up": "decoder.stages.0.up",
    "dec/decoder.conv_blocks.0.res1": "decoder.stages.0.res1",
    "dec/decoder.conv_blocks.0.res2": "decoder.stages.0.res2",
    "dec/decoder.conv_blocks.1.up": "decoder.stages.1.up",
    "dec/decoder.conv_blocks.1.res1": "decoder.stages.1.res1",
    "dec/decoder.conv_blocks.1.res2": "decoder.stages.1.res2",
    "dec/decoder.conv_last": "decoder.conv_last",
}


@pytest.fixture(scope="module")
def arrays():
    return parity.load("vqgan_small")


@pytest.fixture(scope="module")
def model():
    return parity.autoencoder("vqgan_small", codes=512)


@pytest.mark.parametrize("case", ["a", "b"])
def test_every_stage_of_encoding_and_decoding(arrays, model, case):
    seen = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
        for name in STAGES.values()
    ]
    try:
        with torch.no_grad():
            result = model(parity.tensor(arrays[f"in/{case}/x"]))
    finally:
        for hook in hooks:
            hook.remove()
    compared = 0
    for recorded, own in STAGES.items():
        if (key := f"out/{case}/{recorded}") in arrays:
            # Of large stages the fixture keeps the first sample and every fourth channel only.
            batch, channels = arrays[key].shape[:2]
            parity.assert_close(seen[own][:batch, :: seen[own].shape[1] // channels], arrays[key], recorded)
            compared += 1
    assert compared == {"a": 17, "b": 2}[case]
    assert torch.equal(result.quantized.indices.int(), parity.tensor(arrays[f"out/{case}/indices"]))
    parity.assert_close(result.quantized.embeddings, arrays[f"out/{case}/quantized"], "codes")
    parity.assert_close(result.volume, arrays[f"out/{case}/decode"], "decode")
    parity.assert_close(0.25 * result.quantized.commitment_loss.view(1), arrays[f"out/{case}/commitment_loss"], "loss")
    parity.assert_close(model.decode_indices(result.quantized.indices), arrays[f"out/{case}/decode"], "of indices")


@pytest.mark.parametrize("case", ["a", "b"])
def test_a_given_latent_is_quantized_and_decoded(arrays, model, case):
    latent = parity.tensor(arrays[f"in/{case}/latent"])
    with torch.no_grad():
        assert torch.equal(model.codebook(latent).indices.int(), parity.tensor(arrays[f"out/{case}/latent_indices"]))
        parity.assert_close(model.decode(latent), arrays[f"out/{case}/decode_quantize_true"])


def test_the_codebooks_range(arrays, model):
    lowest, highest = model.codebook.embeddings.aminmax()
    assert lowest.item() == arrays["out/codebook_min"].item()
    assert highest.item() == arrays["out/codebook_max"].item()


def gradients(arrays, dtype: torch.dtype) -> Autoencoder:
    """The autoencoder with its gradients of 4 L1 + 0.25 commitment, as the public code weighs them."""
    model = parity.autoencoder("vqgan_small", codes=512).to(dtype)
    volume = parity.tensor(arrays["in/b/x"]).to(dtype)
    result = model(volume)
    loss = 4 * functional.l1_loss(result.volume, volume) + 0.25 * result.quantized.commitment_loss
    parity.assert_close(loss.view(1), arrays["out/grad/loss"])
    loss.backward()
    return model


def test_gradients_of_every_parameter(arrays):
    exact = gradients(arrays, torch.float64)
    recorded = [name.removeprefix("out/gradnorm/") for name in arrays if name.startswith("out/gradnorm/")]
    names = {name: published_name(name, kind="autoencoder") for name in recorded}
    assert len(names) == 68
    assert parity.assert_gradients(exact, names, arrays) == 65
    parity.assert_same_gradients(gradients(arrays, torch.float32), exact)


@torch.no_grad()
@pytest.mark.parametrize("case", ["a", "b"])
def test_latents_are_scaled_by_the_codebooks_range(arrays, model, case):
    scaled = LatentDiffusion(model, UNet(UNetConfig(channels=8)), steps=4).encode_scaled(
        parity.tensor(arrays[f"in/{case}/x"])
    )
    parity.assert_close(scaled, arrays[f"out/{case}/normalised"])


def test_downsampling_that_differs_by_axis():
    arrays = parity.load("vqgan_aniso")
    model = parity.autoencoder("vqgan_aniso", codes=256, downsampling=(4, 2, 4))
    with torch.no_grad():
        result = model(parity.tensor(arrays["in/x"]))
    parity.assert_close(result.latent, arrays["out/pre_vq"])
    assert torch.equal(result.quantized.indices.int(), parity.tensor(arrays["out/indices"]))
    parity.assert_close(result.volume, arrays["out/decode"])


@pytest.mark.parametrize("case", ["norestart", "restart"])
def test_one_step_of_the_codebooks_training(case):
    arrays = {name.removeprefix(f"{case}/"): value for name, value in parity.load("codebook_train").items()}
    codebook = Codebook(64, 8)
    for own, recorded in (("embeddings", "embeddings"), ("counts", "N"), ("sums", "z_avg")):
        getattr(codebook, own).copy_(parity.tensor(arrays[f"before/{recorded}"]))
    latent = parity.tensor(arrays["z"]).requires_grad_()
    quantized = codebook(latent, statistics=True)
    parity.assert_close(quantized.embeddings, arrays["out/embeddings"])
    assert torch.equal(quantized.indices.int(), parity.tensor(arrays["out/encodings"]))
    parity.assert_close(0.25 * quantized.commitment_loss.view(1), arrays["out/commitment_loss"])

    candidates = as_vectors(latent.detach())[parity.tensor(arrays["randperm"])][:64]
    codebook.update(quantized.counts, quantized.sums, candidates=candidates if case == "restart" else None)
    for own, recorded in (("embeddings", "embeddings"), ("counts", "N"), ("sums", "z_avg")):
        parity.assert_close(getattr(codebook, own), arrays[f"after/{recorded}"], recorded)


def test_names_and_number_of_the_released_weights():
    released = json.loads((parity.folder() / "vqgan_keys.json").read_text())
    model = Autoencoder()
    own = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    training_only = {"codebook.counts", "codebook.sums", "codebook.initialized"}
    assert {name: shape for name, shape in own.items() if name not in training_only} == {
        published_name(name, kind="autoencoder"): released["keys"][name]["shape"]
        for name in released["needed_for_synthesis"]
    }
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_391_081
    assert model.codebook.embeddings.numel() == 131_072
