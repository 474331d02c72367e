"""The scan's own noise: measured, kept where tissue is even, and made alike elsewhere."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from nnunet_difftumor.synthesis.noise import Noise, even_tissue, measure_noise, noise_like, noise_under, residual

SPACING_MM = (2.0, 0.8, 0.8)


@pytest.mark.parametrize("correlation", [(0.0, 0.0, 0.0), (0.05, 0.3, 0.5), (0.0, 0.6, 0.6), (0.2, -0.3, 0.1)])
def test_made_noise_has_the_strength_and_the_correlation_that_were_asked_for(correlation):
    field = noise_like(Noise(15.0, correlation), (60, 60, 60), np.random.default_rng(0))
    assert field.dtype == np.float32
    assert field.std() == pytest.approx(15, rel=0.02)
    for axis, expected in enumerate(correlation):
        moved = np.moveaxis(field, axis, 0)
        assert np.corrcoef(moved[1:].ravel(), moved[:-1].ravel())[0, 1] == pytest.approx(expected, abs=0.02)


def test_noise_is_measured_in_even_tissue():
    rng = np.random.default_rng(1)
    hu = 110 + noise_like(Noise(12.0, (0.0, 0.3, 0.3)), (40, 60, 60), rng)
    hu[:, 20:26] = 220  # a vessel
    even = even_tissue(hu, np.ones(hu.shape, bool), SPACING_MM, around_hu=110)
    assert not even[:, 20:26].any()
    assert even[:, 30:].mean() > 0.99
    found = measure_noise(hu, even, SPACING_MM)
    assert found.sd_hu == pytest.approx(12, rel=0.1)
    assert found.correlation[0] == pytest.approx(0, abs=0.1)
    assert found.correlation[1] == pytest.approx(0.3, abs=0.1)


def test_too_little_tissue_gives_no_measurement():
    assert measure_noise(np.zeros((4, 4, 4), np.float32), np.ones((4, 4, 4), bool), SPACING_MM) is None


def test_a_slow_change_of_tissue_is_no_noise():
    hu = np.broadcast_to(np.linspace(100, 120, 60, dtype=np.float32), (30, 60, 60))
    left = residual(hu, np.ones(hu.shape, bool), SPACING_MM)
    assert np.abs(left[:, :, 10:-10]).max() < 0.1


def test_the_scans_own_noise_stays_and_vessels_do_not_shine_through():
    rng = np.random.default_rng(2)
    noise = noise_like(Noise(12.0, (0.0, 0.3, 0.3)), (40, 60, 60), rng)
    hu = 110 + noise
    vessel = np.zeros(hu.shape, bool)
    vessel[:, 20:26, 20:26] = True
    hu[vessel] += 100
    made = noise_under(
        hu, np.ones(hu.shape, bool), SPACING_MM, around_hu=110, noise=Noise(12.0, (0.0, 0.3, 0.3)),
        rng=np.random.default_rng(3),
    )  # fmt: skip
    away = ~gaussian_filter(vessel.astype(np.float32), 3).astype(bool)
    assert np.corrcoef(made[away], noise[away])[0, 1] > 0.93
    assert made[vessel].std() == pytest.approx(12, rel=0.15)
    assert abs(made[vessel].mean()) < 2
