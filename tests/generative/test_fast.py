"""The fast path computes what the networks compute, and what the public code computes."""

import importlib

import numpy as np
import parity
import pytest
import seeded
import torch
from recorded_graphs import NoWaiting, recorded_graphs  # noqa: F401, a fixture
from torch._subclasses import FakeTensorMode

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.diffusion import fast
from nnunet_difftumor.generative.diffusion.fast import FastSampler
from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.diffusion.samplers import sample_ddim, sample_ddpm
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder, AutoencoderConfig
from nnunet_difftumor.generative.networks.unet import UNet, UNetConfig
from nnunet_difftumor.kernels import (
    depth_attention,
    group_norm_modulate_silu,
    implementation,
    spatial_linear_attention,
)

CHANNELS_LAST = torch.channels_last_3d


def distance(found: torch.Tensor, exact: torch.Tensor) -> float:
    return ((found.double() - exact.double()).norm() / exact.double().norm()).item()


def noises_for(sampler: FastSampler, volume: torch.Tensor) -> torch.Tensor:
    rng = np.random.default_rng(12)
    shape = (sampler.draws, len(volume), *sampler.model.latent_shape(volume.shape))
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("downsampling", [(4, 4, 4), (2, 4, 1), (1, 2, 4)])
@pytest.mark.parametrize("slab_bytes", [1, 2**30])
def test_streamed_encoding_and_decoding_are_exact(monkeypatch, downsampling, slab_bytes):
    """In the thinnest slabs and in one, for every padding, two samples of odd latent sizes."""
    from nnunet_difftumor.generative.networks import streaming

    monkeypatch.setattr(streaming, "_SLAB_BYTES", slab_bytes)
    monkeypatch.setattr(streaming, "_LEAST_ROWS", 2)
    model = seeded.autoencoder(downsampling)
    size = [n * f for n, f in zip((5, 3, 7), downsampling, strict=True)]
    volume = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        latent = model.encode(volume)
        decoded = model.decode_embeddings(latent)
        double = model.double().encode(volume.double())
    with torch.no_grad():
        exact = seeded.autoencoder(downsampling).double()
        assert distance(double, exact.encode(volume.double())) < 1e-12
        assert distance(latent, exact.encode(volume.double())) < 1e-5
        assert distance(decoded, exact.decode_embeddings(latent.double())) < 1e-5


def test_few_channels_are_streamed_too():
    model = seeded.fill(Autoencoder(AutoencoderConfig(hidden_channels=2, codes=8, norm_groups=2)), 1)
    volume = torch.randn(1, 1, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = model.decode_embeddings(model.encode(volume))
    with torch.no_grad():
        assert distance(found, model.decode_embeddings(model.encode(volume))) < 1e-5


def test_norms_of_channels_last_volumes_keep_their_digits_far_from_zero():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 12, 20, 33, 31, generator=generator) + 100 * torch.randn(1, 12, 1, 1, 1, generator=generator)
    weight, bias, scale, shift = (torch.randn(shape, generator=generator) for shape in ((12,), (12,), (2, 12), (2, 12)))
    for groups in (12, 4):

        def norm(x, *parameters, groups=groups):
            weight, bias, scale, shift = parameters
            return group_norm_modulate_silu(x, weight, bias=bias, groups=groups, eps=1e-5, scale=scale, shift=shift)

        exact = norm(x.double(), *(t.double() for t in (weight, bias, scale, shift)))
        with torch.inference_mode():
            found = norm(x.contiguous(memory_format=CHANNELS_LAST), weight, bias, scale, shift)
        assert found.is_contiguous(memory_format=CHANNELS_LAST)
        # One rounding of x * scale + shift at 100 standard deviations from zero is 6e-6 of one.
        assert distance(found, exact) < 2e-5


@pytest.mark.parametrize("layout", [torch.contiguous_format, CHANNELS_LAST])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_attention_in_inference_on_a_cpu_is_that_of_the_reference(layout, dtype):
    generator = torch.Generator().manual_seed(1)
    qkv = torch.randn(2, 3 * 4 * 8, 6, 5, 3, generator=generator, dtype=torch.float64)
    bias, frequencies = torch.randn(4, 6, 6, generator=generator), torch.rand(4, generator=generator)
    tolerance = {torch.float64: 1e-7, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    given = qkv.to(dtype).contiguous(memory_format=layout)
    for operation in (lambda x: depth_attention(x, bias, frequencies), lambda x: spatial_linear_attention(x, heads=4)):
        exact = operation(given.double())
        with torch.inference_mode():
            found = operation(given)
        assert found.dtype == dtype
        assert distance(found, exact) < tolerance


@pytest.mark.parametrize(("sampler", "steps"), [("ddpm", None), ("ddim", 5)])
def test_the_fast_sampler_draws_what_the_samplers_draw(sampler, steps):
    volume, tumor = seeded.patch()
    model = seeded.model(4 if steps is None else 50)
    quick = FastSampler(model, sampler=sampler, steps=steps)
    noises = noises_for(quick, volume)
    found = quick(volume, tumor, noises)
    with torch.no_grad():
        noise, denoise = iter(noises).__next__, model.denoise(model.condition(volume, tumor))
        if steps is None:
            latent = sample_ddpm(denoise, model.schedule, noise)
        else:
            latent = sample_ddim(denoise, model.schedule, noise, steps=steps)
        expected = model.decode_scaled(latent)
    assert distance(found, expected) < 1e-5
    assert torch.equal(quick(volume, tumor, noises), found)


def test_parity_with_the_public_code():
    arrays = parity.load("e2e_small")
    model = LatentDiffusion(parity.autoencoder("vqgan_small", codes=512), parity.unet(24), steps=4).eval()
    order = (0, 1, 4, 2, 3)
    volume = parity.tensor(2 * arrays["in/ct"] - 1).permute(order)
    tumor = parity.tensor(arrays["in/tumor"]).permute(order)
    found = FastSampler(model)(volume, tumor, parity.tensor(arrays["in/noises_T4"]))
    parity.assert_close(found, arrays["mid/decoded"])


def test_bfloat16_is_as_close_as_its_digits_allow():
    """Stage by stage, because other codes are chosen here and there; small, because few CPUs have it in hardware."""
    model = seeded.model(4)
    half = FastSampler(model, bfloat16=True).model
    volume, tumor = (x[:1, :, :8, :32, :32] for x in seeded.patch())
    steps, noisy = torch.tensor([2]), torch.randn(1, 8, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        condition = model.condition(volume, tumor)
        assert 1e-4 < distance(half.condition(volume, tumor), condition) < 2e-2
        indices = model.autoencoder.codebook(noisy).indices
        assert torch.equal(half.autoencoder.codebook(noisy).indices, indices)
        decoded = half.autoencoder.decode_indices(indices)
        assert decoded.dtype == torch.float32
        assert 1e-4 < distance(decoded, model.autoencoder.decode_indices(indices)) < 2e-2
        tables = half.unet.tables(steps, depth=2)
        predicted = half.unet(noisy, steps, condition=condition, tables=tables)
        assert predicted.dtype == torch.float32
        assert 1e-4 < distance(predicted, model.unet(noisy, steps, condition=condition)) < 2e-2


def tiny_model(steps: int) -> LatentDiffusion:
    networks = (
        Autoencoder(AutoencoderConfig(hidden_channels=2, codes=16, norm_groups=2, downsampling=(2, 2, 2))),
        UNet(UNetConfig(channels=4, multipliers=(1,), heads=1, head_dim=4, norm_groups=2)),
    )
    return LatentDiffusion(*(seeded.fill(network, 1) for network in networks), steps=steps).eval()


@pytest.mark.parametrize(("steps", "bfloat16"), [(None, False), (2, True)])
def test_nothing_waits_for_the_device_once_the_tables_are_made(monkeypatch, steps, bfloat16):
    """With the kernels, on tensors without memory: of those a value cannot be asked for at all."""
    sampler, schedule = ("ddpm", 2) if steps is None else ("ddim", 4)
    quick = FastSampler(tiny_model(schedule), sampler=sampler, steps=steps, bfloat16=bfloat16)
    for name in ("vector_quantize", "triton.vector_quantize"):  # on a CPU only, and once for a codebook
        module = importlib.import_module(f"nnunet_difftumor.kernels.{name}")
        monkeypatch.setattr(module, "check_finite", lambda *_: None)
    with FakeTensorMode(), torch.inference_mode(), implementation("triton"):
        # As weights are loaded: then they tell whether their values stay, and what is made of them is kept.
        with torch.inference_mode(False):
            for part in quick.model.modules():
                for store in (part._parameters, part._buffers):
                    for name, tensor in store.items():
                        if tensor is not None:
                            empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
                            store[name] = torch.nn.Parameter(empty, False) if store is part._parameters else empty
        volume = torch.empty(2, 1, 4, 8, 8)
        inputs = volume, torch.empty(volume.shape, dtype=torch.bool), torch.empty(quick.draws, 2, 8, 2, 4, 4)
        with NoWaiting(), pytest.raises(AssertionError, match="lift_fresh waits"):
            quick.draw(*inputs)  # makes the tables
        quick.draw(*inputs)
        with NoWaiting():
            assert quick.draw(*inputs).shape == volume.shape


def test_what_waits_for_the_device_is_found():
    values = torch.ones(2)
    for waiting in (lambda: values[values > 0], lambda: values.sum().item(), lambda: torch.tensor([1.0, 2.0])):
        with pytest.raises(AssertionError, match="waits for the device"), NoWaiting():
            waiting()


@pytest.mark.usefixtures("recorded_graphs")
def test_a_graph_draws_other_patches_as_eager_does():
    quick, eager = (FastSampler(tiny_model(2), graphs=graphs) for graphs in (True, False))
    generator = torch.Generator().manual_seed(0)
    kept = []
    for size in (4, 8, 4):
        volume = torch.rand(2, 1, 4, 8, size, generator=generator) * 2 - 1
        tumor = torch.rand(volume.shape, generator=generator) < 0.3
        noises = torch.randn(quick.draws, 2, 8, 2, 4, size // 2, generator=generator)
        kept.append((quick(volume, tumor, noises), eager(volume, tumor, noises)))
    # Also after other patches.
    assert all(distance(found, expected) < 1e-6 for found, expected in kept)
    assert len(quick._graphs) == 2
    quick.replay(quick.model.condition, volume, tumor)
    assert len(quick._graphs) == 3


@pytest.mark.usefixtures("recorded_graphs")
def test_no_more_graphs_are_kept_than_said_and_none_of_what_does_not_fit(monkeypatch):
    monkeypatch.setattr(fast, "_GRAPHS", 2)
    quick = FastSampler(tiny_model(2), graphs=True)
    for size in (2, 4, 6):
        volume = torch.zeros(1, 1, 4, 4, size)
        quick(volume, volume > 0, torch.zeros(3, 1, 8, 2, 2, size // 2))
    kept = [key[1][0] for key in quick._graphs]
    assert kept == [(1, 1, 4, 4, 4), (1, 1, 4, 4, 6)]
    with pytest.raises(InputError, match="tumor: expected boolean"):
        quick(volume, volume, torch.zeros(3, 1, 8, 2, 2, 3))
    with pytest.raises(InputError, match="condition"):
        quick(volume, volume > 0, torch.zeros(3, 1, 8, 2, 2, 2))
    assert volume.shape in [key[1][0] for key in quick._graphs]
    assert all(key[2][1] == torch.bool for key in quick._graphs)


def test_what_does_not_fit_is_refused():
    model, (volume, tumor) = seeded.model(4), seeded.patch()
    with pytest.raises(InputError, match="sampler: expected one of"):
        FastSampler(model, sampler="euler")
    with pytest.raises(InputError, match="steps: are for ddim, and needed there; got None for ddim"):
        FastSampler(model, sampler="ddim")
    with pytest.raises(InputError, match="DDIM steps: 3 do not divide"):
        FastSampler(model, sampler="ddim", steps=3)
    with pytest.raises(InputError, match="noises: expected 5, for the start and the steps, got 2"):
        FastSampler(model)(volume, tumor, torch.zeros(2, 2, 8, 4, 8, 16))
