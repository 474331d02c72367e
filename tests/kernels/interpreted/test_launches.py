"""Launches are counted: known answers, and the networks of a tumor at any batch."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch as patched

import launches
import numpy as np
import pytest
import torch
from torch.nn import functional

from nnunet_difftumor.generative.diffusion.fast import FastSampler
from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder, AutoencoderConfig
from nnunet_difftumor.generative.networks.unet import UNet, UNetConfig
from nnunet_difftumor.generative.weights import Description, DiffusionSettings
from nnunet_difftumor.kernels import group_norm_modulate_silu, prepare_codes
from nnunet_difftumor.kernels.implementation import implementation
from nnunet_difftumor.synthesis.networks import products
from nnunet_difftumor.synthesis.networks.diffusion import DiffusionRenderer, LoadedBatch, as_diffusion
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.patch import site_of
from nnunet_difftumor.synthesis.scene import patch_of
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import ArrayVolume

X, WEIGHT = torch.ones(1, 2, 4, 4, 4), torch.ones(3, 2, 3, 3, 3)


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (lambda: X.movedim(1, -1)[None].transpose(0, 1).reshape(4, -1), {"aten::clone": 1}),
        (lambda: torch.empty(3).fill_(1).add_(2), {"aten::fill_": 1, "aten::add_": 1}),
        (lambda: functional.conv3d(X, WEIGHT), {"aten::convolution": 1}),
        (lambda: functional.conv3d(X, WEIGHT, torch.ones(3)), {"aten::ones": 1, "aten::convolution": 2}),
        (lambda: functional.linear(X.flatten()[None], torch.ones(5, 128)), {"aten::ones": 1, "aten::mm": 1}),
        (lambda: X.to(torch.bfloat16).float(), {"aten::_to_copy": 2}),
        (lambda: torch.cat([X, X])[0, 0].sum(), {"aten::cat": 1, "aten::sum": 1}),
    ],
)
@pytest.mark.parametrize("inference", [True, False])
def test_what_writes_memory_counts(run, expected, inference):
    with torch.inference_mode(inference), launches.counted() as found:
        run()
    assert found == expected


def test_an_operation_of_ours_counts_the_kernels_that_it_launches():
    weight = torch.ones(2)
    with torch.inference_mode(), implementation("triton"), launches.counted() as found:
        group_norm_modulate_silu(X, weight, bias=weight, groups=1, eps=1e-5)
    kernels = {name: count for name, count in found.items() if not name.startswith("aten::")}
    assert kernels == {"_chunk_moments": 1, "_join_moments": 1, "_apply": 1}
    assert sum(found.values()) <= 5


SEEN = Description("diffusion", {}, diffusion=DiffusionSettings("liver", "early", 4, "ddpm", 4, "", (32, 32, 32)))


ATTENTION = ("_attend", "_attend_linearly", "_project_and_add")


def networks() -> LatentDiffusion:
    """Of the released depth, with few channels."""
    autoencoder = Autoencoder(AutoencoderConfig(hidden_channels=4, codes=64, norm_groups=2))
    autoencoder.codebook.embeddings.normal_()
    unet = UNet(UNetConfig(channels=8, heads=1, head_dim=16, norm_groups=2))
    return LatentDiffusion(autoencoder.eval(), unet.eval(), steps=4)


def stages(batch: int) -> tuple[dict[str, int], dict[str, int]]:
    """Launches of each stage of an early tumor, and those of attention in a step of the U-Net."""
    model = networks()
    prepare_codes(model.autoencoder.codebook.embeddings)  # as a sampler does
    volume = torch.zeros(batch, 1, 32, 32, 32)
    tumor = volume > 1
    found = {}
    with torch.inference_mode(), implementation("triton"):
        for name in ("encode", "condition", "U-Net step", "lookup", "decode"):
            with launches.counted() as counts:
                if name == "encode":
                    encoded = model.autoencoder.encode(volume)
                elif name == "condition":
                    with patched.object(model.autoencoder, "encode", return_value=encoded):
                        condition = model.condition(volume, tumor)
                elif name == "U-Net step":
                    latent = torch.zeros(batch, 8, 8, 8, 8)
                    model.denoise(condition)(latent, torch.zeros(batch, dtype=torch.long))
                    of_attention = {name: counts[name] for name in ATTENTION}
                elif name == "lookup":
                    embeddings = model.autoencoder.codebook(latent).embeddings
                else:
                    model.autoencoder.decode_embeddings(embeddings)
            found[name] = sum(counts.values())
    return found, of_attention


def test_a_sampler_prepares_the_codes_when_it_is_made():
    codebook, latent = FastSampler(networks()).model.autoencoder.codebook, torch.zeros(2, 8, 3, 3, 3)
    with torch.inference_mode(), launches.counted() as found:
        codebook(latent)
    assert found == {"aten::clone": 1, "_search": 1, "_take": 1, "aten::mean": 1}


def loaded(batch: int, mode: str) -> LoadedBatch:
    """Tiny tumors, to be drawn by the networks of above."""
    renderer = DiffusionRenderer({"early": (networks(), SEEN)}, organ="liver", threads=1, mode=mode)
    hu = np.random.default_rng(0).normal(100, 15, (48, 48, 48)).astype(np.float32)
    volume = ArrayVolume(hu, np.ones(hu.shape, np.uint8), (1.0, 1.0, 1.0), np.eye(3))
    ball = TumorSpec("liver", "tiny", (24.0,) * 3, (4.0,) * 3, (1.0, 0, 0, 0), 0.0, 100.0, 0.0, 0.0, 1.0, 0.0, 0.9, 0)
    sketches = []
    for seed in range(batch):
        tumor = as_diffusion(replace(ball, seed=seed))
        patch = patch_of(volume, tumor, Organ("liver", (1,), 2), box=renderer.region(volume, tumor))
        sketches.append(renderer._view(tumor).sketch(site_of(patch, tumor), patch))
    (found,) = renderer.load(sketches)
    return found


def counted(found: dict[str, int], name: str, run: Callable[[], Any]) -> Any:
    """Notes how many launches there are in run()."""
    # A GPU takes whole products.
    with (
        torch.inference_mode(),
        implementation("triton"),
        patched.object(products, "_blocked", lambda field: False),
        launches.counted() as counts,
    ):
        made = run()
    found[name] = sum(counts.values())
    return made


def beside_networks(batch: LoadedBatch) -> dict[str, int]:
    """Launches of a render() that are not the networks'."""
    # In, into the graph's own memory, and out.
    program, block, found = batch.program, batch.block, {"copies": 3}
    picture = torch.zeros(program.layout.batch, 1, *program.layout.shapes.network)
    counted(found, "to the grid", lambda: program.network_input(block))
    counted(found, "noise", lambda: program.noises(block))
    counted(found, "back to the scan", lambda: program.blended(block, program.picture_hu(picture)))
    return found


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_beside_the_networks_a_render_launches_little_whatever_the_batch(mode):
    one, eight = (beside_networks(loaded(batch, mode)) for batch in (1, 8))
    print(f"launches beside the networks, {mode}: {one} at batch 1, {eight} at batch 8")
    assert one == eight and sum(one.values()) <= 120


@pytest.mark.long
@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("batch", [1, 8])
def test_launches_of_a_whole_early_render(batch, mode):
    made = loaded(batch, mode)
    program, found = made.program, beside_networks(made)
    sampler = program.sampler
    volumes, noises = program.network_input(made.block), program.noises(made.block)
    condition = counted(found, "encode", lambda: sampler.model.condition(*volumes))
    sampler.advance(noises[0], condition, noises, range(0))  # makes the tables
    latent = counted(found, "steps", lambda: sampler.advance(noises[0], condition, noises, range(sampler.taken)))
    counted(found, "lookup and decode", lambda: sampler.model.decode_scaled(latent))
    print(f"launches of an early render(), {mode}, batch {batch}: {sum(found.values())}, {found}")
    assert sum(found.values()) < 1800


def test_a_batch_launches_about_what_one_tumor_launches():
    (one, of_attention), (two, of_two) = stages(1), stages(2)
    print(f"launches at batch 1: {one}, at batch 2: {two}; of attention in a step: {of_attention}")
    # Before the first level, two in each of the eight, and two in the middle.
    blocks = 1 + 2 * 8 + 2
    assert of_attention == of_two == {"_attend": blocks - 8, "_attend_linearly": 8, "_project_and_add": blocks}
    assert one["condition"] <= 4 and one["lookup"] <= 4
    assert all(0 < one[name] <= two[name] < 1.25 * one[name] for name in one)
