"""How dark tumors of the preset `realistic` are: as drawn, and as measured on the rendered scan."""

import numpy as np
import pytest
from tumors import LIVER, copy_of, liver_scan, measured, spec

from nnunet_difftumor.synthesis.look.contrast import CONTRASTS, LEAST_CONTRAST_HU, tissue_contrast_hu
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.placement.sampler import TumorSampler
from nnunet_difftumor.synthesis.scene import insert_tumors
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM


def drawn_hu(organ: str, organ_hu: float, *, size: str = "small", count: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([CONTRASTS[organ].draw_hu(size, organ_hu=organ_hu, rng=rng) for _ in range(count)])


@pytest.mark.parametrize(
    ("organ", "organ_hu", "median"),
    # Portal venous liver: metastases of 3D-IRCADb-01. Pancreas: 60 +- 25 HU in six of seven, 7 in the others.
    [("liver", 113, (-38, -30)), ("pancreas", 115, (-60, -40)), ("kidney", 180, (-80, -50))],
)
def test_usual_contrast_is_that_of_published_lesions(organ, organ_hu, median):
    assert median[0] <= np.median(drawn_hu(organ, organ_hu)) <= median[1]


def test_a_portal_venous_liver_has_few_faint_and_fewer_bright_tumors():
    hu = drawn_hu("liver", 113)
    assert -58 <= np.quantile(hu, 0.1) <= -48 and -20 <= np.quantile(hu, 0.9) <= -12
    assert np.mean((hu > -0.181 * 93) & (hu < 0)) == pytest.approx(0.1, abs=0.03)
    assert np.mean(hu > 0) == pytest.approx(0.02, abs=0.01)


def test_contrast_follows_the_phase():
    portal, native = drawn_hu("liver", 113), drawn_hu("liver", 57)
    assert np.median(native) == pytest.approx(np.median(portal) * 37 / 93, abs=0.5)
    # Not even in tissue below that of tumors without contrast agent is a tumor invisible.
    assert max(hu for hu in drawn_hu("liver", 10) if hu < 0) == -LEAST_CONTRAST_HU


def test_isoattenuating_tumors_of_the_pancreas_are_mostly_small():
    faint = {size: np.mean(drawn_hu("pancreas", 115, size=size) > -17.2) for size in SIZE_BANDS_MM}
    assert faint["small"] > faint["medium"] + 0.1 > faint["large"] + 0.1


@pytest.mark.parametrize("radius_mm", [3.0, 5.0, 9.0, 18.0])
@pytest.mark.parametrize("edge_blur_mm", [0.6, 1.2])
def test_a_ball_is_measured_with_the_contrast_that_was_asked_for(radius_mm, edge_blur_mm):
    """The blurred edge is counted: the tissue is darker by what it takes away."""
    tissue_hu = tissue_contrast_hu(-40.0, radius_mm=radius_mm, edge_blur_mm=edge_blur_mm)
    assert -40 / 0.6 < tissue_hu < -40
    ball = spec(
        centre_mm=(30.0,) * 3,
        semi_axes_mm=(radius_mm,) * 3,
        edge_blur_mm=edge_blur_mm,
        contrast_hu=tissue_hu,
        texture_sd_hu=0.0,
        deformation_mm=0.0,
    )
    volume = liver_scan(60.0, sd_hu=0.0)
    (rendered,) = insert_tumors(volume, [ball], LIVER)
    assert rendered.measured_contrast_hu() == pytest.approx(-40.0, abs=3.5)


@pytest.mark.parametrize("size", list(SIZE_BANDS_MM))
def test_whole_tumors_of_every_size_are_measured_alike(size):
    """About -35 HU at 113 HU, in the mask against the liver around."""
    scan = liver_scan(110.0, mean_hu=113.0, sd_hu=8.0)
    statistics = measured(scan)
    sampler, rng = TumorSampler(LIVER, PRESETS["realistic"]), np.random.default_rng(0)
    contrasts = []
    for _ in range(24):
        placement = sampler.sample(scan, statistics, rng, size=size)
        (rendered,) = insert_tumors(copy_of(scan), [placement.spec], LIVER)
        contrasts.append(rendered.measured_contrast_hu())
    assert -45 < np.median(contrasts) < -25
