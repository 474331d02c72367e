"""Surface distances equal those of DeepMind's library, and answers known by geometry."""

import numpy as np
import pytest
import surface_distance as library
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_difftumor.evaluation.measures.masks import mask_figures
from nnunet_difftumor.evaluation.measures.surfaces import surface_distances

SIZES = st.floats(0.3, 6.0)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.tuples(SIZES, SIZES, SIZES), st.floats(0.05, 0.9))
def test_distances_areas_and_figures_are_those_of_the_library(seed, spacing_mm, density):
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 9, 3)
    truth, prediction = (rng.random(shape) < density for _ in range(2))
    truth.flat[0] = prediction.flat[-1] = True
    ours = surface_distances(truth, prediction, spacing_mm)
    theirs = library.compute_surface_distances(truth, prediction, spacing_mm)
    for key in ("distances_gt_to_pred", "distances_pred_to_gt"):
        np.testing.assert_allclose(ours[key], theirs[key], atol=1e-9)
    for key in ("surfel_areas_gt", "surfel_areas_pred"):
        np.testing.assert_allclose(np.sort(ours[key]), np.sort(theirs[key]))
    for tolerance_mm in (0.0, 1.0, 2.5):
        of_library = library.compute_surface_dice_at_tolerance(theirs, tolerance_mm + 1e-9)
        assert library.compute_surface_dice_at_tolerance(ours, tolerance_mm + 1e-9) == pytest.approx(of_library)
    assert library.compute_robust_hausdorff(ours, 100) == pytest.approx(library.compute_robust_hausdorff(theirs, 100))


def box(start, stop) -> np.ndarray:
    mask = np.zeros((24, 30, 30), bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


@pytest.mark.parametrize(("axis", "spacing_mm"), [(0, (5.0, 1.0, 1.0)), (1, (2.0, 0.7, 1.0)), (2, (1.0, 1.0, 1.6))])
@pytest.mark.parametrize("voxels", [0, 1, 3])
def test_hd95_of_a_flat_plate_that_moves_along_its_normal_is_the_way(axis, spacing_mm, voxels):
    # The plate is thin: nearly all its surface looks along the axis, and moves by as many voxels.
    start, stop = [2, 2, 2], [22, 28, 28]
    start[axis], stop[axis] = 4, 5
    moved = [n + (voxels if i == axis else 0) for i, n in enumerate(start)]
    end = [n + (voxels if i == axis else 0) for i, n in enumerate(stop)]
    found = mask_figures(box(start, stop), box(moved, end), spacing_mm=spacing_mm, nsd_tolerance_mm=2.0)
    # From 2 voxels on the near side of one plate is nearer to the far side of the other.
    assert found.hd95_mm == pytest.approx(voxels * spacing_mm[axis])


def test_hd95_and_volumes_of_concentric_balls():
    grid = np.ogrid[:41, :61, :61]
    spacing_mm = (1.5, 1.0, 1.0)

    def ball(radius_mm):
        return sum(((a - c) * s) ** 2 for a, c, s in zip(grid, (20, 30, 30), spacing_mm, strict=True)) <= radius_mm**2

    found = mask_figures(ball(12), ball(18), spacing_mm=spacing_mm, nsd_tolerance_mm=2.0)
    assert found.hd95_mm == pytest.approx(6, abs=1.0)
    assert found.truth_ml == pytest.approx(4 / 3 * np.pi * 1.2**3, rel=0.03)
    assert found.predicted_ml == pytest.approx(4 / 3 * np.pi * 1.8**3, rel=0.03)
    assert found.dsc == pytest.approx(2 * 12**3 / (12**3 + 18**3), rel=0.03)


def test_one_mask_alone_has_no_distance():
    nothing = np.zeros((24, 30, 30), bool)
    for pair in ((box((3, 3, 3), (5, 5, 5)), nothing), (nothing, box((3, 3, 3), (5, 5, 5)))):
        found = mask_figures(*pair, spacing_mm=(1.0, 1.0, 1.0), nsd_tolerance_mm=2.0)
        assert (found.dsc, found.nsd, found.hd95_mm) == (0.0, 0.0, None)
