"""The control of experiments: masks to the voxel those of `realistic`, and nothing that looks like a tumor."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from nnunet_difftumor import synthesize_arrays
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM


@pytest.mark.parametrize("size", SIZE_BANDS_MM)
def test_masks_are_those_of_realistic_and_tumors_are_bright_and_even(size):
    z, y, x = np.ogrid[:60, :90, :90]
    body = ((z - 30) / 45) ** 2 + ((y - 45) / 44) ** 2 + ((x - 45) / 44) ** 2 <= 1
    liver = ((z - 30) / 26) ** 2 + ((y - 45) / 34) ** 2 + ((x - 45) / 34) ** 2 <= 1
    hu = np.where(liver, 110.0, np.where(body, -90.0, -1000.0)) + np.random.default_rng(0).normal(0, 12, body.shape)
    made = {
        preset: synthesize_arrays(
            hu.astype(np.float32),
            liver.astype(np.uint8),
            spacing_mm=(2.5, 1.5, 1.5),
            organ="liver",
            organ_label=1,
            preset=preset,
            size=size,
            seed=4,
        )
        for preset in ("realistic", "placebo")
    }
    real, placebo = made["realistic"], made["placebo"]
    assert real.mask.any() and np.array_equal(real.mask, placebo.mask)
    for one, other in zip(real.specs, placebo.specs, strict=True):
        assert other.contrast_hu == -one.contrast_hu
        assert (one.centre_mm, one.semi_axes_mm, one.seed) == (other.centre_mm, other.semi_axes_mm, other.seed)
    inside = placebo.mask > 0
    assert placebo.hu[inside].mean() > 110 > real.hu[inside].mean()
    if size == "large":
        middle = binary_erosion(inside, iterations=3)  # without edges
        assert placebo.hu[middle].std() < 2 < real.hu[middle].std()
