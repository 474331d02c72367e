"""From noise to a latent: DDPM (Ho et al., NeurIPS 2020) and DDIM (Song et al., ICLR 2021), apart from any network."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.diffusion.schedule import MIN_VARIANCE, CosineSchedule

# (noisy latent (b, c, d, h, w), steps int64 (b,)) -> predicted noise of the latent's shape.
Denoise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# () -> the next standard normal tensor (b, c, d, h, w): the start first, then one per step.
Noise = Callable[[], torch.Tensor]


def noise_per_sample(
    generators: Sequence[np.random.Generator], shape: Sequence[int], *, device: torch.device | str = "cpu"
) -> Noise:
    """Noise in which every sample has its own generator, so that it does not depend on its neighbours in the batch.

    Args:
        generators: one per sample; they must differ, or the samples will not.
        shape: of one sample, (c, d, h, w).
        device: where the noise goes. Its values are those of the CPU's generators on every device.
    """
    if not generators:
        raise InputError("generators: expected one per sample, got none")
    if len({id(generator) for generator in generators}) < len(generators):
        raise InputError("generators: one stands for several samples; give each sample its own")

    def draw() -> torch.Tensor:
        drawn = [generator.standard_normal(tuple(shape), dtype=np.float32) for generator in generators]
        return torch.from_numpy(np.stack(drawn)).to(device)

    return draw


@torch.no_grad()
def sample_ddpm(denoise: Denoise, schedule: CosineSchedule, noise: Noise) -> torch.Tensor:
    """All steps of the schedule, the clean latent clipped to [-1, 1] at each; the last step adds no noise.

    Args:
        denoise: predicts the noise.
        schedule: on the device of the noise.
        noise: called once for the start and once per step.

    Returns:
        The clean latent (b, c, d, h, w), in [-1, 1].
    """
    z = noise()
    for step in reversed(range(schedule.steps)):
        predicted = denoise(z, torch.full((len(z),), step, device=z.device))
        # Drawn at the last step too: the number of draws is the number of steps, whatever the sampler does with them.
        z = ddpm_step(z, predicted, noise(), schedule=schedule, step=step)
    return z


def ddpm_step(
    z: torch.Tensor, predicted: torch.Tensor, drawn: torch.Tensor, *, schedule: CosineSchedule, step: int
) -> torch.Tensor:
    """From a step to the one before: z_{t-1} of z_t, the predicted noise and fresh noise, which step 0 does not add."""
    clean = schedule.clean(z, predicted, steps=step).clamp(-1, 1)
    mean, deviation = schedule.posterior(clean, z, steps=step)
    return mean + deviation * drawn if step else mean


@torch.no_grad()
def sample_ddim(
    denoise: Denoise,
    schedule: CosineSchedule,
    noise: Noise,
    *,
    steps: int,
    eta: float = 0.0,
    on_step: Callable[[torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """`steps` of the schedule's steps, evenly spaced; nothing is clipped.

    Args:
        denoise: predicts the noise.
        schedule: on the device of the noise.
        noise: called once for the start, and once per step if eta > 0.
        steps: how many; divides the schedule's.
        eta: 0 is deterministic after the start, 1 is as noisy as DDPM.
        on_step: called with the latent after each step.

    Returns:
        The latent (b, c, d, h, w). As in the published code the last step ends at the schedule's step 0, which is not
        quite free of noise.

    Raises:
        InputError: if steps does not divide the schedule's, or for an eta outside [0, 1].
    """
    taken = ddim_steps_taken(schedule, steps=steps)
    coefficients = ddim_coefficients(schedule, steps=steps, eta=eta)
    z = noise()
    for i in reversed(range(steps)):
        predicted = denoise(z, torch.full((len(z),), taken[i], device=z.device))
        z = ddim_step(z, predicted, coefficients=coefficients, number=i)
        if eta > 0:
            z = z + coefficients.sigma[i] * noise()
        if on_step is not None:
            on_step(z)
    return z


class DDIMCoefficients(NamedTuple):
    """Of the steps taken, in increasing order, (steps,) each: signal there and before it, and sigma of equation 16."""

    signal: torch.Tensor
    before: torch.Tensor
    sigma: torch.Tensor


def ddim_coefficients(schedule: CosineSchedule, *, steps: int, eta: float) -> DDIMCoefficients:
    """What `ddim_step` needs (Song et al., ICLR 2021)."""
    if not 0 <= eta <= 1:
        raise InputError(f"eta: expected 0 to 1, got {eta}")
    taken = ddim_steps_taken(schedule, steps=steps)
    # By a slice: a list of indices would have to be copied to the device.
    signal = schedule.signal[taken[0] :: schedule.steps // steps]
    before = torch.cat((schedule.signal[:1], signal[:-1]))
    sigma = eta * ((1 - before) / (1 - signal) * (1 - signal / before)).sqrt()
    return DDIMCoefficients(signal, before, sigma)


def ddim_step(z: torch.Tensor, predicted: torch.Tensor, *, coefficients: DDIMCoefficients, number: int) -> torch.Tensor:
    """From the taken step of that number to the one before, without its noise (Song et al., equation 12)."""
    signal, before, sigma = (values[number] for values in coefficients)
    clean = (z - (1 - signal).sqrt() * predicted) / signal.sqrt()
    return before.sqrt() * clean + (1 - before - sigma.square()).sqrt() * predicted


def ddpm_factors(schedule: CosineSchedule) -> torch.Tensor:
    """`ddpm_step` of each step of the schedule as `kernels.denoise_step` takes it, (steps, 6), with clipping."""
    none = torch.zeros_like(schedule.signal)
    deviation = schedule.posterior_variance.clamp(min=MIN_VARIANCE).sqrt()
    of_clean = (schedule.sqrt_inverse_signal, -schedule.sqrt_inverse_signal_minus_1)
    return torch.stack((*of_clean, schedule.clean_weight, schedule.noisy_weight, none, deviation), 1)


def ddim_factors(coefficients: DDIMCoefficients) -> torch.Tensor:
    """`ddim_step` of each step taken as `kernels.denoise_step` takes it, (steps, 6), without clipping."""
    signal, before, sigma = coefficients
    none = torch.zeros_like(signal)
    of_predicted = (1 - before - sigma.square()).sqrt()
    of_clean = (signal.rsqrt(), -((1 - signal) / signal).sqrt())
    return torch.stack((*of_clean, before.sqrt(), none, of_predicted, none), 1)


def ddim_steps_taken(schedule: CosineSchedule, *, steps: int) -> list[int]:
    """`steps` of the schedule's, in increasing order.

    Raises:
        InputError: if they do not divide the schedule's.
    """
    if not 1 <= steps <= schedule.steps or schedule.steps % steps:
        fitting = [n for n in range(1, schedule.steps + 1) if schedule.steps % n == 0]
        raise InputError(f"DDIM steps: {steps} do not divide the schedule's {schedule.steps}; possible: {fitting}")
    stride = schedule.steps // steps
    # The published code starts one step later, unless it takes every step.
    return list(range(1 if stride > 1 else 0, schedule.steps, stride))
