"""Small networks with seeded weights, and what they compute (expected.npz).

The file was made when the networks agreed with the public code's recorded numbers. Run: python seeded.py
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.diffusion.samplers import noise_per_sample, sample_ddim, sample_ddpm
from nnunet_difftumor.generative.diffusion.schedule import CosineSchedule
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder, AutoencoderConfig
from nnunet_difftumor.generative.networks.unet import UNet, UNetConfig

EXPECTED = Path(__file__).with_name("expected.npz")


def fill(model: nn.Module, seed: int) -> nn.Module:
    """Weights of about unit gain from numpy's generator, which is the same everywhere."""
    rng = np.random.default_rng(seed)
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.dtype == torch.bool or name == "frequencies":
            continue
        values = rng.standard_normal(tuple(tensor.shape))
        if name.startswith(("codebook.", "position_bias.")):
            pass
        elif tensor.ndim > 1:
            values /= np.sqrt(np.prod(tensor.shape[1:]))
        else:
            values = values * 0.2 + name.endswith("weight")
        tensor.copy_(torch.from_numpy(values))
    return model.eval()


def autoencoder(downsampling: tuple[int, int, int] = (4, 4, 4)) -> Autoencoder:
    config = AutoencoderConfig(hidden_channels=8, codes=128, norm_groups=8, downsampling=downsampling)
    return fill(Autoencoder(config), 1)


def unet() -> UNet:
    return fill(UNet(UNetConfig(channels=8)), 2)


def model(steps: int) -> LatentDiffusion:
    return LatentDiffusion(autoencoder(), unet(), steps=steps).eval()


def patch() -> tuple[torch.Tensor, torch.Tensor]:
    """Two smooth volumes (2, 1, 16, 32, 64) in [-1, 1], each with a box as tumor."""
    rng = np.random.default_rng(3)
    coarse = torch.from_numpy(rng.uniform(-1, 1, (2, 1, 4, 8, 16)).astype(np.float32))
    volume = nn.functional.interpolate(coarse, scale_factor=4, mode="trilinear")
    tumor = torch.zeros(volume.shape, dtype=torch.bool)
    tumor[0, 0, 5:12, 10:18, 20:30] = True
    tumor[1, 0, 2:9, 20:26, 40:47] = True
    return volume, tumor


@torch.no_grad()
def compute() -> dict[str, torch.Tensor]:
    """Every figure that expected.npz holds."""
    volume, tumor = patch()
    first = autoencoder()
    reconstruction = first(volume)
    early, late = model(4), model(50)
    condition = early.condition(volume, tumor)
    shape = (8, *condition.shape[2:])

    def noise(seeds):
        return noise_per_sample([np.random.default_rng(seed) for seed in seeds], shape)

    # Asymmetric padding where an axis is done early.
    anisotropic = autoencoder((2, 4, 1)).encode(volume)
    return {
        "anisotropic_latent": anisotropic[:, :, ::2, :, ::4],
        "anisotropic_reconstruction": autoencoder((2, 4, 1)).decode_embeddings(anisotropic)[:, :, ::2, ::2, ::2],
        "latent": reconstruction.latent,
        "indices": reconstruction.quantized.indices.short(),
        "reconstruction": reconstruction.volume[:, :, ::2, ::2, ::2],
        "predicted": early.unet(noise([6, 7])(), torch.tensor([0, 3]), condition=condition),
        "decoded": early.decode_scaled(noise([10, 11])())[:, :, ::2, ::2, ::2],
        "ddpm": sample_ddpm(early.denoise(condition), early.schedule, noise([4, 5])),
        "ddim": sample_ddim(late.denoise(condition), late.schedule, noise([8, 9]), steps=5, eta=0.5),
        "signal": CosineSchedule(200).signal,
    }


if __name__ == "__main__":
    np.savez_compressed(EXPECTED, **{name: tensor.numpy() for name, tensor in compute().items()})
    print(EXPECTED, EXPECTED.stat().st_size, "bytes")
