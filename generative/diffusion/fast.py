"""Sampling made ready once: what depends on the time step only is in tables, and on CUDA all of it is one graph.

`FastSampler` computes what `LatentDiffusion` and the samplers do, with the same numbers up to rounding.
"""

import copy
from collections.abc import Callable

import torch
from torch import nn

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.diffusion.cuda_graph import Graph
from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.diffusion.samplers import ddim_steps_taken, sample_ddim, sample_ddpm
from nnunet_difftumor.generative.networks.attention import ChannelNorm
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder
from nnunet_difftumor.generative.networks.unet import StepTables, UNet

SAMPLERS = ("ddpm", "ddim")
# Graphs that a sampler keeps; the oldest goes.
_GRAPHS = 8


class FastSampler:
    """Draws pictures: encode, all steps, quantize, decode.

    With `graphs`, on CUDA, the first batch of a shape is captured as a graph, which later ones replay: a step of the
    U-Net is hundreds of small kernels, and starting each from Python takes longer than to run it. This was written
    without a GPU, and has not run on one.

    Args:
        model: on the device where it shall run, in evaluation mode. Its weights stay what they are, and must not be
            changed from then on, since tables and graphs keep what follows from them; their memory may become
            channels-last, which convolutions take without reordering.
        sampler: "ddpm" for all steps of the schedule, "ddim" for `steps` of them.
        steps: of DDIM.
        bfloat16: U-Net and decoder in bfloat16. Latent, quantization, sampler and all norms stay float32.
        graphs: on CUDA; elsewhere there are none.

    Raises:
        InputError: for another sampler, or steps that do not divide the schedule's.
    """

    def __init__(
        self,
        model: LatentDiffusion,
        *,
        sampler: str = "ddpm",
        steps: int | None = None,
        bfloat16: bool = False,
        graphs: bool = False,
    ):
        if sampler not in SAMPLERS:
            raise InputError(f"sampler: expected one of {SAMPLERS}, got {sampler!r}")
        if (sampler == "ddim") != (steps is not None):
            raise InputError(f"steps: are for ddim, and needed there; got {steps} for {sampler}")
        self.model, self.steps, self.graphs = in_bfloat16(model) if bfloat16 else model, steps, graphs
        schedule = model.schedule
        self._taken = list(range(schedule.steps)) if steps is None else ddim_steps_taken(schedule, steps=steps)
        self._tables: dict[tuple[int, int], list[StepTables]] = {}
        self._graphs: dict[tuple, Graph] = {}
        use_channels_last(self.model.unet)
        if bfloat16:
            use_channels_last(self.model.autoencoder)

    @property
    def draws(self) -> int:
        """How many noises a batch needs."""
        return 1 if self.steps else len(self._taken) + 1

    def __call__(self, volume: torch.Tensor, tumor: torch.Tensor, noises: torch.Tensor) -> torch.Tensor:
        """Pictures (b, 1, z, x, y); nominally in [-1, 1].

        Args:
            volume: float32 (b, 1, z, x, y) in [-1, 1].
            tumor: boolean of the same shape.
            noises: standard normal (draws, b, latent channels, z / f, x / f, y / f).
        """
        return self.replay(self.draw, volume, tumor, noises)

    @torch.inference_mode()
    def replay(self, function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        """function(*inputs), from a graph where there are any: `draw`, a part of what it draws, or more around it."""
        if not (self.graphs and inputs[0].is_cuda):
            return function(*inputs)
        # Of all inputs: what does not fit together has no graph, and is refused where one would be made.
        key = (function, *((tuple(given.shape), given.dtype, given.device) for given in inputs))
        if key not in self._graphs:
            while len(self._graphs) >= _GRAPHS:
                del self._graphs[next(iter(self._graphs))]
            pool = next(iter(self._graphs.values())).graph.pool() if self._graphs else None
            self._graphs[key] = Graph(function, inputs, pool=pool)
        return self._graphs[key](*inputs)

    def draw(self, volume: torch.Tensor, tumor: torch.Tensor, noises: torch.Tensor) -> torch.Tensor:
        """The same without a graph. After the first batch of a shape, nothing in it waits for the device."""
        return self.model.decode_scaled(self.latent(self.model.condition(volume, tumor), noises))

    def latent(self, condition: torch.Tensor, noises: torch.Tensor) -> torch.Tensor:
        """All steps under the model's condition: the scaled latent, as `LatentDiffusion.decode_scaled` takes it."""
        if len(noises) != self.draws:
            raise InputError(f"noises: expected {self.draws}, for the start and the steps, got {len(noises)}")
        tables = iter(self._tables_of(len(condition), condition.shape[2])[::-1])
        unet, schedule, noise = self.model.unet, self.model.schedule, iter(noises).__next__
        dtype = unet.conv_first.weight.dtype
        converted = condition.to(dtype)

        def denoise(noisy: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
            return unet(noisy.to(dtype), steps, condition=converted, tables=next(tables)).to(noisy.dtype)

        if self.steps:
            return sample_ddim(denoise, schedule, noise, steps=self.steps)
        return sample_ddpm(denoise, schedule, noise)

    def _tables_of(self, batch: int, depth: int) -> list[StepTables]:
        """One per step, in increasing order."""
        if (batch, depth) not in self._tables:
            unet = self.model.unet
            device = unet.frequencies.device
            self._tables[batch, depth] = [
                unet.tables(torch.full((batch,), step, device=device), depth=depth) for step in self._taken
            ]
        return self._tables[batch, depth]


def in_bfloat16(model: LatentDiffusion) -> LatentDiffusion:
    """A copy whose U-Net and decoder multiply in bfloat16; encoder, codebook and the norms' weights stay float32."""
    autoencoder: Autoencoder = copy.deepcopy(model.autoencoder)
    unet: UNet = copy.deepcopy(model.unet)
    # The embedding of the time step is in tables, or small.
    networks = (autoencoder.decoder, autoencoder.from_latent, unet)
    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear, ChannelNorm)
    apart = {id(part) for part in unet.time_modules()}
    for network in networks:
        for module in network.modules():
            if isinstance(module, kinds) and id(module) not in apart:
                module.bfloat16()
    return LatentDiffusion(autoencoder, unet, steps=model.schedule.steps).to(model.code_min.device).eval()


def use_channels_last(network: nn.Module) -> None:
    """Stores the weights of convolutions channels-last, in place; their values stay."""
    for parameter in network.parameters():
        if parameter.ndim in (4, 5):
            layout = torch.channels_last if parameter.ndim == 4 else torch.channels_last_3d
            parameter.data = parameter.data.contiguous(memory_format=layout)
