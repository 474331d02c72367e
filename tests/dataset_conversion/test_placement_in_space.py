"""Crops and turned scans: every voxel that is left lies where it lay."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_difftumor.ct import scan_from_array
from nnunet_difftumor.dataset_conversion.placement_in_space import crop_around_labels, reorient

ORIENTATIONS = ("RAS", "LPS", "LAS", "SPL", "IRA", "PSR")


@st.composite
def scans(draw):
    """A scan on an oblique grid in which every voxel has its own HU, with labels in a box."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = tuple(draw(st.integers(6, 14)) for _ in range(3))
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = axes * rng.uniform(0.5, 4, 3)
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    scan = scan_from_array(np.arange(np.prod(shape)).reshape(shape) - 1000, affine=affine)
    labels = np.zeros(shape, np.uint8)
    starts = [int(rng.integers(0, n - 2)) for n in shape]
    labels[tuple(slice(start, int(rng.integers(start + 1, n))) for start, n in zip(starts, shape, strict=True))] = 2
    return scan, labels


def places_mm(scan) -> np.ndarray:
    """(z, y, x, 3) in mm."""
    z, y, x = np.indices(scan.hu.shape)
    return nib.affines.apply_affine(scan.affine, np.stack([x, y, z], -1))


def assert_same_places(new, new_labels, scan, labels):
    """Every voxel of the new scan is found at its place in the old one, with its HU and label."""
    index = np.rint(nib.affines.apply_affine(np.linalg.inv(scan.affine), places_mm(new))).astype(int)
    z, y, x = np.moveaxis(index[..., ::-1], -1, 0)
    np.testing.assert_array_equal(new.hu, scan.hu[z, y, x])
    np.testing.assert_array_equal(new_labels, labels[z, y, x])
    np.testing.assert_allclose(places_mm(new), places_mm(scan)[z, y, x], atol=1e-3)


@given(scans(), st.floats(0, 12))
def test_a_crop_lies_where_it_lay_and_holds_all_labels_with_their_margin(pair, margin_mm):
    scan, labels = pair
    crop, cropped = crop_around_labels(scan, labels, margin_mm=margin_mm)
    assert_same_places(crop, cropped, scan, labels)
    assert np.count_nonzero(cropped) == np.count_nonzero(labels)
    for axis, spacing_mm in enumerate(scan.spacing_mm):
        used = np.nonzero(np.moveaxis(cropped, axis, 0).reshape(cropped.shape[axis], -1).any(1))[0]
        all_used = np.nonzero(np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1).any(1))[0]
        before, after = used[0] * spacing_mm, (cropped.shape[axis] - 1 - used[-1]) * spacing_mm
        room = all_used[0] * spacing_mm, (labels.shape[axis] - 1 - all_used[-1]) * spacing_mm
        for kept, possible in zip((before, after), room, strict=True):
            assert min(margin_mm, possible) - 1e-3 <= kept < margin_mm + spacing_mm


@given(scans(), st.sampled_from(ORIENTATIONS))
def test_a_turned_scan_lies_where_it_lay_with_its_axes_as_asked(pair, orientation):
    scan, labels = pair
    turned, turned_labels = reorient(scan, labels, orientation)
    assert_same_places(turned, turned_labels, scan, labels)
    assert turned.hu.size == scan.hu.size
    assert "".join(nib.aff2axcodes(turned.affine)) == orientation


def test_a_scan_that_is_oriented_as_asked_is_left_alone():
    scan = scan_from_array(np.zeros((5, 5, 5)), affine=np.diag([-1.0, -1.0, 2.0, 1.0]))
    labels = np.zeros((5, 5, 5), np.uint8)
    turned, turned_labels = reorient(scan, labels, "LPS")
    assert turned is scan and turned_labels is labels


def test_a_shear_that_nnunets_reader_refuses_is_not_in_a_crop():
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 1] = 0.005
    scan = scan_from_array(np.zeros((6, 6, 6)), affine=affine)
    crop, _ = crop_around_labels(scan, np.ones((6, 6, 6), np.uint8), margin_mm=0)
    axes = crop.affine[:3, :3] / np.linalg.norm(crop.affine[:3, :3], axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    assert np.linalg.norm(crop.affine[:3, :3], axis=0) == pytest.approx(np.linalg.norm(affine[:3, :3], axis=0))
