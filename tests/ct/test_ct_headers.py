"""Headers that nibabel and ITK understand otherwise are refused by what is wrong, or read alike."""

import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from ct_files import LPS, OBLIQUE, RAS, body_hu, save

from nnunet_difftumor.ct import read_ct, read_labels, write_ct
from nnunet_difftumor.errors import InputError


def patched(path, at, form, *numbers):
    """A plain NIfTI file with other bytes in its header."""
    content = bytearray(path.read_bytes())
    struct.pack_into(f"<{form}", content, at, *numbers)
    path.write_bytes(content)
    return path


def seen_by_itk(path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (z, y, x), and the affine in RAS+."""
    image = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image), np.diag([-1, -1, 1, 1]) @ affine


def with_two_forms(path, qform, sform, codes):
    image = nib.Nifti1Image(body_hu().astype(np.int16), None)
    image.set_qform(qform, codes[0])
    image.set_sform(sform, codes[1])
    nib.save(image, path)
    return path


MOVED = np.add(LPS, [[0, 0, 0, 40], [0, 0, 0, 0], [0, 0, 0, 25], [0, 0, 0, 0]])
FLIPPED = LPS * [[-1], [1], [1], [1]]


@pytest.mark.parametrize("codes", [(1, 1), (1, 2), (2, 1), (4, 1)])
@pytest.mark.parametrize("other", [MOVED, FLIPPED, OBLIQUE])
def test_a_qform_unlike_the_sform_is_refused(tmp_path, codes, other):
    path = with_two_forms(tmp_path / "ct.nii.gz", other, LPS, codes)
    for read in (read_ct, read_labels):
        with pytest.raises(InputError, match=r"ct\.nii\.gz: qform and sform differ by up to [\d.]+ mm"):
            read(path)


@pytest.mark.parametrize("codes", [(0, 1), (0, 2), (1, 0), (3, 0)])
def test_a_form_without_a_code_does_not_count(tmp_path, codes):
    forms = (MOVED, LPS) if codes[1] else (LPS, MOVED)
    scan = read_ct(with_two_forms(tmp_path / "ct.nii.gz", *forms, codes))
    np.testing.assert_allclose(scan.affine, LPS, atol=1e-5)
    np.testing.assert_allclose(seen_by_itk(tmp_path / "ct.nii.gz")[1], LPS, atol=1e-5)


def test_an_intercept_without_a_slope_is_refused(tmp_path):
    """ITK adds it, nibabel does not."""
    path = patched(save(tmp_path / "ct.nii", body_hu()), 112, "2f", 0.0, -1024.0)
    assert seen_by_itk(path)[0][3, 3, 3] == nib.load(path).get_fdata()[3, 3, 3] - 1024
    with pytest.raises(InputError, match=r"scl_slope is 0, but scl_inter -1024; ITK adds it"):
        read_ct(path)


@pytest.mark.parametrize("scaling", [(0, 0), (np.nan, np.nan), (np.nan, 0), (1, -10), (-1, 0), (0.5, 3)])
def test_other_scalings_are_read_as_itk_does(tmp_path, scaling):
    path = patched(save(tmp_path / "ct.nii", body_hu()), 112, "2f", *scaling)
    np.testing.assert_array_equal(read_ct(path).hu, seen_by_itk(path)[0])


@pytest.mark.parametrize(("code", "unit"), [(1, "metres"), (3, "micrometres")])
def test_lengths_in_other_units_are_refused(tmp_path, code, unit):
    path = patched(save(tmp_path / "ct.nii", body_hu()), 123, "B", code)
    with pytest.raises(InputError, match=rf"lengths in {unit} \(1\.5 x 2 x 3 along x, y, z\)"):
        read_ct(path)


@pytest.mark.parametrize("code", [0, 2, 10, 16])
def test_an_unknown_unit_is_taken_for_mm_as_itk_does(tmp_path, code):
    path = patched(save(tmp_path / "ct.nii", body_hu()), 123, "B", code)
    np.testing.assert_allclose(read_ct(path).affine, seen_by_itk(path)[1], atol=1e-5)


@pytest.mark.parametrize("extra", [(1,), (1, 1), (1, 1, 1, 1)])
def test_trailing_axes_of_one_are_dropped(tmp_path, extra):
    path = save(tmp_path / "ct.nii.gz", body_hu().reshape(9, 8, 7, *extra))
    scan = read_ct(path)
    np.testing.assert_array_equal(scan.hu, body_hu().T)
    write_ct(tmp_path / "out.nii.gz", scan.hu, scan, description=None)
    assert nib.load(tmp_path / "out.nii.gz").shape == (9, 8, 7)


@pytest.mark.parametrize(("degrees", "taken"), [(0.001, True), (0.05, True), (0.8, False), (15, False)])
def test_a_tilt_is_put_right_only_where_it_moves_no_voxel(tmp_path, degrees, taken):
    tilted = RAS.copy()
    tilted[1, 2] = 3 * np.tan(np.radians(degrees))
    path = save(tmp_path / "ct.nii.gz", body_hu((9, 8, 40)), affine=tilted)
    header = nib.load(path).header
    header["qform_code"] = 0
    nib.save(nib.Nifti1Image(np.asarray(nib.load(path).dataobj), None, header), path)
    if not taken:
        with pytest.raises(InputError, match="as from a tilted gantry: resample"):
            read_ct(path)
        return
    scan = read_ct(path)
    write_ct(tmp_path / "out.nii.gz", scan.hu, scan, description=None)
    voxels, affine = seen_by_itk(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(voxels, scan.hu)
    np.testing.assert_allclose(affine, scan.affine, atol=1e-4)
    corner = np.array([8, 7, 39, 1])
    assert np.linalg.norm((scan.affine - tilted) @ corner) < 0.15


@pytest.mark.parametrize("noise", [1e-6, 5e-5, 4e-4, 9e-4])
def test_labels_near_whole_numbers_are_rounded(tmp_path, noise):
    labels = np.random.default_rng(0).integers(0, 4, (9, 8, 7))
    stored = labels + np.random.default_rng(1).uniform(-noise, noise, labels.shape)
    read = read_labels(save(tmp_path / "labels.nii.gz", stored, dtype=np.float64))
    np.testing.assert_array_equal(read, labels.T)
    assert read.dtype == np.uint8


def test_labels_with_a_scale_factor_are_exact(tmp_path):
    """As nibabel stores float labels under the header of a CT."""
    labels = np.random.default_rng(0).integers(0, 3, (9, 8, 7))
    header = nib.load(save(tmp_path / "ct.nii.gz", body_hu())).header
    nib.save(nib.Nifti1Image(labels.astype(np.float64), RAS, header), tmp_path / "labels.nii.gz")
    assert 1 not in np.unique(nib.load(tmp_path / "labels.nii.gz").get_fdata())
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.nii.gz"), labels.T)


def test_labels_further_off_are_named_with_all_their_digits(tmp_path):
    labels = np.zeros((9, 8, 7))
    labels[3, 3, 3] = 1.0025
    with pytest.raises(InputError, match=r"this file holds 1\.0025; .*Round it"):
        read_labels(save(tmp_path / "labels.nii.gz", labels, dtype=np.float64))
