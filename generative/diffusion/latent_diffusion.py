"""Autoencoder and diffusion model together: the condition of a masked volume, and a latent's volume.

Axes are (b, c, z, x, y). The U-Net sees latents scaled by the range of the codebook, so that codes lie in [-1, 1].
"""

from collections.abc import Sequence

import torch
from torch import nn

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.diffusion.samplers import Denoise
from nnunet_difftumor.generative.diffusion.schedule import CosineSchedule
from nnunet_difftumor.generative.networks.architectures import patch_multiples
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder
from nnunet_difftumor.generative.networks.unet import UNet
from nnunet_difftumor.kernels import latent_condition


class LatentDiffusion(nn.Module):
    """A U-Net with the autoencoder that it was trained with.

    Args:
        autoencoder: trained; its codebook's range becomes a buffer here.
        unet: takes the latent's channels, and these and the mask as condition.
        steps: of the schedule that the U-Net was trained with.
    """

    def __init__(self, autoencoder: Autoencoder, unet: UNet, *, steps: int):
        super().__init__()
        channels = autoencoder.config.latent_channels
        if unet.config.latent_channels != channels or unet.config.condition_channels != channels + 1:
            raise InputError(
                f"U-Net: takes {unet.config.latent_channels} and {unet.config.condition_channels} channels, while the "
                f"autoencoder's latent has {channels} (condition: {channels + 1})"
            )
        self.autoencoder, self.unet, self.schedule = autoencoder, unet, CosineSchedule(steps)
        lowest, highest = autoencoder.codebook.embeddings.aminmax()
        if not highest > lowest:
            raise InputError(f"codebook: all its values are {lowest.item()}; the autoencoder is not trained")
        self.register_buffer("code_min", lowest.clone(), persistent=False)
        self.register_buffer("code_range", highest - lowest, persistent=False)

    def patch_multiples(self) -> tuple[int, int, int]:
        """A patch must be a multiple of these, (z, x, y)."""
        return patch_multiples(self.autoencoder.config, self.unet.config)

    def latent_shape(self, volume_shape: Sequence[int]) -> tuple[int, int, int, int]:
        """(c, d, h, w) of the latent of a volume (b, 1, z, x, y)."""
        config = self.autoencoder.config
        return config.latent_channels, *(n // f for n, f in zip(volume_shape[2:], config.downsampling, strict=True))

    def encode_scaled(self, volume: torch.Tensor) -> torch.Tensor:
        """Latent of a volume in [-1, 1], before quantization, scaled; beyond [-1, 1] where it exceeds all codes."""
        return 2 * (self.autoencoder.encode(volume) - self.code_min) / self.code_range - 1

    def condition(self, volume: torch.Tensor, tumor: torch.Tensor) -> torch.Tensor:
        """What the U-Net needs to know about a patch.

        Args:
            volume: (b, 1, z, x, y) in [-1, 1].
            tumor: boolean of the same shape; the volume there becomes 0 before it is encoded.

        Returns:
            (b, latent channels + 1, z / f, x / f, y / f): scaled latent, and the mask as -1 and 1.
        """
        if tumor.shape != volume.shape or tumor.dtype != torch.bool:
            raise InputError(
                f"tumor: expected boolean of shape {tuple(volume.shape)}, got {tumor.dtype} {tuple(tumor.shape)}"
            )
        latent = self.autoencoder.encode(volume.masked_fill(tumor, 0))
        return latent_condition(latent, tumor, code_min=self.code_min, code_range=self.code_range)

    def denoise(self, condition: torch.Tensor) -> Denoise:
        """The network under a condition, as samplers call it."""
        return lambda noisy, steps: self.unet(noisy, steps, condition=condition)

    def decode_scaled(self, latent: torch.Tensor) -> torch.Tensor:
        """Volume of a scaled latent, each vector replaced by its nearest code."""
        return self.autoencoder.decode((latent + 1) / 2 * self.code_range + self.code_min)
