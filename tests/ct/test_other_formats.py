"""MetaImage and NRRD files are read as the NIfTI file of the same scan is."""

import gzip
from pathlib import Path

import ct_files
import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from nnunet_difftumor.ct import read_ct, read_label_grid, read_labels, write_ct, write_labels
from nnunet_difftumor.ct.images import in_any_format
from nnunet_difftumor.errors import InputError

SUFFIXES = (".mha", ".nrrd")


def converted(path: Path, suffix: str, *, compressed: bool = True, kind: int | None = None) -> Path:
    """The same image in another format, as ITK writes it."""
    image = SimpleITK.ReadImage(str(path))
    other = path.with_name(path.name.removesuffix(".nii.gz") + suffix)
    SimpleITK.WriteImage(image if kind is None else SimpleITK.Cast(image, kind), str(other), compressed)
    return other


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("orientation", ct_files.ORIENTATIONS)
def test_voxels_and_their_places_are_those_of_nifti(tmp_path, suffix, orientation):
    affine = ct_files.ORIENTATIONS[orientation]
    path = ct_files.save(tmp_path / "ct.nii.gz", ct_files.body_hu(), affine=affine)
    expected = read_ct(path)
    for compressed in (True, False):
        other = converted(path, suffix, compressed=compressed)
        found = read_ct(other)
        np.testing.assert_array_equal(found.hu, expected.hu)
        np.testing.assert_allclose(found.affine, expected.affine, atol=1e-4)
        assert found.spacing_mm == pytest.approx(expected.spacing_mm) and found.path == other
        assert found.header.get_data_dtype() == np.int16
    write_ct(tmp_path / "again.nii.gz", found.hu, found, description=None)
    np.testing.assert_array_equal(read_ct(tmp_path / "again.nii.gz").hu, expected.hu)
    np.testing.assert_allclose(nib.load(tmp_path / "again.nii.gz").affine, affine, atol=1e-4)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_label_maps_of_one_format_lie_on_scans_of_another(tmp_path, suffix):
    scan = read_ct(ct_files.save(tmp_path / "ct.nii.gz", ct_files.body_hu(), affine=ct_files.OBLIQUE))
    labels = (scan.hu > 0).astype(np.uint8) * 3
    write_labels(tmp_path / "map.nii.gz", labels, scan)
    path = converted(tmp_path / "map.nii.gz", suffix)
    np.testing.assert_array_equal(read_labels(path, like=scan, declared=[3]), labels)
    grid = read_label_grid(path)
    np.testing.assert_array_equal(read_labels(tmp_path / "map.nii.gz", like=grid), labels)
    moved = SimpleITK.ReadImage(str(path))
    moved.SetOrigin([at + 2 for at in moved.GetOrigin()])
    SimpleITK.WriteImage(moved, str(path))
    with pytest.raises(InputError, match=r"away from .*affines differ"):
        read_labels(path, like=scan)


def test_values_that_float32_does_not_hold_are_kept_bit_for_bit(tmp_path):
    stored = ct_files.body_hu().astype(np.float64) + 1e-9
    path = ct_files.save(tmp_path / "ct.nii.gz", stored, dtype=np.float64)
    other = converted(path, ".nrrd")
    scan = read_ct(other)
    write_ct(tmp_path / "again.nii.gz", scan.hu, scan, description=None)
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "again.nii.gz").dataobj), stored)


def test_a_nrrd_file_in_ras_lies_where_it_says(tmp_path):
    hu = ct_files.body_hu().astype("<i2")
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: right-anterior-superior\nsizes: 9 8 7\n"
        "space directions: (1.5,0,0) (0,2,0) (0,0,3)\nspace origin: (10,20,30)\nendian: little\nencoding: gzip\n\n"
    )
    (tmp_path / "ct.nrrd").write_bytes(header.encode() + gzip.compress(hu.tobytes(order="F")))
    scan = read_ct(tmp_path / "ct.nrrd")
    np.testing.assert_array_equal(scan.hu.T, hu)
    np.testing.assert_allclose(scan.affine, [[1.5, 0, 0, 10], [0, 2, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]])


def vectors(folder, suffix):
    image = SimpleITK.GetImageFromArray(np.zeros((7, 8, 9, 3), np.uint8), isVector=True)
    SimpleITK.WriteImage(image, str(folder / f"ct{suffix}"))


def truncated(folder, suffix):
    path = converted(ct_files.save(folder / "ct.nii.gz", ct_files.body_hu()), suffix)
    path.write_bytes(path.read_bytes()[:-20])


def elsewhere(folder, suffix):
    path = converted(ct_files.save(folder / "ct.nii.gz", ct_files.body_hu()), suffix, compressed=False)
    content = path.read_bytes()
    end = content.index(b"LOCAL\n" if suffix == ".mha" else b"\n\n")
    head = content[:end] + b"voxels.raw\n" if suffix == ".mha" else content[:end] + b"\ndata file: voxels.raw\n\n"
    path.write_bytes(head)
    (folder / "voxels.raw").write_bytes(content[-9 * 8 * 7 * 2 :])


def flat(folder, suffix):
    converted(ct_files.save(folder / "ct.nii.gz", ct_files.body_hu((9, 8, 3))), suffix)


def without_spacing(folder, suffix):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(ct_files.body_hu().astype(np.int16)), str(folder / f"ct{suffix}"))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (vectors, "several numbers per voxel"),
        (truncated, "damaged"),
        (elsewhere, "its voxels lie in another file"),
        (flat, "expected at least 4 along every axis"),
        (without_spacing, "the header seems never to have been set"),
        (lambda folder, suffix: (folder / f"ct{suffix}").write_text("<html>404</html>"), "cannot be read"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_its_reason(tmp_path, suffix, make, message):
    make(tmp_path, suffix)
    with pytest.raises(InputError, match=message) as caught:
        read_ct(tmp_path / f"ct{suffix}")
    assert "\n" not in str(caught.value) and f"ct{suffix}: " in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_stated_spacing_is_taken_where_the_header_was_never_set(tmp_path, suffix):
    without_spacing(tmp_path, suffix)
    assert read_ct(tmp_path / f"ct{suffix}", spacing_mm=(3, 2, 2)).spacing_mm == (3, 2, 2)


def test_of_files_in_several_formats_none_is_taken(tmp_path):
    assert in_any_format(tmp_path / "ct.nii.gz") == tmp_path / "ct.nii.gz"
    (tmp_path / "ct.mha").touch()
    assert in_any_format(tmp_path / "ct.nii.gz") == tmp_path / "ct.mha"
    (tmp_path / "ct.nrrd").touch()
    with pytest.raises(InputError, match=r"has ct\.mha, ct\.nrrd, of which one was expected"):
        in_any_format(tmp_path / "ct.nii.gz")
    assert in_any_format(tmp_path / "ct.mha") == tmp_path / "ct.mha"
