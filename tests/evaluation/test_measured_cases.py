"""Figures of one scan against answers known by geometry."""

import numpy as np
import pytest

from nnunet_difftumor.evaluation.measures.case import Lesion, measure

SHAPE = (40, 60, 60)


def ball(centre_mm, radius_mm: float, spacing_mm=(1.0, 1.0, 1.0)) -> np.ndarray:
    grid = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    squares = [((axis * s) - c) ** 2 for axis, c, s in zip(grid, centre_mm, spacing_mm, strict=True)]
    return sum(squares) <= radius_mm**2


def cube(start: tuple[int, int, int], size: int = 10) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(n, n + size) for n in start)] = True
    return mask


def result(truth, prediction, *, spacing_mm=(1.0, 1.0, 1.0), nsd_tolerance_mm=2.0):
    return measure(truth, prediction, spacing_mm=spacing_mm, nsd_tolerance_mm=nsd_tolerance_mm)


NOTHING = np.zeros(SHAPE, bool)


@pytest.mark.parametrize("shift", [0, 1, 5, 9])
def test_dsc_of_shifted_cubes_is_their_overlap(shift):
    assert result(cube((10, 10, 10)), cube((10, 10, 10 + shift))).dsc == pytest.approx(1 - shift / 10)


@pytest.mark.parametrize(("difference_mm", "nsd"), [(0, 1.0), (1, 1.0), (4, 0.0)])
def test_nsd_of_concentric_balls_is_all_or_nothing(difference_mm, nsd):
    centre = (20, 30, 30)
    assert result(ball(centre, 10), ball(centre, 10 + difference_mm)).nsd == pytest.approx(nsd)


def test_nsd_tolerance_is_in_mm_along_every_axis():
    truth, shifted_in_z = cube((10, 20, 20)), cube((11, 20, 20))
    assert result(truth, shifted_in_z, spacing_mm=(1.5, 1, 1)).nsd == pytest.approx(1.0)
    # Moved by 5 mm, of 2200 mm2 one face (100) and 3 mm of four walls (120) are beyond 2 mm.
    assert result(truth, shifted_in_z, spacing_mm=(5.0, 1, 1)).nsd == pytest.approx(0.9, abs=0.02)


def test_nsd_counts_the_surface_that_is_too_far_away():
    # Of a 10 mm cube (600 mm2) moved by 3 mm, one face (100) and 1 mm of four walls (40) are beyond 2 mm.
    nsd = result(cube((10, 10, 10)), cube((10, 10, 13))).nsd
    assert nsd == pytest.approx(460 / 600, abs=0.05)  # surface elements cut the cube's edges


def test_both_masks_empty_leaves_overlap_undefined():
    found = result(NOTHING, NOTHING)
    assert (found.dsc, found.nsd, found.tumors, found.findings) == (None, None, (), ())


@pytest.mark.parametrize("pair", [(cube((5, 5, 5)), NOTHING), (NOTHING, cube((5, 5, 5)))])
def test_one_mask_empty_is_zero_overlap(pair):
    assert (result(*pair).dsc, result(*pair).nsd) == (0.0, 0.0)


def test_one_overlapping_voxel_detects_a_tumor_and_none_does_not():
    truth = cube((5, 5, 5)) | cube((25, 40, 40))
    prediction = NOTHING.copy()
    prediction[14, 14, 14] = True  # the last corner of the first cube
    found = result(truth, prediction)
    assert [tumor.matched for tumor in found.tumors] == [True, False]
    assert found.false_positives == ()


def test_prediction_that_touches_no_tumor_is_a_false_positive_even_beside_it():
    found = result(cube((5, 5, 5)), cube((5, 5, 15)))  # faces touch, no voxel in common
    assert len(found.false_positives) == 1
    assert not found.tumors[0].matched


def test_components_join_over_corners():
    found = result(cube((5, 5, 5)) | cube((15, 15, 15)), NOTHING)
    assert len(found.tumors) == 1


@pytest.mark.parametrize(
    ("radius_mm", "band", "early"),
    [(2, "under_5mm", True), (4, "tiny", True), (7, "small", True), (13, "medium", False), (25, "large", False)],
)
def test_diameter_and_band_of_a_ball_on_thick_slices(radius_mm, band, early):
    spacing_mm = (2.0, 1.0, 1.0)
    (tumor,) = result(ball((40, 30, 30), radius_mm, spacing_mm), NOTHING, spacing_mm=spacing_mm).tumors
    assert tumor.diameter_mm == pytest.approx(2 * radius_mm, abs=0.7)  # voxels of up to 2 mm
    assert (tumor.band, tumor.is_early) == (band, early)


@pytest.mark.parametrize(("diameter_mm", "band"), [(5.0, "tiny"), (10.0, "small"), (20.0, "medium"), (40.0, "large")])
def test_a_bound_belongs_to_the_band_above(diameter_mm, band):
    assert Lesion(diameter_mm, matched=False).band == band


def test_a_tumor_larger_than_any_band_is_large():
    assert Lesion(200.0, matched=False).band == "large"
