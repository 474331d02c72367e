"""Schedules and samplers give what the public code gives with the same noise."""

import parity
import pytest
import torch

from nnunet_difftumor.generative.diffusion.samplers import ddim_coefficients, ddim_steps_taken, sample_ddim, sample_ddpm
from nnunet_difftumor.generative.diffusion.schedule import CosineSchedule

FIXTURES = [(8, "unet_dim8_8"), (24, "unet_dim24_8"), (24, "unet_dim24_nonsquare"), (24, "unet_dim24_24")]
BUFFERS = {
    "betas": "betas",
    "alphas_cumprod": "signal",
    "alphas_cumprod_prev": "signal_before",
    "sqrt_alphas_cumprod": "sqrt_signal",
    "sqrt_one_minus_alphas_cumprod": "sqrt_noise",
    "sqrt_recip_alphas_cumprod": "sqrt_inverse_signal",
    "sqrt_recipm1_alphas_cumprod": "sqrt_inverse_signal_minus_1",
    "posterior_variance": "posterior_variance",
    "posterior_mean_coef1": "clean_weight",
    "posterior_mean_coef2": "noisy_weight",
}


def recorded(noises):
    return iter(parity.tensor(noises)).__next__


@pytest.fixture(scope="module")
def models():
    return {channels: parity.unet(channels) for channels in (8, 24)}


def denoiser(model, arrays):
    condition = parity.tensor(arrays["in/cond"])
    return lambda noisy, steps: model(noisy, steps, condition=condition)


@pytest.mark.parametrize("steps", [1, 4, 10, 50, 200])
def test_every_value_of_the_cosine_schedule(steps):
    arrays, schedule = parity.load("schedules"), CosineSchedule(steps)
    for published, own in BUFFERS.items():
        expected = parity.tensor(arrays[f"T{steps}/{published}"])
        torch.testing.assert_close(getattr(schedule, own), expected, rtol=1e-6, atol=1e-9)
    logarithm = (1 - schedule.signal.double()).log().float()
    expected = parity.tensor(arrays[f"T{steps}/log_one_minus_alphas_cumprod"])
    torch.testing.assert_close(logarithm, expected, rtol=1e-4, atol=1e-7)
    deviation = schedule.posterior(torch.zeros(steps, 1), torch.zeros(steps, 1), steps=torch.arange(steps))[1][:, 0]
    expected = parity.tensor(arrays[f"T{steps}/posterior_log_variance_clipped"])
    torch.testing.assert_close(2 * deviation.log(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("total", "steps"), [(200, 4), (200, 50), (200, 20), (4, 4), (50, 10)])
@pytest.mark.parametrize("eta", [0, 1])
def test_coefficients_of_ddim(total, steps, eta):
    arrays = parity.load("schedules")
    schedule = CosineSchedule(total)
    coefficients = ddim_coefficients(schedule, steps=steps, eta=eta)
    prefix = f"ddim/T{total}_S{steps}_eta{eta}"
    assert ddim_steps_taken(schedule, steps=steps) == arrays[f"{prefix}/timesteps"].tolist()
    for name, found in zip(("alphas", "alphas_prev", "sigmas"), coefficients, strict=True):
        torch.testing.assert_close(found, parity.tensor(arrays[f"{prefix}/{name}"]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("channels", "name"), FIXTURES)
@torch.no_grad()
def test_single_steps_forwards_and_backwards(models, channels, name):
    arrays, schedule = parity.load(name), CosineSchedule(4)
    noisy, clean, noise = (parity.tensor(arrays[f"in/{key}"]) for key in ("x", "x0", "noise"))
    denoise = denoiser(models[channels], arrays)
    for step in range(4):
        steps = torch.tensor([step])
        parity.assert_close(schedule.add_noise(clean, noise, steps=steps), arrays[f"out/q_sample_t{step}"])
        parity.assert_close(schedule.clean(noisy, noise, steps=steps), arrays[f"out/x0_from_eps_t{step}"])
        found = schedule.clean(noisy, denoise(noisy, steps), steps=steps)
        mean, deviation = schedule.posterior(found.clamp(-1, 1), noisy, steps=steps)
        # Nearly pure noise: the signal's inverse, 263, makes 1e-6 in the noise up to 1e-5 in the recorded mean itself.
        tolerance = 3e-5 if step == 3 else parity.TOLERANCE
        parity.assert_close(mean, arrays[f"out/p_mean_t{step}"], f"mean {step}", tolerance=tolerance)
        drawn = mean + deviation * noise if step else mean
        parity.assert_close(drawn, arrays[f"out/p_sample_t{step}"], f"sample {step}", tolerance=tolerance)
        mean, deviation = schedule.posterior(clean, noisy, steps=steps)
        parity.assert_close(mean, arrays[f"out/q_posterior_mean_t{step}"], f"posterior {step}")
        assert schedule.posterior_variance[step].item() == pytest.approx(arrays[f"out/q_posterior_var_t{step}"].item())
        assert 2 * deviation.log().item() == pytest.approx(arrays[f"out/q_posterior_logvar_t{step}"].item(), rel=1e-5)


@pytest.mark.parametrize(("channels", "name"), [FIXTURES[0], FIXTURES[1], FIXTURES[3]])
def test_ddpm_with_recorded_noise(models, channels, name):
    arrays = parity.load(name)
    noise = recorded(arrays["in/loop_noises"])
    found = sample_ddpm(denoiser(models[channels], arrays), CosineSchedule(4), noise)
    parity.assert_close(found, arrays["out/p_sample_loop"])


@pytest.mark.parametrize(("channels", "name"), [FIXTURES[0], FIXTURES[1], FIXTURES[3]])
def test_ddim_with_recorded_noise(models, channels, name):
    arrays, schedule = parity.load(name), CosineSchedule(200)
    start, denoise, trajectory = parity.tensor(arrays["in/ddim_xT"]), denoiser(models[channels], arrays), []
    found = sample_ddim(denoise, schedule, lambda: start, steps=4, on_step=trajectory.append)
    parity.assert_close(found, arrays["out/ddim_T200_S4_eta0"])
    parity.assert_close(torch.stack([start, *trajectory]), arrays["out/ddim_T200_S4_eta0_steps"])
    if "out/ddim_T200_S50_eta0" in arrays:
        found = sample_ddim(denoise, schedule, lambda: start, steps=50)
        parity.assert_close(found, arrays["out/ddim_T200_S50_eta0"], "50 steps")
    if "in/ddim_eta1_noises" in arrays:
        noises = iter([start, *parity.tensor(arrays["in/ddim_eta1_noises"])])
        found = sample_ddim(denoise, schedule, noises.__next__, steps=4, eta=1)
        parity.assert_close(found, arrays["out/ddim_T200_S4_eta1"], "eta 1")
