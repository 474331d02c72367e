"""Presets of the ablation of Hu et al. (Table 4): one step of the shape is left out, everything else is as it was."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from scipy.spatial.transform import Rotation

from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.shape.profile import alpha_in
from nnunet_difftumor.synthesis.shape.survey import region_of

# What the preset looks at.
STATISTICS = SimpleNamespace(parenchyma_hu=110.0, parenchyma_sd_hu=12.0)
SHAPE, SPACING_MM = (60, 60, 60), (1.0, 1.0, 1.0)


def drawn(preset: str, seed: int):
    spec = PRESETS[preset].draw("liver", "medium", statistics=STATISTICS, rng=np.random.default_rng(seed))
    return replace(spec, centre_mm=(30.0, 30.0, 30.0))


def alpha_of(spec) -> np.ndarray:
    box = region_of(spec, SHAPE, SPACING_MM)
    found = np.zeros(SHAPE, np.float32)
    found[box] = alpha_in(spec, box, SPACING_MM, np.ones(SHAPE, bool)[box])
    return found


@pytest.mark.parametrize("seed", range(5))
def test_only_the_step_that_is_left_out_differs(seed):
    whole = drawn("hu2023", seed)
    sharp_mm = drawn("hu2023_sharp", seed).edge_blur_mm
    assert whole.deformation_mm > 1 and whole.edge_blur_mm >= 0.6 and sharp_mm < 0.01
    assert drawn("hu2023_undeformed", seed) == replace(whole, deformation_mm=0.0)
    assert drawn("hu2023_sharp", seed) == replace(whole, edge_blur_mm=sharp_mm)
    assert drawn("hu2023_ellipsoid", seed) == replace(whole, deformation_mm=0.0, edge_blur_mm=sharp_mm)


def ellipsoid(spec) -> np.ndarray:
    """Its voxels, by the equation."""
    turned = Rotation.from_quat(spec.rotation, scalar_first=True)
    along = turned.inv().apply((np.moveaxis(np.indices(SHAPE), 0, -1) - 30.0).reshape(-1, 3))
    return (((along / spec.semi_axes_mm) ** 2).sum(-1) <= 1).reshape(SHAPE)


def test_an_undeformed_tumor_is_an_ellipsoid_and_a_whole_one_is_not():
    for seed in range(3):
        expected = ellipsoid(drawn("hu2023_ellipsoid", seed))
        shell = np.sum(expected) - np.sum(binary_erosion(expected))
        wrong = {
            name: np.sum((alpha_of(drawn(name, seed)) >= 0.5) ^ expected) for name in ("hu2023_ellipsoid", "hu2023")
        }
        assert wrong["hu2023_ellipsoid"] < 0.1 * shell < 0.5 * shell < wrong["hu2023"]


def test_a_sharp_edge_is_the_partial_volume_of_voxels_alone():
    for seed in range(3):
        partial = {
            name: np.sum((alpha_of(drawn(name, seed)) > 0.05) & (alpha_of(drawn(name, seed)) < 0.95))
            for name in ("hu2023", "hu2023_sharp")
        }
        assert partial["hu2023_sharp"] < 0.6 * partial["hu2023"]
