"""Cosine noise schedule of diffusion (Nichol and Dhariwal, ICML 2021, equation 17), and what follows from it."""

import math

import torch
from torch import nn

from nnunet_difftumor.errors import InputError

OFFSET = 0.008
MAX_BETA = 0.9999
# Below it the logarithm of the posterior's variance is cut: at step 0 that variance is 0.
MIN_VARIANCE = 1e-20


class CosineSchedule(nn.Module):
    """Diffusion in `steps` steps; step t counts from 0, the last one is nearly pure noise.

    Computed in float64, kept in float32; nothing of it is stored with the weights but the number of steps.

    Attributes:
        betas: (steps,), variance that each step adds.
        signal: (steps,), product of (1 - beta) up to the step; alpha-bar in the papers.
        signal_before: (steps,), the same before the step; 1 at step 0.
        posterior_variance: (steps,), of z_{t-1} given z_t and the clean latent.
        clean_weight: (steps,), of the clean latent in the mean of that posterior.
        noisy_weight: (steps,), of z_t in it.
    """

    def __init__(self, steps: int):
        super().__init__()
        if not isinstance(steps, int) or steps < 1:
            raise InputError(f"diffusion steps: expected a whole number above 0, got {steps}")
        self.steps = steps
        share = torch.arange(steps + 1, dtype=torch.float64) / steps
        curve = torch.cos((share + OFFSET) / (1 + OFFSET) * (math.pi / 2)).square()
        betas = (1 - curve[1:] / curve[:-1]).clamp(0, MAX_BETA)
        signal = (1 - betas).cumprod(0)
        before = torch.cat((torch.ones(1, dtype=torch.float64), signal[:-1]))
        values = {
            "betas": betas,
            "signal": signal,
            "signal_before": before,
            "posterior_variance": betas * (1 - before) / (1 - signal),
            "clean_weight": betas * before.sqrt() / (1 - signal),
            "noisy_weight": (1 - before) * (1 - betas).sqrt() / (1 - signal),
            "sqrt_signal": signal.sqrt(),
            "sqrt_noise": (1 - signal).sqrt(),
            "sqrt_inverse_signal": (1 / signal).sqrt(),
            "sqrt_inverse_signal_minus_1": (1 / signal - 1).sqrt(),
        }
        for name, value in values.items():
            self.register_buffer(name, value.float(), persistent=False)

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, *, steps: torch.Tensor) -> torch.Tensor:
        """z_t of a clean latent (b, ...) at steps (b,)."""
        return _at(self.sqrt_signal, steps, clean) * clean + _at(self.sqrt_noise, steps, clean) * noise

    def clean(self, noisy: torch.Tensor, noise: torch.Tensor, *, steps: torch.Tensor | int) -> torch.Tensor:
        """The clean latent of one at steps (b,), or all at one step, if `noise` is what was added; not clipped."""
        inverse = _at(self.sqrt_inverse_signal, steps, noisy)
        return inverse * noisy - _at(self.sqrt_inverse_signal_minus_1, steps, noisy) * noise

    def posterior(
        self, clean: torch.Tensor, noisy: torch.Tensor, *, steps: torch.Tensor | int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean of z_{t-1} given both, and its standard deviation, which broadcasts to it (Ho et al., 2020, eq. 7)."""
        mean = _at(self.clean_weight, steps, noisy) * clean + _at(self.noisy_weight, steps, noisy) * noisy
        return mean, _at(self.posterior_variance.clamp(min=MIN_VARIANCE).sqrt(), steps, noisy)


def _at(values: torch.Tensor, steps: torch.Tensor | int, like: torch.Tensor) -> torch.Tensor:
    """values[steps], shaped to broadcast to `like`."""
    if isinstance(steps, int):
        return values[steps]  # a view, which costs a GPU nothing
    return values[steps].view(-1, *[1] * (like.ndim - 1))
