"""Ways to draw a tumor with the released networks, stage by stage: what gpu_suite.py times from end to end.

A path takes a patch and a mask through encode, denoise, quantize, decode and blend. PATHS names those that there are:
another way to run the networks is a subclass of `Path`, and a line there. Weights are random: they decide the numbers,
not the time.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from kernel_checks import relative
from torch.nn import functional

from nnunet_difftumor.generative.autoencoder import Autoencoder, AutoencoderConfig
from nnunet_difftumor.generative.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.samplers import sample_ddim, sample_ddpm
from nnunet_difftumor.generative.unet import UNet, UNetConfig
from nnunet_difftumor.kernels.implementation import implementation

STAGES = ("encode", "denoise", "quantize", "decode", "blend")


class Sampler(NamedTuple):
    """Steps of the schedule, and those that DDIM takes of them; None: all, by DDPM."""

    schedule: int
    ddim: int | None

    @property
    def steps(self) -> int:
        return self.ddim or self.schedule


SAMPLERS = {"early": Sampler(4, None), "late": Sampler(200, 50)}
SMALL_SAMPLERS = {"early": Sampler(2, None), "late": Sampler(4, 2)}
BLUR_SD = 2.0  # voxels


@dataclass(frozen=True)
class Patches:
    """What is drawn into: volume (b, 1, z, x, y) in [-1, 1], a ball as boolean tumor, noise for every step."""

    volume: torch.Tensor
    tumor: torch.Tensor
    noise: torch.Tensor

    @classmethod
    def drawn(cls, batch: int, size: int, *, sampler: Sampler, device: str) -> "Patches":
        generator = torch.Generator().manual_seed(0)
        volume = torch.rand(batch, 1, size, size, size, generator=generator) * 2 - 1
        axis = torch.arange(size) - (size - 1) / 2
        distance = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
        tumor = (distance <= size / 8).expand(batch, 1, size, size, size)
        noise = torch.randn(sampler.steps + 1, batch, 8, *(size // 4,) * 3, generator=generator)
        return cls(volume.to(device), tumor.to(device).contiguous(), noise.to(device))


class Path:
    """The modules as they stand, eager: what tests of exactness take, and what a faster path is compared with.

    Args:
        model: on its device.
        sampler: that it was trained for.
    """

    operations = "auto"

    def __init__(self, model: LatentDiffusion, sampler: Sampler):
        self.model, self.sampler = model, sampler

    @contextmanager
    def running(self) -> Iterator[None]:
        """Everything that a stage needs around it."""
        with torch.inference_mode(), implementation(self.operations):
            yield

    def encode(self, patches: Patches) -> torch.Tensor:
        """The condition of the U-Net."""
        return self.model.condition(patches.volume, patches.tumor)

    def denoise(self, condition: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The scaled latent."""
        draws = iter(noise)
        network = self.model.denoise(condition)
        if self.sampler.ddim is not None:
            return sample_ddim(network, self.model.schedule, lambda: next(draws), steps=self.sampler.ddim)
        return sample_ddpm(network, self.model.schedule, lambda: next(draws))

    def predict(self, noisy: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """The U-Net's noise at one step, for checks."""
        steps = torch.full((len(noisy),), self.model.schedule.steps // 2, device=noisy.device)
        return self.model.unet(noisy, steps, condition=condition)

    def quantize(self, latent: torch.Tensor) -> torch.Tensor:
        """The nearest codes, (b, channels, d, h, w)."""
        scaled = (latent + 1) / 2 * self.model.code_range + self.model.code_min
        return self.model.autoencoder.codebook(scaled).embeddings

    def decode(self, embeddings: torch.Tensor) -> torch.Tensor:
        """The picture (b, 1, z, x, y)."""
        return self.model.autoencoder.decode_embeddings(embeddings).clamp(-1, 1)

    def blend(self, picture: torch.Tensor, patches: Patches) -> torch.Tensor:
        """The picture inside of the tumor's blurred mask, the volume outside."""
        alpha = blurred(patches.tumor.to(picture.dtype))
        return patches.volume + alpha * (picture - patches.volume)

    def stages(self, patches: Patches) -> Iterator[tuple[str, torch.Tensor]]:
        """The name of every stage and its result, as it ends."""
        condition = self.encode(patches)
        yield "encode", condition
        latent = self.denoise(condition, patches.noise)
        yield "denoise", latent
        embeddings = self.quantize(latent)
        yield "quantize", embeddings
        picture = self.decode(embeddings)
        yield "decode", picture
        yield "blend", self.blend(picture, patches)

    def draw(self, patches: Patches) -> torch.Tensor:
        """All stages; what a path may do at once instead."""
        *_, (_, blended) = self.stages(patches)
        return blended


class PlainPyTorch(Path):
    """The references of the operations, without kernels."""

    operations = "reference"


class Kernels(Path):
    """The Triton kernels, also on a CPU, where the interpreter runs them."""

    operations = "triton"


# A path with a CUDA graph, or in bfloat16, is added here.
PATHS: dict[str, Callable[..., Path]] = {"plain PyTorch": PlainPyTorch, "kernels": Kernels}
# Relative L2 distance to float64 that each may have, stage by stage on equal input.
PATH_LIMITS = {"plain PyTorch": 1e-5, "kernels": 1e-5}


def random_model(sampler: Sampler, *, device: str, small: bool) -> LatentDiffusion:
    """The released architecture, or a small one; random weights, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if small:
            autoencoder = Autoencoder(AutoencoderConfig(hidden_channels=4, codes=200, norm_groups=4))
            unet = UNet(UNetConfig(channels=4, multipliers=(1,), heads=1, head_dim=16, norm_groups=2))
        else:
            autoencoder, unet = Autoencoder(), UNet()
        autoencoder.codebook.embeddings.normal_()
        model = LatentDiffusion(autoencoder, unet, steps=sampler.schedule)
    return model.to(device).eval().requires_grad_(False)


def blurred(mask: torch.Tensor) -> torch.Tensor:
    """A mask (b, 1, z, x, y) after a Gaussian of BLUR_SD voxels, axis by axis."""
    reach = int(4 * BLUR_SD)
    at = torch.arange(-reach, reach + 1, device=mask.device, dtype=mask.dtype)
    weights = torch.exp(-0.5 * (at / BLUR_SD) ** 2)
    weights = weights / weights.sum()
    for axis in range(3):
        shape, padding = [1] * 5, [0] * 3
        shape[axis + 2], padding[axis] = len(at), reach
        mask = functional.conv3d(mask, weights.view(shape), padding=padding)
    return mask


def errors(path: Path, patches: Patches) -> dict[str, float]:
    """Of every stage on equal input, relative L2 to the modules in float64; of quantization the largest excess of the
    squared distance over |z|^2.
    """
    exact = PlainPyTorch(copy.deepcopy(path.model).double(), path.sampler)
    wide = Patches(patches.volume.double(), patches.tumor, patches.noise.double())
    with exact.running():
        condition = exact.encode(wide)
        noisy = wide.noise[0]
        wanted = exact.predict(noisy, condition)
        codes = exact.quantize(noisy)
        picture = exact.decode(codes)
    with path.running():
        found = {
            "encode": relative(path.encode(patches), condition),
            "denoise": relative(path.predict(noisy.float(), condition.float()), wanted),
            "decode": relative(path.decode(codes.float()), picture),
        }
        taken = path.quantize(noisy.float()).double()
    scaled = (noisy + 1) / 2 * exact.model.code_range + exact.model.code_min
    own, best = ((scaled - seen).square().sum(1) for seen in (taken, codes))
    return found | {"quantize": ((own - best) / scaled.square().sum(1)).max().item()}
