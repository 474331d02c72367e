"""Schedule, samplers, noise, and the condition of a masked patch."""

import numpy as np
import pytest
import seeded
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.diffusion.samplers import noise_per_sample, sample_ddim, sample_ddpm
from nnunet_difftumor.generative.diffusion.schedule import CosineSchedule
from nnunet_difftumor.kernels.reference.latent_condition import mask_on_latent_grid

SHAPE = (2, 3, 4, 5)


def noise(*seeds: int):
    return noise_per_sample([np.random.default_rng(seed) for seed in seeds], SHAPE)


@given(st.integers(1, 300))
def test_the_signal_falls_from_nearly_all_to_nearly_nothing(steps):
    schedule = CosineSchedule(steps)
    assert (schedule.signal[1:] < schedule.signal[:-1]).all()
    assert schedule.signal[-1] < 2e-4
    assert (schedule.betas <= 0.9999).all()
    # At step 0 the posterior is the clean latent itself.
    assert schedule.clean_weight[0].item() == pytest.approx(1)
    assert schedule.noisy_weight[0].item() == 0


def test_the_known_schedule_of_four_steps():
    torch.testing.assert_close(
        CosineSchedule(4).betas, torch.tensor([0.152988, 0.416958, 0.707859, 0.9999]), rtol=1e-5, atol=0
    )


def test_noise_that_was_added_can_be_taken_away():
    schedule, clean, drawn = CosineSchedule(50), noise(0)(), noise(1)()
    for step in (0, 20, 45):
        steps = torch.tensor([step])
        noisy = schedule.add_noise(clean, drawn, steps=steps)
        torch.testing.assert_close(schedule.clean(noisy, drawn, steps=steps), clean, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", [sample_ddpm, lambda *a: sample_ddim(*a, steps=10, eta=1.0)])
def test_a_perfect_denoiser_leads_to_the_clean_latent(sampler):
    schedule = CosineSchedule(50)
    target = torch.full((2, *SHAPE), 0.4)

    def denoise(noisy, steps):
        signal = schedule.signal[steps].view(-1, 1, 1, 1, 1)
        return (noisy - signal.sqrt() * target) / (1 - signal).sqrt()

    # DDIM ends at step 0, where a little noise is left.
    torch.testing.assert_close(sampler(denoise, schedule, noise(2, 3)), target, rtol=0, atol=0.2)


@pytest.mark.parametrize("sampler", [sample_ddpm, lambda *a: sample_ddim(*a, steps=2, eta=1.0)])
def test_a_sample_depends_on_its_own_generator_only(sampler):
    schedule = CosineSchedule(4)
    together = sampler(lambda noisy, _: noisy / 2, schedule, noise(4, 5, 6))
    alone = sampler(lambda noisy, _: noisy / 2, schedule, noise(5))
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(together[0], together[1])


def test_ddpm_stays_within_the_codes():
    assert sample_ddpm(lambda noisy, _: -9 * noisy, CosineSchedule(4), noise(7)).abs().max() <= 1


@pytest.mark.parametrize(("steps", "eta"), [(3, 0.0), (0, 0.0), (201, 0.0), (4, 1.5)])
def test_impossible_settings_of_ddim_are_explained(steps, eta):
    with pytest.raises(InputError, match=r"possible|expected"):
        sample_ddim(lambda noisy, _: noisy, CosineSchedule(200), noise(8), steps=steps, eta=eta)


def test_a_generator_for_two_samples_is_refused():
    rng = np.random.default_rng(9)
    with pytest.raises(InputError, match="generators"):
        noise_per_sample([rng, rng], SHAPE)


def test_the_first_voxel_of_a_block_decides_about_the_mask():
    mask = torch.zeros(1, 1, 8, 8, 8, dtype=torch.bool)
    mask[0, 0, 4, 0, 4] = mask[0, 0, 1, 1, 1] = True
    expected = torch.zeros(1, 1, 2, 2, 2, dtype=torch.bool)
    expected[0, 0, 1, 0, 1] = True
    assert torch.equal(mask_on_latent_grid(mask, (4, 4, 4)), expected)


@given(st.integers(0, 7), st.integers(0, 7), st.integers(0, 7))
def test_a_tumor_never_vanishes_on_the_latent_grid(z, x, y):
    mask = torch.zeros(2, 1, 8, 8, 8, dtype=torch.bool)
    mask[1, 0, z, x, y] = True
    on_grid = mask_on_latent_grid(mask, (4, 4, 4))
    assert on_grid.nonzero().tolist() == [[1, 0, z // 4, x // 4, y // 4]]


def test_the_condition_does_not_know_what_is_under_the_mask():
    model, (volume, tumor) = seeded.model(4), seeded.patch()
    with torch.no_grad():
        known = model.condition(volume, tumor)
        assert torch.equal(model.condition(volume.masked_fill(tumor, 0.9), tumor), known)
    assert set(known[:, 8].unique().tolist()) == {-1.0, 1.0}
    assert model.patch_multiples() == (4, 32, 32)


def test_scaled_codes_lie_between_minus_one_and_one():
    model = seeded.model(4)
    codes = model.autoencoder.codebook.embeddings
    scaled = 2 * (codes - model.code_min) / model.code_range - 1
    assert scaled.min() == -1
    assert scaled.max() == 1


def test_an_untrained_autoencoder_is_refused():
    untrained = seeded.autoencoder()
    untrained.codebook.embeddings.zero_()
    with pytest.raises(InputError, match="not trained"):
        LatentDiffusion(untrained, seeded.unet(), steps=4)
