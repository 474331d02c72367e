from dataclasses import replace

import cc3d
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.ndimage import center_of_mass, distance_transform_edt, gaussian_filter, maximum_filter
from tumors import GRIDS_MM, grid_of, spec, specs, unit_quaternion

from nnunet_difftumor.synthesis.shape.field import radial_field
from nnunet_difftumor.synthesis.shape.profile import _keep_one_component, _within, alpha_in, mask_in
from nnunet_difftumor.synthesis.shape.survey import region_of, survey
from nnunet_difftumor.synthesis.volume import axes_mm, whole

EDGE_MM = 40.0


def alpha_everywhere(tumor, spacing_mm, organ=None, edge_mm=EDGE_MM):
    shape = grid_of(edge_mm, spacing_mm)
    return alpha_in(tumor, whole(shape), spacing_mm, np.ones(shape, bool) if organ is None else organ)


def components(mask) -> int:
    return cc3d.connected_components(mask.astype(np.uint8), connectivity=6, return_N=True)[1]


@pytest.mark.parametrize("spacing_mm", GRIDS_MM)
def test_radial_field_of_a_ball_is_distance_over_radius(spacing_mm):
    tumor = spec(semi_axes_mm=(8.0, 8.0, 8.0), rotation=unit_quaternion((1, 2, 3, 4)))
    axes = axes_mm(whole(grid_of(EDGE_MM, spacing_mm)), spacing_mm)
    distance = np.sqrt(sum((axis - 20) ** 2 for axis in np.meshgrid(*axes, indexing="ij")))
    np.testing.assert_allclose(radial_field(tumor, axes), distance / 8, atol=1e-5)


def test_rotation_turns_the_longest_axis():
    half = np.sqrt(0.5)
    # A quarter turn around x (w, z, y, x) takes the array's z to y.
    tumor = spec(semi_axes_mm=(9.0, 3.0, 3.0), rotation=(half, 0.0, 0.0, half), centre_mm=(0.0, 0.0, 0.0))
    field = radial_field(tumor, [np.array([0.0, 9.0]), np.array([0.0, 9.0]), np.array([0.0, 9.0])])
    assert field[0, 1, 0] == pytest.approx(1, abs=1e-5)
    assert field[1, 0, 0] == pytest.approx(3, abs=1e-5)
    assert field[0, 0, 1] == pytest.approx(3, abs=1e-5)


def test_alpha_across_the_edge_is_the_blurred_step():
    spacing_mm = (0.5, 0.5, 0.5)
    tumor = spec(semi_axes_mm=(14.0, 14.0, 14.0), edge_blur_mm=1.0)
    alpha = alpha_everywhere(tumor, spacing_mm)
    shape = alpha.shape
    axes = np.meshgrid(*axes_mm(whole(shape), spacing_mm), indexing="ij")
    distance = np.sqrt(sum((axis - 20) ** 2 for axis in axes))
    share_inside = ((14 - distance) / 0.5 + 0.5).clip(0, 1)
    blurred = gaussian_filter(share_inside, 1.0 / 0.5)
    assert np.abs(alpha - blurred).max() < 0.04  # what the curvature of 1/14 mm makes of it
    along_z = alpha[:, 40, 40]
    assert along_z[40 - 28] == pytest.approx(0.5, abs=0.01)  # on the surface
    assert along_z[40 - 30] == pytest.approx(0.159, abs=0.01)  # one standard deviation outside
    assert along_z[40 - 26] == pytest.approx(0.841, abs=0.01)  # and inside


def test_thick_slices_get_their_partial_volume():
    tumor = spec(centre_mm=(20.0, 20.0, 20.0), semi_axes_mm=(11.0, 11.0, 11.0), edge_blur_mm=0.6)
    alpha = alpha_everywhere(tumor, (5.0, 1.0, 1.0))[:, 20, 20]
    # The slice at 30 mm spans 27.5 to 32.5 and the tumor ends at 31: 70 % of the voxel. The next is outside.
    assert 0.6 < alpha[6] < 0.85
    assert alpha[7] < 0.05


@settings(max_examples=50, deadline=None)
@given(tumor=specs(), spacing_mm=st.sampled_from(GRIDS_MM))
def test_the_mask_is_one_component_with_peak_one_and_a_near_edge(tumor, spacing_mm):
    alpha = alpha_everywhere(tumor, spacing_mm, edge_mm=46.0)
    assume(alpha.any())  # a small one may fall between voxels
    assert alpha.dtype == np.float32
    assert alpha.min() >= 0
    assert alpha.max() == 1
    mask = alpha >= 0.5
    assert mask.any()
    assert components(mask) == 1
    # Distance between voxels as boxes: what touches the mask's voxels is at 0, however thick the slices.
    gap_mm = distance_transform_edt(~maximum_filter(mask, 3), sampling=spacing_mm)
    assert gap_mm[alpha > 0].max() <= 3 * tumor.edge_blur_mm + 1e-4


@settings(max_examples=40, deadline=None)
@given(tumor=specs(), spacing_mm=st.sampled_from(GRIDS_MM), seed=st.integers(0, 2**32 - 1))
def test_the_mask_is_inside_whatever_the_organ_looks_like(tumor, spacing_mm, seed):
    shape = grid_of(46.0, spacing_mm)
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.standard_normal(shape), 3 / np.asarray(spacing_mm))
    organ = noise > np.quantile(noise, rng.uniform(0.05, 0.95))
    alpha = alpha_everywhere(tumor, spacing_mm, organ, edge_mm=46.0)
    assert not alpha[~organ].any()
    mask = alpha >= 0.5
    assert components(mask) == int(alpha.any())
    if alpha.any():
        assert alpha.max() == 1
        gap_mm = distance_transform_edt(~maximum_filter(mask, 3), sampling=spacing_mm)
        assert gap_mm[alpha > 0].max() <= 3 * tumor.edge_blur_mm + 1e-4


def test_of_two_pieces_the_larger_is_kept():
    shape = grid_of(EDGE_MM, (1, 1, 1))
    organ = np.ones(shape, bool)
    organ[16:19] = False  # cuts the ball of 12 to 28 mm along z: 4 slices below, 10 above
    alpha = alpha_everywhere(spec(), (1, 1, 1), organ)
    assert not alpha[:16].any()
    assert (alpha[19:] >= 0.5).any()


def test_nothing_in_the_organ_gives_nothing():
    shape = grid_of(EDGE_MM, (1, 1, 1))
    assert not alpha_everywhere(spec(), (1, 1, 1), np.zeros(shape, bool)).any()
    away = spec(centre_mm=(200.0, 20.0, 20.0))
    box = region_of(away, shape, (1, 1, 1))
    assert alpha_in(away, box, (1, 1, 1), np.ones(shape, bool)[box]).size == 0


@settings(max_examples=60, deadline=None)
@given(tumor=specs(), spacing_mm=st.sampled_from(GRIDS_MM))
def test_the_region_holds_everything_that_changes(tumor, spacing_mm):
    everywhere = alpha_everywhere(tumor, spacing_mm, edge_mm=46.0)
    assume(everywhere.any())  # a small one may fall between voxels
    box = region_of(tumor, everywhere.shape, spacing_mm)
    alpha = alpha_in(tumor, box, spacing_mm, np.ones([part.stop - part.start for part in box], bool))
    outside = everywhere.copy()
    outside[box] = 0
    assert not outside.any()
    np.testing.assert_allclose(alpha, everywhere[box], atol=1e-5)
    distance = np.linalg.norm(np.argwhere(everywhere > 0) * spacing_mm - np.array(tumor.centre_mm), axis=1)
    assert distance.max() <= survey(tumor).reach_mm + np.linalg.norm(spacing_mm)


@settings(max_examples=30, deadline=None)
@given(tumor=specs(radius_mm=(6, 12)))
def test_volume_and_centre_are_the_same_on_every_grid(tumor):
    found = {}
    for spacing_mm in ((0.8, 0.8, 0.8), (2.0, 2.0, 2.0), (3.0, 0.9, 0.9), (1.0, 3.0, 1.5)):
        mask = alpha_everywhere(tumor, spacing_mm, edge_mm=46.0) >= 0.5
        centre = np.multiply(center_of_mass(mask), spacing_mm)
        found[spacing_mm] = np.count_nonzero(mask) * np.prod(spacing_mm), centre
    volume, centre = found.pop((0.8, 0.8, 0.8))
    for spacing_mm, (other_volume, other_centre) in found.items():
        # Counting voxel centres: a few percent of some hundred voxels; the smallest have about 30 on the coarse grid.
        counting = 0.12 * volume + 8 * np.prod(spacing_mm)
        assert abs(other_volume - volume) < counting, spacing_mm
        assert np.abs(other_centre - centre).max() < 0.5 * max(spacing_mm), spacing_mm


@settings(max_examples=30, deadline=None)
@given(tumor=specs(radius_mm=(6, 12)))
def test_the_survey_gives_the_volume(tumor):
    mask = alpha_everywhere(tumor, (0.8, 0.8, 0.8), edge_mm=46.0) >= 0.5
    assert survey(tumor).volume_mm3 == pytest.approx(np.count_nonzero(mask) * 0.8**3, rel=0.04)


def test_the_survey_of_an_ellipsoid_is_its_volume_and_extent():
    tumor = spec(semi_axes_mm=(12.0, 6.0, 3.0), edge_blur_mm=1.0)
    found = survey(tumor)
    assert found.volume_mm3 == pytest.approx(4 / 3 * np.pi * 12 * 6 * 3, rel=0.02)
    np.testing.assert_array_less(np.array([12.0, 6, 3]) + 2.5, found.half_extents_mm[0])
    np.testing.assert_array_less(found.half_extents_mm[0], np.array([12.0, 6, 3]) + 3 + 1.5)
    # The far end of the long axis counts, wherever it points.
    turned = replace(tumor, rotation=unit_quaternion((1, 0.1, 0.5, 0.6)))
    assert survey(turned).reach_mm >= 12 + 2.5
    assert survey(turned).half_extents_mm.max() < 12 + 2.5


def test_deformation_keeps_its_strength_on_average():
    displaced = []
    for seed in range(40):
        tumor = spec(deformation_mm=1.0, seed=seed, centre_mm=(0.0, 0.0, 0.0), semi_axes_mm=(8.0, 8.0, 8.0))
        # At the centre the field is |displacement| / radius.
        displaced.append(radial_field(tumor, [np.zeros(1)] * 3).item() * 8)
    # A vector of three components of standard deviation 1 has a mean square of 3.
    assert np.mean(np.square(displaced)) == pytest.approx(3, rel=0.35)


def test_what_becomes_visible_when_a_brighter_piece_goes_is_looked_at_again():
    alpha = np.zeros((1, 1, 12), np.float32)
    alpha[0, 0, :2] = 1.0, 0.4
    alpha[0, 0, 4:7] = 0.6, 0.6, 0.6  # the largest, but fainter
    alpha[0, 0, 8:10] = 0.45, 0.2  # above half only after 0.6 has become 1
    mask = _keep_one_component(alpha)
    np.testing.assert_array_equal(np.flatnonzero(mask), [4, 5, 6])
    np.testing.assert_allclose(alpha[0, 0, 4:7], 1)
    assert components(alpha >= 0.5) == 1


@settings(max_examples=20, deadline=None)
@given(tumor=specs(), spacing_mm=st.sampled_from(GRIDS_MM), seed=st.integers(0, 2**32 - 1))
def test_the_quick_mask_is_that_of_alpha(tumor, spacing_mm, seed):
    shape = grid_of(46.0, spacing_mm)
    organ = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2) > 0
    box = region_of(tumor, shape, spacing_mm)
    alpha = alpha_in(tumor, box, spacing_mm, organ[box])
    np.testing.assert_array_equal(mask_in(tumor, box, spacing_mm, organ[box]), alpha >= 0.5)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from(GRIDS_MM), st.floats(0, 6))
def test_voxels_within_reach_are_those_at_that_distance(seed, spacing_mm, reach_mm):
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 14, 3)) < 0.03
    assume(mask.any())
    apart_mm = distance_transform_edt(~mask, sampling=spacing_mm)
    assume((abs(apart_mm - reach_mm) > 1e-4).all())
    assert np.array_equal(_within(mask, reach_mm, spacing_mm), apart_mm <= reach_mm)


def test_voxels_right_at_the_reach_are_within():
    mask = np.zeros((1, 1, 12), bool)
    mask[0, 0, 2] = True
    assert np.flatnonzero(_within(mask, 3 * 0.9, (0.9,) * 3)).tolist() == [0, 1, 2, 3, 4, 5]
