"""Architectures of the networks by name, as the JSON beside weights has it: other generators get a line here.

An autoencoder has an `encode`, a `decode` and a codebook, a denoiser predicts the noise in a latent; of both, the field
or property `downsampling` of the configuration says by how much the network divides each axis, (z, x, y).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder, AutoencoderConfig
from nnunet_difftumor.generative.networks.unet import UNet, UNetConfig


@dataclass(frozen=True)
class Architecture:
    """A network class, and the dataclass of sizes that it is made from."""

    config: type
    network: type[nn.Module]


AUTOENCODERS = {"difftumor_vqgan": Architecture(AutoencoderConfig, Autoencoder)}
DENOISERS = {"difftumor_unet": Architecture(UNetConfig, UNet)}
# By kind of weights; the first of each is the published one, which files without a name are of.
ARCHITECTURES: Mapping[str, Mapping[str, Architecture]] = {"autoencoder": AUTOENCODERS, "diffusion": DENOISERS}


def architecture(kind: str, name: str | None) -> Architecture:
    """One of ARCHITECTURES; with None, the published one of this kind.

    Raises:
        InputError: for an unknown kind or name.
    """
    known = _of_kind(kind)
    if name is None:
        return next(iter(known.values()))
    if not isinstance(name, str) or name not in known:
        raise InputError(f"network is {name!r}, expected one of {', '.join(known)}")
    return known[name]


def name_of(kind: str, network: nn.Module) -> str:
    """Under which name a network's class is listed.

    Raises:
        InputError: for an unknown kind, or a class that is not listed.
    """
    for name, entry in _of_kind(kind).items():
        if type(network) is entry.network:
            return name
    raise InputError(f"{type(network).__name__}: not listed among the architectures of the kind {kind}")


def patch_multiples(autoencoder_config: Any, unet_config: Any) -> tuple[int, int, int]:
    """What a patch of a diffusion model must be a multiple of, (z, x, y) in voxels.

    Args:
        autoencoder_config: of the autoencoder, whose latent the denoiser works on.
        unet_config: of the denoiser.
    """
    z, x, y = (
        outer * inner for outer, inner in zip(autoencoder_config.downsampling, unet_config.downsampling, strict=True)
    )
    return z, x, y


def _of_kind(kind: str) -> Mapping[str, Architecture]:
    if kind not in ARCHITECTURES:
        raise InputError(f"kind is {kind!r}, expected one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[kind]
