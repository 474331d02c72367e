"""The way from a scan to a network's grid and back: axes, flips, voxel sizes."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.networks.grid import grid_around
from nnunet_difftumor.synthesis.volume import whole

# All 48 ways in which the axes of an array can lie along the patient's.
ORIENTATIONS = [
    np.eye(3)[:, list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
OBLIQUE = nib.eulerangles.euler2mat(0.3, -0.2, 0.4)
PATIENT = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}


def grid_of(centre_mm=(10.0, 11.0, 12.0), **changes):
    values = {
        "extent_mm": (16.0, 16.0, 16.0),
        "spacing_mm": (1.0, 1.0, 1.0),
        "direction": np.eye(3)[:, ::-1],
        "axes": "SRA",
        "network_spacing_mm": (1.0, 1.0, 1.0),
        "least_size": (1, 1, 1),
        "multiples": (2, 4, 4),
    }
    return grid_around(centre_mm, **values | changes)


def covered(grid, shape) -> list[np.ndarray]:
    """Which of the scan's voxels lie between voxels of the patch, for each axis."""
    result = []
    for n, spacing, first, step, size in zip(
        shape, grid.spacing_mm, grid.first_mm, grid.step_mm, grid.size, strict=True
    ):
        low, high = sorted((first, first + step * (size - 1)))
        result.append((np.arange(n) * spacing > low - 1e-6) & (np.arange(n) * spacing < high + 1e-6))
    return result


@settings(max_examples=80, deadline=None)
@given(data=st.data(), direction=st.sampled_from(ORIENTATIONS), axes=st.sampled_from(["SRA", "RAS", "LPS", "IPR"]))
def test_going_there_and_back_changes_nothing_where_the_networks_voxels_meet_the_scans(data, direction, axes):
    shape = tuple(data.draw(st.integers(1, 23)) for _ in range(3))
    spacing_mm = tuple(data.draw(st.sampled_from([1.0, 2.0, 3.0, 5.0])) for _ in range(3))
    grid = grid_of(
        [data.draw(st.floats(0, (n - 1) * step)) for n, step in zip(shape, spacing_mm, strict=True)],
        extent_mm=[data.draw(st.floats(1, 30)) for _ in range(3)],
        spacing_mm=spacing_mm,
        direction=direction,
        axes=axes,
        multiples=[data.draw(st.sampled_from([1, 2, 3, 8])) for _ in range(3)],
    )
    values = np.random.default_rng(0).normal(100, 40, shape).astype(np.float32)
    box, inside = grid.box(shape), np.ix_(*covered(grid, shape))
    there = grid.to_network(values[box], box, repeat_rim=True)
    assert there.shape == grid.shape and there.dtype == np.float32
    back = np.zeros(shape, np.float32)
    back[box] = grid.to_scan(there, box)
    assert back[inside].size > 0
    np.testing.assert_allclose(back[inside], values[inside], rtol=1e-6)


@pytest.mark.parametrize("direction", ORIENTATIONS)
def test_at_1_mm_only_the_axes_change(direction):
    shape = (21, 22, 23)
    values = np.random.default_rng(1).normal(100, 40, shape).astype(np.float32)
    grid = grid_of(direction=direction)
    box = tuple(slice(np.flatnonzero(part)[0], np.flatnonzero(part)[-1] + 1) for part in covered(grid, shape))
    # By nibabel's own way from one orientation to another.
    affine = np.eye(4)
    affine[:3, :3] = direction
    turning = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt("SRA"))
    expected = nib.orientations.apply_orientation(values[box], turning)
    there = grid.to_network(values, whole(shape), repeat_rim=True)
    # S is the network's first axis: nibabel's letters name where the axes of RAS+ data lead to.
    np.testing.assert_array_equal(there, expected)
    np.testing.assert_array_equal(grid.to_scan(there, box), values[box])


@settings(max_examples=80, deadline=None)
@given(
    direction=st.sampled_from([*ORIENTATIONS, OBLIQUE]),
    axes=st.sampled_from(["SRA", "RAS", "LPS", "IPR"]),
    spacing_mm=st.tuples(*[st.floats(0.4, 5.0)] * 3),
    network_spacing_mm=st.sampled_from([(1.0, 1.0, 1.0), (2.0, 1.0, 1.5)]),
    gradient=st.tuples(*[st.floats(-3, 3)] * 3),
)
def test_a_ramp_through_the_patient_keeps_its_slopes_along_the_networks_axes(
    direction, axes, spacing_mm, network_spacing_mm, gradient
):
    shape = tuple(int(np.ceil(50 / step)) | 1 for step in spacing_mm)
    grid = grid_of(
        (25.0, 24.0, 26.0),
        spacing_mm=spacing_mm,
        direction=direction,
        axes=axes,
        network_spacing_mm=network_spacing_mm,
    )
    # An oblique scan is taken for the one with the nearest axes.
    nearest = np.rint(direction)
    positions = np.stack(
        np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, spacing_mm, strict=True)], indexing="ij"), -1
    )
    ramp = (positions @ nearest.T @ np.asarray(gradient)).astype(np.float32)
    there = grid.to_network(ramp, whole(shape), repeat_rim=True)
    for axis, letter in enumerate(axes):
        patient, sign = PATIENT[letter]
        slope = np.diff(there, axis=axis) / network_spacing_mm[axis]
        np.testing.assert_allclose(slope, sign * gradient[patient], atol=2e-3)
    inside = np.ix_(*covered(grid, shape))
    np.testing.assert_allclose(grid.to_scan(there, whole(shape))[inside], ramp[inside], atol=2e-3)


def test_beyond_the_scan_the_rim_is_repeated_or_nothing_is_there():
    values = np.full((4, 4, 4), 5.0, np.float32)
    values[0] = 7.0
    grid = grid_of((0.0, 2.0, 2.0))
    repeated = grid.to_network(values, whole(values.shape), repeat_rim=True)
    assert set(np.unique(repeated)) == {5.0, 7.0}
    assert (repeated[:9] == 7).all() and (repeated[9:] == 5).all()
    bare = grid.to_network(values, whole(values.shape), repeat_rim=False)
    assert np.count_nonzero(bare) == values.size and bare.sum() == values.sum()


@settings(max_examples=50, deadline=None)
@given(
    direction=st.sampled_from(ORIENTATIONS),
    axes=st.sampled_from(["SRA", "LPS"]),
    index=st.tuples(*[st.integers(6, 16)] * 3),
)
def test_a_voxel_of_the_scan_has_its_place_on_the_networks_grid(direction, axes, index):
    grid = grid_of(spacing_mm=(1.0, 1.0, 1.0), direction=direction, axes=axes)
    values = np.zeros((22, 22, 22), np.float32)
    values[index] = 1
    there = grid.to_network(values, whole(values.shape), repeat_rim=False)
    nearest = grid.nearest(index)
    assert tuple(nearest[axis] for axis in grid.axes) == np.unravel_index(int(there.argmax()), there.shape)


def test_a_patch_is_at_least_as_large_as_asked_for_and_what_the_network_can_take():
    grid = grid_of(extent_mm=(96.0, 97.0, 20.0), multiples=(4, 32, 32))
    assert grid.shape == (96, 32, 128)  # z, then x to the right, then y
    assert grid_of(extent_mm=(96.0,) * 3, multiples=(4, 32, 32)).shape == (96, 96, 96)
    assert grid_of(extent_mm=(96.0,) * 3, network_spacing_mm=(0.75,) * 3, multiples=(4, 32, 32)).shape == (128,) * 3


@pytest.mark.parametrize("axes", ["SR", "SRAL", "SRL", "XYZ", ""])
def test_axes_that_are_none_are_refused(axes):
    with pytest.raises(InputError, match="axes of the weights"):
        grid_of(axes=axes)


def test_a_direction_without_three_axes_is_refused():
    with pytest.raises(InputError, match="direction of the scan"):
        grid_of(direction=np.array([[1.0, 1, 0], [0, 0, 0], [0, 0, 1]]))


def test_the_patch_has_what_the_network_was_trained_on_and_more_where_it_must():
    grid = grid_of(extent_mm=(10.0, 10.0, 31.0), least_size=(16, 8, 24))
    # SRA of an array (z, y, x): z is S, x is R, y is A.
    assert grid.shape == (16, 32, 24)
