"""The smallest networks that the architecture allows, with seeded weights, in memory and on disk."""

from dataclasses import asdict
from pathlib import Path

import torch

from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder, AutoencoderConfig
from nnunet_difftumor.generative.networks.unet import UNet, UNetConfig
from nnunet_difftumor.generative.weights import Description, DiffusionSettings, codebook_sha256, save_weights
from nnunet_difftumor.generative.weights_folder import AUTOENCODER_FILE, diffusion_file

# Steps of the schedule, sampler, and its steps.
STAGES = {"early": (4, "ddpm", 4), "late": (10, "ddim", 5)}


def _seeded(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        else:
            parameter.data.normal_(float(name.endswith("weight")), 0.1, generator=generator)
    return model.eval()


def autoencoder(seed: int = 1) -> Autoencoder:
    config = AutoencoderConfig(hidden_channels=4, codes=64, downsampling=(2, 2, 2), norm_groups=4)
    model = _seeded(Autoencoder(config), seed)
    model.codebook.embeddings.normal_(generator=torch.Generator().manual_seed(seed))
    return model


def unet(seed: int = 2) -> UNet:
    config = UNetConfig(channels=4, multipliers=(1, 2), heads=2, head_dim=4, norm_groups=2)
    return _seeded(UNet(config), seed)


def settings(stage: str, *, organ: str = "liver", codebook: str = "", edge: int = 24) -> DiffusionSettings:
    """Shown patches of edge^3 voxels, small ones to be quick."""
    steps, sampler, taken = STAGES[stage]
    return DiffusionSettings(organ, stage, steps, sampler, taken, codebook, (edge,) * 3)


def models(*stages: str) -> dict[str, tuple[LatentDiffusion, Description]]:
    """What `DiffusionRenderer` takes: patches are multiples of (2, 4, 4)."""
    return {
        stage: (
            LatentDiffusion(autoencoder(), unet(), steps=STAGES[stage][0]).eval(),
            Description("diffusion", {}, diffusion=settings(stage)),
        )
        for stage in stages
    }


def write_weights(folder: Path, *names: str, seed: int = 2) -> Path:
    """The autoencoder, and diffusion models named as in liver_early, shown 32^3 voxels; returns the folder."""
    first, second = autoencoder(), unet(seed)
    codes = first.codebook.embeddings
    save_weights(
        folder / AUTOENCODER_FILE,
        first,
        description=Description(
            "autoencoder",
            asdict(first.config),
            codebook_range=(codes.min().item(), codes.max().item()),
            source={"made": "by a test"},
        ),
    )
    for name in names:
        organ, stage = name.split("_")
        found = settings(stage, organ=organ, codebook=codebook_sha256(codes), edge=32)
        save_weights(
            folder / diffusion_file(organ, stage),
            second,
            description=Description("diffusion", asdict(second.config), diffusion=found, source={"made": "by a test"}),
        )
    return folder
