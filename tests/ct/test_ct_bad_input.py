"""What is no CT, no label map, or does not fit, is refused by name."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from ct_files import RAS, body_hu, save

from nnunet_difftumor.ct import Scan, read_ct, read_labels, write_ct, write_labels
from nnunet_difftumor.errors import InputError


@pytest.fixture
def scan(tmp_path) -> Scan:
    return read_ct(save(tmp_path / "ct.nii.gz", body_hu()))


def test_missing_and_broken_files_are_named(tmp_path):
    good = save(tmp_path / "good.nii.gz", body_hu((30, 30, 30))).read_bytes()
    raw = gzip.decompress(good)
    broken = {
        "truncated.nii.gz": good[: len(good) // 2],
        "header_only.nii.gz": gzip.compress(raw[:352]),
        "truncated.nii": raw[: len(raw) // 2],
        "text.nii.gz": gzip.compress(b"this is no image" * 100),
        "not_gzip.nii.gz": raw,
        "empty.nii.gz": b"",
        "empty.nii": b"",
        "flipped.nii.gz": good[:400] + bytes(200) + good[600:],
        "picture.png": good,
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        for read in (read_ct, read_labels):
            with pytest.raises(InputError, match=name):
                read(tmp_path / name)
    with pytest.raises(InputError, match=r"absent\.nii\.gz: no such file"):
        read_ct(tmp_path / "absent.nii.gz")
    (tmp_path / "folder.nii.gz").mkdir()
    with pytest.raises(InputError, match=r"folder\.nii\.gz: no DICOM file is in it"):
        read_ct(tmp_path / "folder.nii.gz")


def test_images_that_are_not_three_dimensional_numbers_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"three-dimensional.*split time points"):
        read_ct(save(tmp_path / "4d.nii.gz", body_hu((9, 8, 7, 2))))
    with pytest.raises(InputError, match=r"three-dimensional image, got the shape \(90, 80\)"):
        read_ct(save(tmp_path / "2d.nii.gz", body_hu((90, 80))))
    rgb = np.zeros((9, 8, 7), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nib.save(nib.Nifti1Image(rgb, RAS), tmp_path / "rgb.nii.gz")
    with pytest.raises(InputError, match=r"rgb.*colour"):
        read_ct(tmp_path / "rgb.nii.gz")
    nib.save(nib.Nifti1Image(body_hu().astype(np.complex64), RAS), tmp_path / "complex.nii.gz")
    with pytest.raises(InputError, match=r"complex64.*one number per voxel"):
        read_ct(tmp_path / "complex.nii.gz")


@pytest.mark.parametrize("shape", [(60, 60, 1), (60, 60, 3), (1, 60, 60)])
def test_a_slice_is_refused(tmp_path, shape):
    with pytest.raises(InputError, match="at least 4 along every axis"):
        read_ct(save(tmp_path / "slice.nii.gz", body_hu(shape)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_counted(tmp_path, bad):
    values = body_hu().astype(np.float32)
    values[1, 2, 3] = values[3, 2, 1] = bad
    with pytest.raises(InputError, match=r"ct\.nii\.gz: 2 voxels are NaN or infinite"):
        read_ct(save(tmp_path / "ct.nii.gz", values, dtype=np.float32))


def test_an_infinite_intercept_is_refused(tmp_path):
    path = save(tmp_path / "ct.nii", body_hu())
    content = bytearray(path.read_bytes())
    content[116:120] = np.float32(np.inf).tobytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"ct\.nii"):
        read_ct(path)


def test_absurd_geometry_is_refused(tmp_path):
    for number in (0.0007, 700.0, 0.05, 25.0):
        with pytest.raises(InputError, match=r"spacing is .* expected 0.1 to 20"):
            read_ct(save(tmp_path / "ct.nii.gz", body_hu(), affine=np.diag([number, 1, 1, 1])))
    sheared = RAS.copy()
    sheared[1, 2] = 0.6
    singular = RAS.copy()
    singular[:3, 1] = singular[:3, 0]
    for affine in (sheared, singular):
        header = nib.Nifti1Header()
        header.set_data_shape((9, 8, 7))
        path = save(tmp_path / "ct.nii", body_hu())
        image = nib.load(path)
        image = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
        image.header["sform_code"] = 1
        for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
            image.header[name] = affine[row]
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), path)
        with pytest.raises(InputError, match="sheared or singular"):
            read_ct(path)
    path = save(tmp_path / "ct.nii", body_hu())
    content = bytearray(path.read_bytes())
    content[280:284] = np.float32(np.nan).tobytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match="NaN or infinite"):
        read_ct(path)


def test_pixdim_that_contradicts_the_affine_is_refused(tmp_path):
    path = save(tmp_path / "ct.nii", body_hu())
    content = bytearray(path.read_bytes())
    content[80:84] = np.float32(2.5).tobytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"pixdim gives a spacing of 2\.5"):
        read_ct(path)


@pytest.mark.parametrize(
    "case", ["0..255", "0..255 float", "z-score", "0..1", "-1..1", "constant", "no intercept", "MR"]
)
def test_values_that_are_not_hu_are_refused(tmp_path, case):
    hu = body_hu((20, 20, 20)).astype(np.float64)
    window = np.clip((hu + 175) / 425, 0, 1)
    values = {
        "0..255": np.rint(window * 255),
        "0..255 float": window * 255,
        "z-score": (hu - hu.mean()) / hu.std(),
        "0..1": window,
        "-1..1": 2 * window - 1,
        "constant": np.full_like(hu, 50),
        "no intercept": np.clip(hu + 1024, 0, None),
        "MR": np.where(hu < -500, np.abs(hu) % 8, np.abs(hu) + 50),
    }[case]
    with pytest.raises(InputError, match=r"ct\.nii\.gz: the values run from"):
        read_ct(save(tmp_path / "ct.nii.gz", values, dtype=np.float32))


def test_an_intercept_applied_twice_is_refused(tmp_path):
    with pytest.raises(InputError, match="soft tissue"):
        read_ct(save(tmp_path / "ct.nii.gz", np.clip(body_hu(), -1000, 300), intercept=-1024))


def test_labels_come_in_the_smallest_type_whatever_they_were_stored_as(tmp_path, scan):
    labels = np.random.default_rng(0).integers(0, 4, (9, 8, 7))
    for dtype in (np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, np.int64):
        read = read_labels(save(tmp_path / "labels.nii.gz", labels, dtype=dtype), like=scan, declared=[1, 2, 3])
        assert read.dtype == np.uint8
        assert read.flags.c_contiguous
        np.testing.assert_array_equal(read, labels.T)
    read = read_labels(save(tmp_path / "labels.nii.gz", labels, slope=2.0, intercept=1.0), like=scan)
    np.testing.assert_array_equal(read, 2 * labels.T + 1)
    read = read_labels(save(tmp_path / "labels.nii.gz", labels * 100), like=scan)
    assert read.dtype == np.int16
    np.testing.assert_array_equal(read, 100 * labels.T)


@pytest.mark.parametrize("wrong", [0.5, -1, 40000, np.nan, np.inf])
def test_values_that_are_no_labels_are_named(tmp_path, wrong):
    labels = np.zeros((9, 8, 7))
    labels[0, 0, 0] = wrong
    with pytest.raises(InputError, match=r"labels\.nii\.gz: a label map holds whole numbers.*holds " + f"{wrong:g}"):
        read_labels(save(tmp_path / "labels.nii.gz", labels, dtype=np.float64))


def test_undeclared_labels_are_named(tmp_path):
    labels = np.arange(9 * 8 * 7).reshape(9, 8, 7) % 6
    path = save(tmp_path / "labels.nii.gz", labels)
    with pytest.raises(InputError, match=r"label values 3, 5 are not declared \(declared: 1, 2, 4\)"):
        read_labels(path, declared=[1, 2, 4])
    with pytest.raises(InputError, match=r"not declared \(declared: none\)"):
        read_labels(path, declared=[])
    read_labels(path, declared={1, 2, 3, 4, 5})


def test_a_label_map_on_another_grid_is_refused(tmp_path, scan):
    path = tmp_path / "labels.nii.gz"
    labels = np.zeros((9, 8, 7), np.uint8)
    with pytest.raises(InputError, match=r"\(9, 8, 8\) voxels.*but .*ct\.nii\.gz has \(9, 8, 7\)"):
        read_labels(save(path, np.zeros((9, 8, 8), np.uint8)), like=scan)
    moved = RAS.copy()
    moved[0, 3] += 0.5
    with pytest.raises(InputError, match=r"0\.5 mm away from .*ct\.nii\.gz"):
        read_labels(save(path, labels, affine=moved), like=scan)
    with pytest.raises(InputError, match="mm away"):
        read_labels(save(path, labels, affine=RAS * [[1.1], [1], [1], [1]]), like=scan)
    # The same voxels at the same places, but stored the other way round.
    flipped = nib.as_closest_canonical(nib.load(path)).as_reoriented(nib.orientations.axcodes2ornt("LAS"))
    nib.save(flipped, path)
    with pytest.raises(InputError, match=r"orientation LAS, but .* in RAS; bring the label map"):
        read_labels(path, like=scan)
    rounded = RAS.copy()
    rounded[:3] += 1e-4
    read_labels(save(path, labels, affine=rounded), like=scan)


def test_arguments_that_do_not_fit_the_scan_are_refused(tmp_path, scan):
    path = tmp_path / "out.nii.gz"
    with pytest.raises(ValueError, match="shape"):
        write_ct(path, scan.hu[1:], scan, description="")
    with pytest.raises(ValueError, match="NaN"):
        write_ct(path, scan.hu * np.nan, scan, description="")
    with pytest.raises(ValueError, match="79 bytes"):
        write_ct(path, scan.hu, scan, description="x" * 80)
    with pytest.raises(InputError, match=r"out\.mha: expected a file name"):
        write_ct(tmp_path / "out.mha", scan.hu, scan, description="")
    for labels in (scan.hu, np.full(scan.hu.shape, -1), np.full(scan.hu.shape, 40000)):
        with pytest.raises(ValueError, match="integers from 0 to 32767"):
            write_labels(path, labels, scan)
    with pytest.raises(ValueError, match="shape"):
        write_labels(path, np.zeros((1, 2, 3), np.uint8), scan)
    assert [file.name for file in tmp_path.iterdir()] == ["ct.nii.gz"]
