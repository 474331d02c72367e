"""DICOM series: their place in space beside another reader's, their values, and what is refused by name."""

import locale
import subprocess
from itertools import product
from pathlib import Path

import dcm2niix
import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from dicom_series import AXIAL, save_dicom

from nnunet_difftumor.ct import read_ct, read_labels, write_ct, write_labels
from nnunet_difftumor.ct.anonymous import without_text
from nnunet_difftumor.ct.dicom.study import sha256_of_scan
from nnunet_difftumor.errors import InputError

OBLIQUE = (nib.eulerangles.euler2mat(0.3, -0.2, 0.4) @ np.eye(3)[:, :2]).T
CORONAL = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])


def ct_hu(shape=(9, 14, 17), *, seed=0) -> np.ndarray:
    """Whole HU of tissue, (z, y, x); every voxel is another one than its neighbours."""
    rng = np.random.default_rng(seed)
    return rng.choice([-1000, -100, 55, 110, 400], shape) + rng.integers(-30, 30, shape)


def by_dcm2niix(folder: Path, output: Path) -> nib.Nifti1Image:
    output.mkdir()
    words = [dcm2niix.bin, "-z", "n", "-b", "n", "-f", "volume", "-o", output, folder]
    subprocess.run(words, check=True, capture_output=True)
    return nib.load(output / "volume.nii")


@pytest.mark.parametrize(
    "made",
    [
        {},
        {"from_the_top": True},
        {"axes": OBLIQUE, "spacing_mm": (2.5, 0.703125, 0.703125)},
        {"axes": CORONAL, "spacing_mm": (1.37, 0.93, 0.91)},
        {"axes": AXIAL * [[-1], [-1]], "spacing_mm": (5.0, 0.9765625, 0.9765625)},
        {"axes": AXIAL * [[-1], [1]]},  # slices go down
        {"scaling": [(1.0, -1024.0), (1.0, 0.0)]},
    ],
    ids=["axial", "from the top", "oblique", "coronal", "prone", "downwards", "other scaling in every slice"],
)
def test_voxels_lie_where_dcm2niix_puts_them(tmp_path, made):
    hu = ct_hu()
    save_dicom(tmp_path / "series", hu, **made)
    ours, theirs = read_ct(tmp_path / "series"), by_dcm2niix(tmp_path / "series", tmp_path / "theirs")
    values = np.asarray(theirs.dataobj)
    # From our indices (x, y, z) to theirs.
    table = np.linalg.inv(theirs.affine) @ ours.affine
    corners = np.array([(*index, 1) for index in product(*((0, n - 1) for n in ours.hu.shape[::-1]))]) @ table.T
    nearest = np.rint(corners)
    assert np.abs((corners - nearest)[:, :3] * theirs.header.get_zooms()).max() < 1e-3
    indices = np.indices(ours.hu.shape)[::-1].reshape(3, -1)
    x, y, z = np.rint(table[:3, :3] @ indices + table[:3, 3:]).astype(int)
    np.testing.assert_array_equal(ours.hu.ravel(), values[x, y, z])
    assert sorted(ours.hu.ravel()) == sorted(hu.ravel())


def test_each_slice_has_its_own_slope_and_intercept(tmp_path):
    hu = np.round(ct_hu() * 4) / 4
    scaling = [(1.0, -1024.0), (0.5, -1000.0), (0.25, 0.0)]
    fractions = hu + np.array([0.0, 0.5, 0.25])[np.arange(len(hu)) % 3, None, None]
    save_dicom(tmp_path / "series", fractions, scaling=scaling)
    scan = read_ct(tmp_path / "series")
    np.testing.assert_array_equal(scan.hu, fractions)
    assert scan.header.get_data_dtype() == np.float32, "int16 holds no fractions"


def test_a_series_is_written_as_nifti_and_read_back(tmp_path):
    save_dicom(tmp_path / "series", ct_hu(), axes=OBLIQUE)
    before = locale.setlocale(locale.LC_ALL)
    scan = read_ct(tmp_path / "series")
    assert locale.setlocale(locale.LC_ALL) == before
    write_ct(tmp_path / "ct.nii.gz", scan.hu, scan, description=None)
    write_labels(tmp_path / "labels.nii.gz", scan.hu > 0, scan)
    again = read_ct(tmp_path / "ct.nii.gz")
    np.testing.assert_array_equal(again.hu, scan.hu)
    np.testing.assert_allclose(again.affine, scan.affine, atol=1e-4)
    assert again.header.get_data_dtype() == np.int16
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.nii.gz", like=scan), scan.hu > 0)


def missing(folder):
    return [save_dicom(folder, ct_hu(), skip=[4])[at].name for at in (3, 4)]


def doubled(folder):
    files = save_dicom(folder, ct_hu())
    (folder / "again.dcm").write_bytes(files[5].read_bytes())
    return ["again.dcm", files[5].name]


def shifted(folder):
    files = save_dicom(folder, ct_hu())
    other = save_dicom(folder.parent / "other", ct_hu(), tilt_mm=2.0)[4]
    files[4].write_bytes(other.read_bytes())
    return [files[4].name]


def turned(folder):
    files = save_dicom(folder, ct_hu())
    files[4].write_bytes(save_dicom(folder.parent / "other", ct_hu(), axes=AXIAL * [[-1], [-1]])[4].read_bytes())
    return []


def of_another_size(folder):
    files = save_dicom(folder, ct_hu())
    other = save_dicom(folder.parent / "other", ct_hu(), spacing_mm=(4.0, 2.0, 2.0))[4]
    files[4].write_bytes(other.read_bytes())
    return []


def cut_off(folder):
    last = save_dicom(folder, ct_hu())[-1]
    last.write_bytes(last.read_bytes()[:-100])
    return [last.name]


def without_position(folder):
    for file in save_dicom(folder, ct_hu()):
        # Another tag in its place.
        file.write_bytes(file.read_bytes().replace(b"\x20\0\x32\0", b"\x20\0\x33\0"))
    return []


def in_one_file(folder):
    folder.mkdir()
    image = SimpleITK.GetImageFromArray(ct_hu().astype(np.int16))
    image.SetMetaData("0008|0060", "CT")
    before = locale.setlocale(locale.LC_ALL)
    SimpleITK.WriteImage(image, str(folder / "all.dcm"))
    locale.setlocale(locale.LC_ALL, before)
    return ["all.dcm"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (missing, "lie 8.00 mm apart, and most slices 4.00 mm; some are missing"),
        (doubled, "lie at the same place; one of them is there twice"),
        (shifted, "apart|off the line of the other slices"),
        (turned, "lies in another plane than the first slice"),
        (of_another_size, "has pixels of another number or size than the first slice"),
        (cut_off, r"is no sound DICOM file \(\(7fe0,0010\) has \d+ bytes, and \d+ are left\)"),
        (without_position, r"its tag \(0020,0032\) is '', expected 3 numbers"),
        (in_one_file, r"has 9 slices in one file \(enhanced DICOM\)"),
        (lambda folder: save_dicom(folder, ct_hu(), tilt_mm=0.5) and [], "tilted gantry"),
        (lambda folder: save_dicom(folder, ct_hu(), modality="MR") and [], "of modality MR, expected CT"),
        (lambda folder: save_dicom(folder, ct_hu()[:3]) and [], "has 3 slices, expected at least 4"),
        (lambda folder: save_dicom(folder, ct_hu() * 0 + 7) and [], "less than 100 HU apart"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_no_whole_series_is_refused_by_name(tmp_path, make, message):
    named = make(tmp_path / "series")
    with pytest.raises(InputError, match=message) as caught:
        read_ct(tmp_path / "series")
    said = str(caught.value)
    assert "\n" not in said and str(tmp_path / "series") in said
    assert all(name in said for name in named), said


def test_of_a_study_the_one_series_that_is_a_scan_is_taken(tmp_path):
    hu = ct_hu()
    save_dicom(tmp_path / "study" / "overview", ct_hu()[:2], number=1)
    save_dicom(tmp_path / "study" / "abdomen", hu, number=2)
    save_dicom(tmp_path / "study" / "abdomen", ct_hu()[:1], number=3, modality="MR")
    scan = read_ct(tmp_path / "study")
    np.testing.assert_array_equal(scan.hu, hu)
    assert scan.note.startswith("taken is series 2 of 9 slices, 17 x 14 voxels, 4 mm apart; left out: ")
    assert "series 1 (" in scan.note and "expected at least 4" in scan.note
    assert "series 3 (" in scan.note and "of modality MR" in scan.note
    assert str(tmp_path) not in without_text(scan).note and "series 3 (" in without_text(scan).note


def test_of_several_that_could_be_meant_none_is_taken(tmp_path):
    for number, folder in ((1, "thin"), (2, "flat"), (3, "flat")):
        save_dicom(tmp_path / folder, ct_hu(), number=number)
    with pytest.raises(InputError, match="3 CT series could be meant") as caught:
        read_ct(tmp_path)
    said = str(caught.value)
    assert all(f"series {number} of 9 slices" in said for number in (1, 2, 3))
    assert f"in {tmp_path / 'thin'};" in said and said.endswith("put the files of one into a folder of their own")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no DICOM file is in it or below; give a CT scan"):
        read_ct(tmp_path / "empty")


def test_the_hash_is_of_the_slices_whatever_their_names(tmp_path):
    files = save_dicom(tmp_path / "series", ct_hu())
    before = sha256_of_scan(tmp_path / "series")
    for number, file in enumerate(files):
        file.rename(file.with_name(f"IM{len(files) - number}"))
    assert sha256_of_scan(tmp_path / "series") == before
    save_dicom(tmp_path / "other", ct_hu(seed=1))
    assert sha256_of_scan(tmp_path / "other") != before
