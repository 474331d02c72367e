"""Sampling made ready once: what depends on the time step only is in tables, and on CUDA all of it is one graph.

`FastSampler` computes what `LatentDiffusion` and the samplers do, with the same numbers up to rounding.
"""

import copy
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.diffusion.cuda_graph import GraphChain, Part
from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.diffusion.samplers import (
    ddim_coefficients,
    ddim_factors,
    ddim_step,
    ddim_steps_taken,
    ddpm_factors,
    ddpm_step,
)
from nnunet_difftumor.generative.networks.attention import ChannelNorm
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder
from nnunet_difftumor.generative.networks.unet import StepTables, UNet
from nnunet_difftumor.kernels import denoise_step, prepare_codes
from nnunet_difftumor.kernels.implementation import uses_triton

SAMPLERS = ("ddpm", "ddim")
# Graphs that a sampler keeps; the oldest goes.
_GRAPHS = 32


class FastSampler:
    """Draws pictures: encode, all steps, quantize, decode.

    With `graphs`, on CUDA, the first batch of a shape is captured as a graph, which later ones replay: a step of the
    U-Net is hundreds of small kernels, and starting each from Python takes longer than to run it. This was written
    without a GPU, and has not run on one.

    Args:
        model: on the device where it is to run, in evaluation mode. Its weights stay what they are, and must not be
            changed from then on, since tables and graphs keep what follows from them; their memory may become
            channels-last, which convolutions take without reordering.
        sampler: "ddpm" for all steps of the schedule, "ddim" for `steps` of them.
        steps: of DDIM.
        bfloat16: all networks in bfloat16. Latent, quantization, sampler and all norms stay float32.
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
        self._tables: dict[tuple[int, int], list[_Table]] = {}
        self._graphs: dict[tuple, GraphChain] = {}
        prepare_codes(self.model.autoencoder.codebook.embeddings)
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

    def replay(self, function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        """function(*inputs), from a graph where there are any: `draw`, a part of what it draws, or more around it."""
        made = self.replay_parts((function,), *inputs, key=function)
        return made.clone() if self.graphs else made

    @torch.inference_mode()
    def replay_parts(self, parts: Sequence[Part], *inputs: torch.Tensor, key: Hashable) -> torch.Tensor:
        """One function after the other, each of what the one before gave, on CUDA every one as a graph of its own.

        Args:
            parts: each returns a tensor, or a tuple of them, the last a tensor.
            inputs: of the first.
            key: equal ones name parts that do the same.

        Returns:
            What the last gave; of a graph only until it is replayed.
        """
        if not (self.graphs and self.model.code_min.is_cuda):
            values: torch.Tensor | tuple[torch.Tensor, ...] = inputs
            for part in parts:
                values = part(*(values if isinstance(values, tuple) else (values,)))
            return values
        # Of all inputs: what does not fit together has no graph, and is refused where one would be made.
        key = (key, *((tuple(given.shape), given.dtype) for given in inputs))
        if key not in self._graphs:
            while len(self._graphs) >= _GRAPHS:
                del self._graphs[next(iter(self._graphs))]
            pool = next(iter(self._graphs.values())).pool() if self._graphs else None
            self._graphs[key] = GraphChain(parts, inputs, device=self.model.code_min.device, pool=pool)
        return self._graphs[key](*inputs)

    def draw(self, volume: torch.Tensor, tumor: torch.Tensor, noises: torch.Tensor) -> torch.Tensor:
        """The same without a graph. After the first batch of a shape, nothing in it waits for the device."""
        return self.model.decode_scaled(self.latent(self.model.condition(volume, tumor), noises))

    def latent(self, condition: torch.Tensor, noises: torch.Tensor) -> torch.Tensor:
        """All steps under the model's condition: the scaled latent, as `LatentDiffusion.decode_scaled` takes it."""
        if len(noises) != self.draws:
            raise InputError(f"noises: expected {self.draws}, for the start and the steps, got {len(noises)}")
        return self.advance(noises[0], condition, noises, range(self.taken))

    @property
    def taken(self) -> int:
        """How many steps a drawing takes."""
        return len(self._taken)

    def advance(self, noisy: torch.Tensor, condition: torch.Tensor, noises: torch.Tensor, steps: range) -> torch.Tensor:
        """Some of the steps: the noisy latent after them.

        Args:
            noisy: what the steps before left; `noises[0]` before the first.
            condition: of the model.
            noises: as in `__call__`.
            steps: numbers of steps, the first of a drawing being 0.
        """
        tables = self._tables_of(len(condition), condition.shape[2])
        # Once, and not at every step.
        condition = condition.contiguous(memory_format=torch.channels_last_3d)
        for number in steps:
            at = len(self._taken) - 1 - number
            table = tables[at]
            predicted = self.model.unet(noisy, table.step, condition=condition, tables=table.of_network)
            drawn = None if self.steps or not at else noises[number + 1]
            noisy = self._before(noisy, predicted, drawn, table=table, number=at)
        return noisy

    def _before(
        self, noisy: torch.Tensor, predicted: torch.Tensor, drawn: torch.Tensor | None, *, table: "_Table", number: int
    ) -> torch.Tensor:
        """The noisy latent one step before the taken step of that number."""
        schedule = self.model.schedule
        if uses_triton("noisy", noisy):
            return denoise_step(noisy, predicted, drawn, coefficients=table.factors, clip=not self.steps)
        if self.steps:
            coefficients = ddim_coefficients(schedule, steps=self.steps, eta=0.0)
            return ddim_step(noisy, predicted, coefficients=coefficients, number=number)
        return ddpm_step(noisy, predicted, drawn, schedule=schedule, step=number)

    def _tables_of(self, batch: int, depth: int) -> list["_Table"]:
        """Of each step taken, in increasing order."""
        if (batch, depth) not in self._tables:
            unet, schedule = self.model.unet, self.model.schedule
            if self.steps:
                factors = ddim_factors(ddim_coefficients(schedule, steps=self.steps, eta=0.0))
            else:
                factors = ddpm_factors(schedule)
            taken = [torch.full((batch,), step, device=unet.frequencies.device) for step in self._taken]
            self._tables[batch, depth] = [
                _Table(step, unet.tables(step, depth=depth), factors[number]) for number, step in enumerate(taken)
            ]
        return self._tables[batch, depth]


class _Table(NamedTuple):
    """What depends on a step of a batch, and not on its latents.

    Attributes:
        step: int64 (b,).
        of_network: what the U-Net takes.
        factors: (6,), what `denoise_step` takes.
    """

    step: torch.Tensor
    of_network: StepTables
    factors: torch.Tensor


def in_bfloat16(model: LatentDiffusion) -> LatentDiffusion:
    """A copy whose networks multiply in bfloat16; the codebook and the norms' weights stay float32."""
    autoencoder: Autoencoder = copy.deepcopy(model.autoencoder)
    unet: UNet = copy.deepcopy(model.unet)
    # The embedding of the time step is in tables, or small.
    networks = (autoencoder, unet)
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
