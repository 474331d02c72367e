import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from nnunet_difftumor.synthesis.look.texture import _raw_matrix, attenuation, grain_texture


@pytest.mark.parametrize("grain_vox", [1.0, 1.1, 1.5, 3.0])
@pytest.mark.parametrize("blur_vox", [0.0, 0.6, 1.5])
def test_texture_has_mean_zero_and_standard_deviation_one_everywhere(grain_vox, blur_vox):
    rng = np.random.default_rng(0)
    grain, blur = [grain_vox] * 3, [blur_vox] * 3
    many = np.stack([grain_texture((24, 25, 26), rng, grain_vox=grain, blur_vox=blur) for _ in range(40)])
    assert many.dtype == np.float32
    assert many.shape == (40, 24, 25, 26)
    assert many.mean() == pytest.approx(0, abs=0.03)
    assert many.std() == pytest.approx(1, abs=0.03)
    # Also at the border and between the grains: standard deviation over the draws, averaged over lines of voxels.
    spread = many.std(0)
    for axis in range(3):
        along = spread.mean(axis=tuple(other for other in range(3) if other != axis))
        np.testing.assert_allclose(along, 1, atol=0.12)


def test_without_grain_and_blur_the_texture_is_white_noise():
    field = grain_texture((30, 30, 30), np.random.default_rng(1), grain_vox=[1.0] * 3, blur_vox=[0.0] * 3)
    for axis in range(3):
        neighbours = np.moveaxis(field, axis, 0)
        assert np.corrcoef(neighbours[1:].ravel(), neighbours[:-1].ravel())[0, 1] == pytest.approx(0, abs=0.03)
    assert attenuation(1.0, 0.0) == pytest.approx(1, abs=1e-6)


def test_a_larger_grain_is_coarser():
    def neighbours_correlation(grain_vox):
        field = grain_texture((40, 40, 40), np.random.default_rng(2), grain_vox=[grain_vox] * 3, blur_vox=[0.6] * 3)
        return np.corrcoef(field[1:].ravel(), field[:-1].ravel())[0, 1]

    assert neighbours_correlation(1.1) < neighbours_correlation(1.5) < neighbours_correlation(3.0)


@pytest.mark.parametrize("blur_vox", [0.6, 1.0, 2.0])
def test_attenuation_of_a_blur_is_that_of_a_gaussian_filter(blur_vox):
    noise = np.random.default_rng(3).standard_normal((90, 90, 90))
    # The mode "wrap" has no border, where less noise is averaged.
    assert attenuation(1.0, blur_vox) == pytest.approx(gaussian_filter(noise, blur_vox, mode="wrap").std(), rel=0.03)


def test_attenuation_with_the_papers_settings():
    # Cubic scaling by 1.1 to 1.5 and a blur of 0.6 voxels leave a third to two fifths of white noise.
    assert 0.3 < attenuation(1.1, 0.6) < attenuation(1.5, 0.6) < 0.5


@pytest.mark.parametrize(("grain_vox", "blur_vox"), [(1.5, 0.0), (1.1, 0.6), (1.3, 0.6), (1.5, 0.6)])
def test_a_spline_leaves_what_scipys_zoom_leaves(grain_vox, blur_vox):
    """Of the noise's standard deviation: 8 % more than cubic convolution, with the paper's settings."""
    noise = np.random.default_rng(5).standard_normal((70, 70, 70))
    expected = gaussian_filter(zoom(noise, grain_vox, order=3), blur_vox)[8:-8, 8:-8, 8:-8].std()
    assert attenuation(grain_vox, blur_vox, spline=True) == pytest.approx(expected, rel=0.03)
    assert attenuation(grain_vox, blur_vox) < 0.95 * attenuation(grain_vox, blur_vox, spline=True)


def test_a_spline_passes_through_its_grains():
    rng = [np.random.default_rng(6) for _ in range(2)]
    spline, other = (
        grain_texture((12, 12, 12), one, grain_vox=[2.0] * 3, blur_vox=[0.0] * 3, spline=kind)
        for one, kind in zip(rng, (True, False), strict=True)
    )
    assert spline.std() == pytest.approx(1, abs=0.2) and not np.allclose(spline, other)
    line = _raw_matrix(12, 2.0, 0.0, True)
    assert np.allclose(np.sort(line[::2], axis=1)[:, -1], 1, atol=1e-4)
    assert np.allclose(np.sort(np.abs(line[::2]), axis=1)[:, :-1], 0, atol=1e-4)


def test_the_same_generator_state_gives_the_same_texture():
    first, second = (
        grain_texture((9, 10, 11), np.random.default_rng(4), grain_vox=[1.3] * 3, blur_vox=[0.6] * 3) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
