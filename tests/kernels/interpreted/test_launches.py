"""Launches are counted: known answers, and the networks of a tumor at any batch."""

import launches
import pytest
import torch
from torch.nn import functional

from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder, AutoencoderConfig
from nnunet_difftumor.generative.networks.unet import UNet, UNetConfig
from nnunet_difftumor.kernels import group_norm_modulate_silu
from nnunet_difftumor.kernels.implementation import implementation

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


def stages(batch: int) -> dict[str, int]:
    """Launches of each stage of an early tumor, networks of the released depth with few channels."""
    autoencoder = Autoencoder(AutoencoderConfig(hidden_channels=4, codes=64, norm_groups=2))
    autoencoder.codebook.embeddings.normal_()
    unet = UNet(UNetConfig(channels=8, heads=1, head_dim=16, norm_groups=2))
    model = LatentDiffusion(autoencoder.eval(), unet.eval(), steps=4)
    volume = torch.zeros(batch, 1, 32, 32, 32)
    tumor = volume > 1
    found = {}
    with torch.inference_mode(), implementation("triton"):
        for name in ("encode", "U-Net step", "lookup", "decode"):
            with launches.counted() as counts:
                if name == "encode":
                    condition = model.condition(volume, tumor)
                elif name == "U-Net step":
                    latent = torch.zeros(batch, 8, 8, 8, 8)
                    model.denoise(condition)(latent, torch.zeros(batch, dtype=torch.long))
                elif name == "lookup":
                    embeddings = model.autoencoder.codebook(latent).embeddings
                else:
                    model.autoencoder.decode_embeddings(embeddings)
            found[name] = sum(counts.values())
    return found


def test_a_batch_launches_about_what_one_tumor_launches():
    one, two = stages(1), stages(2)
    print(f"launches at batch 1: {one}, at batch 2: {two}")
    assert all(0 < one[name] <= two[name] < 1.25 * one[name] for name in one)
