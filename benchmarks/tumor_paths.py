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
from blending import blend
from kernel_checks import relative

from nnunet_difftumor.generative.diffusion.fast import FastSampler
from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.diffusion.samplers import sample_ddim, sample_ddpm
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder, AutoencoderConfig
from nnunet_difftumor.generative.networks.unet import UNet, UNetConfig
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


def launched(stage: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
    """A stage as it stands, every operation of it started from Python."""
    return stage(*inputs)


class Path:
    """The modules as they stand, eager: what tests of exactness take, and what a faster path is compared with.

    Args:
        model: on its device; it stays as it is.
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

    def encode(self, volume: torch.Tensor, tumor: torch.Tensor) -> torch.Tensor:
        """The condition of the U-Net."""
        return self.model.condition(volume, tumor)

    def denoise(self, condition: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The scaled latent."""
        draws = iter(noise)
        network = self.model.denoise(condition)
        if self.sampler.ddim is not None:
            return sample_ddim(network, self.model.schedule, lambda: next(draws), steps=self.sampler.ddim)
        return sample_ddpm(network, self.model.schedule, lambda: next(draws))

    def predict(self, noisy: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """The U-Net's noise at one step, for checks."""
        return self.model.unet(noisy, self._one_step(noisy), condition=condition)

    def quantize(self, latent: torch.Tensor) -> torch.Tensor:
        """The nearest codes, (b, channels, d, h, w)."""
        scaled = (latent + 1) / 2 * self.model.code_range + self.model.code_min
        return self.model.autoencoder.codebook(scaled).embeddings

    def decode(self, embeddings: torch.Tensor) -> torch.Tensor:
        """The picture (b, 1, z, x, y)."""
        return self.model.autoencoder.decode_embeddings(embeddings)

    def blend(self, picture: torch.Tensor, volume: torch.Tensor, tumor: torch.Tensor) -> torch.Tensor:
        """The picture inside of the tumor's blurred mask, the volume outside."""
        return blend(volume, picture, tumor, sigma_voxels=deviation(volume))

    def run(self, stage: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        """How a stage is run when its time counts."""
        return launched(stage, *inputs)

    def stages(
        self, patches: Patches, run: Callable[..., torch.Tensor] | None = None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """The name of every stage and its result, as it ends; by `run` instead of the path's own, if given."""
        run = run or self.run
        condition = run(self.encode, patches.volume, patches.tumor)
        yield "encode", condition
        latent = run(self.denoise, condition, patches.noise)
        yield "denoise", latent
        embeddings = run(self.quantize, latent)
        yield "quantize", embeddings
        picture = run(self.decode, embeddings)
        yield "decode", picture
        yield "blend", run(self.blend, picture, patches.volume, patches.tumor)

    def draw(self, patches: Patches) -> torch.Tensor:
        """All stages; what a path may do at once instead."""
        *_, (_, blended) = self.stages(patches)
        return blended

    def _one_step(self, noisy: torch.Tensor) -> torch.Tensor:
        return torch.full((len(noisy),), self.model.schedule.steps // 2, device=noisy.device)


class PlainPyTorch(Path):
    """The references of the operations, without kernels."""

    operations = "reference"


class Kernels(Path):
    """The Triton kernels, also on a CPU, where the interpreter runs them."""

    operations = "triton"


class Graph(Kernels):
    """`FastSampler`: on CUDA all of it is one graph, and of its stages, where they are timed, each is one."""

    bfloat16 = False

    def __init__(self, model: LatentDiffusion, sampler: Sampler):
        # A copy, whose weights get another memory format.
        self.fast = FastSampler(
            copy.deepcopy(model),
            sampler="ddpm" if sampler.ddim is None else "ddim",
            steps=sampler.ddim,
            bfloat16=self.bfloat16,
            graphs=True,
        )
        super().__init__(self.fast.model, sampler)

    def denoise(self, condition: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return self.fast.latent(condition, noise[: self.fast.draws])

    def predict(self, noisy: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        steps, unet = self._one_step(noisy), self.model.unet
        dtype = unet.conv_first.weight.dtype
        tables = unet.tables(steps, depth=noisy.shape[2])
        return unet(noisy.to(dtype), steps, condition=condition.to(dtype), tables=tables).float()

    def run(self, stage: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        return self.fast.replay(stage, *inputs)

    def draw(self, patches: Patches) -> torch.Tensor:
        noises, sigma = patches.noise[: self.fast.draws], deviation(patches.volume)
        return self.fast.replay(self.draw_blended, patches.volume, patches.tumor, noises, sigma)

    def draw_blended(
        self, volume: torch.Tensor, tumor: torch.Tensor, noises: torch.Tensor, sigma_voxels: torch.Tensor
    ) -> torch.Tensor:
        """All stages, as one graph."""
        return blend(volume, self.fast.draw(volume, tumor, noises), tumor, sigma_voxels=sigma_voxels)


class BFloat16Graph(Graph):
    """The same in bfloat16."""

    bfloat16 = True


PATHS: dict[str, Callable[..., Path]] = {
    "plain PyTorch": PlainPyTorch,
    "kernels": Kernels,
    "graph": Graph,
    "graph, bfloat16": BFloat16Graph,
}
# Relative L2 distance to float64 that the networks of each may have, on equal input.
PATH_LIMITS = {"plain PyTorch": 1e-5, "kernels": 1e-5, "graph": 1e-5, "graph, bfloat16": 2e-2}
# Those of the other stages are the same for all. Of what a path draws at once, the distance to its own stages one by
# one: a graph computes the same, but for a code that is as near as another.
STAGE_LIMITS = {"quantize": 1e-6, "blend": 1e-5, "draw": 1e-2}


def random_model(sampler: Sampler, *, device: str, small: bool) -> LatentDiffusion:
    """The released architecture, or a small one; random weights, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if small:
            # With fewer values in a group, bfloat16 is farther off than in the released networks.
            autoencoder = Autoencoder(AutoencoderConfig(hidden_channels=4, codes=200, norm_groups=2))
            unet = UNet(UNetConfig(channels=8, multipliers=(1,), heads=1, head_dim=16, norm_groups=2))
        else:
            autoencoder, unet = Autoencoder(), UNet()
        autoencoder.codebook.embeddings.normal_()
        model = LatentDiffusion(autoencoder, unet, steps=sampler.schedule)
    return model.to(device).eval().requires_grad_(False)


def deviation(volume: torch.Tensor) -> torch.Tensor:
    """BLUR_SD as a number on the volume's device, made there."""
    return torch.full((), BLUR_SD, dtype=volume.dtype, device=volume.device)


class Exact(NamedTuple):
    """Stages in float64, and what each was given: `noisy` and `condition` to the U-Net, and so on down."""

    condition: torch.Tensor
    noisy: torch.Tensor
    noise: torch.Tensor
    scaled: torch.Tensor
    codes: torch.Tensor
    picture: torch.Tensor
    blended: torch.Tensor


def exact_stages(model: LatentDiffusion, sampler: Sampler, patches: Patches) -> Exact:
    """By the references of the operations."""
    path = PlainPyTorch(copy.deepcopy(model).double(), sampler)
    volume, noisy = patches.volume.double(), patches.noise[0].double()
    with path.running():
        condition = path.encode(volume, patches.tumor)
        noise = path.predict(noisy, condition)
        scaled = (noisy + 1) / 2 * path.model.code_range + path.model.code_min
        codes = path.quantize(noisy)
        picture = path.decode(codes)
        return Exact(condition, noisy, noise, scaled, codes, picture, path.blend(picture, volume, patches.tumor))


def errors(path: Path, patches: Patches, *, exact: Exact) -> dict[str, float]:
    """Of every stage on equal input, relative L2 to float64; of quantization the largest excess of the squared distance
    over |z|^2. Of a path that draws all at once, for a second patch, relative L2 to its stages launched one by one.
    """
    with path.running():
        found = {
            "encode": relative(path.encode(patches.volume, patches.tumor), exact.condition),
            "denoise": relative(path.predict(exact.noisy.float(), exact.condition.float()), exact.noise),
            "decode": relative(path.decode(exact.codes.float()), exact.picture),
            "blend": relative(path.blend(exact.picture.float(), patches.volume, patches.tumor), exact.blended),
        }
        taken = path.quantize(exact.noisy.float()).double()
        own, best = ((exact.scaled - seen).square().sum(1) for seen in (taken, exact.codes))
        found["quantize"] = ((own - best) / exact.scaled.square().sum(1)).max().item()
        if type(path).draw is not Path.draw:
            path.draw(patches)
            second = Patches(patches.volume.flip(2), patches.tumor.roll(1, 3), patches.noise.flip(0))
            *_, (_, wanted) = path.stages(second, launched)
            found["draw"] = relative(path.draw(second), wanted)
    return found
