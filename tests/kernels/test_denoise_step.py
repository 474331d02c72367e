"""A sampler's step is that of DDPM and of DDIM; known answers."""

import pytest
import torch

from nnunet_difftumor.generative.diffusion.samplers import (
    ddim_coefficients,
    ddim_factors,
    ddim_step,
    ddpm_factors,
    ddpm_step,
)
from nnunet_difftumor.generative.diffusion.schedule import CosineSchedule
from nnunet_difftumor.kernels import denoise_step


def volumes(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 2, 4, 5, generator=generator) for _ in range(count)]


def test_known_answer():
    z, predicted, noise = (torch.full((1, 1, 1, 1, 1), value) for value in (3.0, 2.0, 10.0))
    coefficients = torch.tensor([2.0, -1.0, 7.0, 0.5, 0.25, 0.1])
    # The clean latent is 2 * 3 - 2 = 4, or 1.
    assert denoise_step(z, predicted, noise, coefficients=coefficients, clip=False).item() == 28 + 1.5 + 0.5 + 1
    assert denoise_step(z, predicted, noise, coefficients=coefficients, clip=True).item() == 7 + 1.5 + 0.5 + 1
    assert denoise_step(z, predicted, None, coefficients=coefficients, clip=True).item() == 7 + 1.5 + 0.5


@pytest.mark.parametrize("step", range(4))
def test_ddpm(step):
    schedule, (z, predicted, noise) = CosineSchedule(4), volumes(3)
    expected = ddpm_step(z, predicted, noise, schedule=schedule, step=step)
    factors, drawn = ddpm_factors(schedule)[step], noise if step else None
    torch.testing.assert_close(denoise_step(z, predicted, drawn, coefficients=factors, clip=True), expected)


@pytest.mark.parametrize("number", range(5))
def test_ddim(number):
    coefficients = ddim_coefficients(CosineSchedule(200), steps=5, eta=0.0)
    z, predicted = volumes(2)
    expected = ddim_step(z, predicted, coefficients=coefficients, number=number)
    factors = ddim_factors(coefficients)[number]
    seen = denoise_step(z, predicted, None, coefficients=factors, clip=False)
    torch.testing.assert_close(seen, expected, rtol=1e-5, atol=1e-5)
