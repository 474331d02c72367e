"""Launches are counted: known answers, and the networks of a tumor at any batch."""

from collections import Counter
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
from nnunet_difftumor.kernels import group_norm_modulate_silu
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


def networks() -> LatentDiffusion:
    """Of the released depth, with few channels."""
    autoencoder = Autoencoder(AutoencoderConfig(hidden_channels=4, codes=64, norm_groups=2))
    autoencoder.codebook.embeddings.normal_()
    unet = UNet(UNetConfig(channels=8, heads=1, head_dim=16, norm_groups=2))
    return LatentDiffusion(autoencoder.eval(), unet.eval(), steps=4)


def stages(batch: int, mode: str) -> dict[str, Counter[str]]:
    """Launches of each stage of an early tumor, by kernel."""
    sampler = FastSampler(networks(), bfloat16=mode == "fast")
    volume = torch.zeros(batch, 1, 32, 32, 32)
    tumor, noises = volume > 1, torch.zeros(5, batch, 8, 8, 8, 8)
    latent = noises[0].contiguous(memory_format=torch.channels_last_3d)  # as a step leaves it
    condition = torch.zeros(batch, 9, 8, 8, 8).contiguous(memory_format=torch.channels_last_3d)
    autoencoder, found = sampler.model.autoencoder, {}
    runs = {
        "encode": lambda: sampler.model.condition(volume, tumor),
        "U-Net step": lambda: sampler.advance(latent, condition, noises, range(1)),
        "lookup": lambda: autoencoder.codebook(latent),
        "decode": lambda: autoencoder.decode_embeddings(latent),
    }
    for name, run in runs.items():
        for _ in range(2):  # first tables and weights are made ready
            counts = counted({}, name, run)
        found[name] = counts
    return found


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


def counted(found: dict[str, Any], name: str, run: Callable[[], Any]) -> Counter[str]:
    """Notes how many launches there are in run(), whose kernels do not run, and returns them by kernel."""
    # A GPU takes whole products.
    with (
        torch.inference_mode(),
        implementation("triton"),
        patched.object(products, "_blocked", lambda field: False),
        launches.counted(run=False) as counts,
    ):
        run()
    found[name] = sum(counts.values())
    return counts


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


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_whole_early_render_launches_little_whatever_the_batch(mode):
    one, eight = (whole(loaded(batch, mode)) for batch in (1, 8))
    print(f"launches of an early render(), {mode}: {sum(one.values())} at batch 1, {one}; {sum(eight.values())} at 8")
    assert one == eight and sum(one.values()) <= 800


def whole(made: LoadedBatch) -> dict[str, int]:
    """Launches of all of a render()."""
    found, program = beside_networks(made), made.program
    sampler, shapes = program.sampler, program.layout.shapes
    volume = torch.zeros(program.layout.batch, 1, *(shapes.network[axis] for axis in shapes.axes))
    tumor, shape = volume > 1, sampler.model.latent_shape(volume.shape)
    noises = torch.zeros(sampler.draws, len(volume), *shape)
    condition = torch.zeros(len(volume), shape[0] + 1, *shape[1:])
    latent = noises[0].contiguous(memory_format=torch.channels_last_3d)  # as a step leaves it
    runs = {
        "encode": lambda: sampler.model.condition(volume, tumor),
        "steps": lambda: sampler.advance(noises[0], condition, noises, range(sampler.taken)),
        "lookup and decode": lambda: sampler.model.decode_scaled(latent),
    }
    for name, run in runs.items():
        for _ in range(2):  # first tables and weights are made ready
            counted(found, name, run)
    return found


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_the_stages_of_the_networks_launch_little_whatever_the_batch(mode):
    one, eight = (stages(batch, mode) for batch in (1, 8))
    print(f"launches, {mode}: { {name: sum(counts.values()) for name, counts in one.items()} }")
    assert one == eight
    assert sum(one["encode"].values()) <= 18 and sum(one["U-Net step"].values()) <= 150
    # From the latent to its volume: 4 for the code and its projection, 20 for the rest.
    assert sum(one["lookup"].values()) + sum(one["decode"].values()) <= 24
    # Attention stands before the first level, twice in each of the eight, and twice in the middle.
    blocks = 1 + 2 * 8 + 2
    names = ("_attend", "_attend_linearly", "_project_and_add")
    assert [one["U-Net step"][name] for name in names] == [blocks - 8, 8, blocks]
