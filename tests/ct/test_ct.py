import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from ct_files import OBLIQUE, ORIENTATIONS, body_hu, save
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_difftumor.ct import Scan, read_ct, read_labels, scan_from_array, write_ct, write_labels


@pytest.fixture
def scan(tmp_path) -> Scan:
    return read_ct(save(tmp_path / "ct.nii.gz", body_hu()))


def position_mm(scan: Scan, index_zyx) -> np.ndarray:
    return scan.affine[:3, :3] @ np.asarray(index_zyx)[::-1] + scan.affine[:3, 3]


def test_arrays_come_as_z_y_x_float32_with_spacing_in_that_order(tmp_path):
    stored = body_hu()
    scan = read_ct(save(tmp_path / "ct.nii.gz", stored))
    assert scan.hu.dtype == np.float32
    assert scan.hu.flags.c_contiguous
    np.testing.assert_array_equal(scan.hu, stored.transpose(2, 1, 0))
    assert scan.spacing_mm == (3.0, 2.0, 1.5)


def test_array_and_spacing_equal_those_of_nnunets_reader(tmp_path):
    simpleitk_reader = pytest.importorskip("nnunetv2.imageio.simpleitk_reader_writer")
    for name, affine in ORIENTATIONS.items():
        path = save(tmp_path / f"{name}.nii.gz", body_hu(), affine=affine, slope=2.0, intercept=-24.0)
        array, properties = simpleitk_reader.SimpleITKIO().read_images((str(path),))
        scan = read_ct(path)
        np.testing.assert_array_equal(scan.hu, array[0])
        np.testing.assert_allclose(scan.spacing_mm, properties["spacing"], rtol=1e-6)
        # SimpleITK's columns are the axes x, y, z in LPS+.
        itk_direction = np.reshape(properties["sitk_stuff"]["direction"], (3, 3))
        np.testing.assert_allclose(scan.direction, (np.diag([-1, -1, 1]) @ itk_direction)[:, ::-1], atol=1e-5)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_changed_voxel_lands_at_the_same_physical_place(tmp_path, orientation, suffix):
    scan = read_ct(save(tmp_path / "in.nii.gz", body_hu(), affine=ORIENTATIONS[orientation]))
    hu, labels = scan.hu.copy(), np.zeros(scan.hu.shape, np.uint8)
    hu[5, 2, 6], labels[5, 2, 6] = 2000, 1
    write_ct(tmp_path / f"out{suffix}", hu, scan, description="SYNTHETIC")
    write_labels(tmp_path / f"labels{suffix}", labels, scan)
    expected_mm = ORIENTATIONS[orientation][:3, :3] @ (6, 2, 5) + ORIENTATIONS[orientation][:3, 3]
    for name in ("out", "labels"):
        image = nib.load(tmp_path / f"{name}{suffix}")
        place = np.unravel_index(np.argmax(image.get_fdata()), image.shape)
        np.testing.assert_allclose(nib.affines.apply_affine(image.affine, place), expected_mm, atol=1e-3)
    np.testing.assert_allclose(position_mm(scan, (5, 2, 6)), expected_mm, atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 5)] * 3),
    flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    origin=st.tuples(*[st.floats(-2000, 2000)] * 3),
)
def test_any_rectangular_grid_survives_the_round_trip(tmp_path_factory, angles, spacing, flips, origin):
    affine = np.eye(4)
    affine[:3, :3] = nib.eulerangles.euler2mat(*angles) @ np.diag(np.multiply(spacing, flips))
    affine[:3, 3] = origin
    folder = tmp_path_factory.mktemp("grid")
    first = read_ct(save(folder / "a.nii", body_hu(), affine=affine))
    write_ct(folder / "b.nii", first.hu, first, description="copy")
    second = read_ct(folder / "b.nii")
    np.testing.assert_array_equal(second.affine, first.affine)
    np.testing.assert_array_equal(second.hu, first.hu)
    np.testing.assert_allclose(first.direction.T @ first.direction, np.eye(3), atol=1e-4)
    np.testing.assert_allclose(first.direction[:, 0] * first.spacing_mm[0], first.affine[:3, 2], atol=1e-5)


STORAGES = [
    (np.int16, 1.0, 0.0),
    (np.int16, 1.0, -1024.0),
    (np.int16, 0.37, -11.3),
    (np.uint16, 1.0, -8192.0),
    (np.uint8, 9.0, -1024.0),
    (np.int32, 1e-4, 3.0),
    (np.float32, 1.0, 0.0),
    (np.float64, 1.0, 0.0),
    (np.float64, 0.1, -5.0),
    (np.dtype(">i2"), 1.0, -1024.0),
    (np.dtype(">f8"), 1.0, 0.0),
]


@pytest.mark.parametrize(("dtype", "slope", "intercept"), STORAGES)
def test_storage_is_kept_and_unchanged_voxels_are_bit_identical(tmp_path, dtype, slope, intercept):
    dtype = np.dtype(dtype)
    stored = (body_hu() - intercept) / slope
    stored = stored + np.random.default_rng(1).normal(size=stored.shape) if dtype.kind == "f" else np.rint(stored)
    header = nib.Nifti1Header(endianness=">" if dtype.byteorder == ">" else "<")
    path = save(tmp_path / "in.nii.gz", stored, dtype=dtype, slope=slope, intercept=intercept, header=header)
    before = nib.load(path)
    scan = read_ct(path)
    slope, intercept = float(np.float32(slope)), float(np.float32(intercept))
    expected = before.dataobj.get_unscaled().astype(np.float64) * slope + intercept
    np.testing.assert_array_equal(scan.hu, expected.astype(np.float32).T)

    hu = scan.hu.copy()
    hu[3, 3, 3] += 40
    write_ct(tmp_path / "out.nii.gz", hu, scan, description="SYNTHETIC tumor, not a real finding")
    after = nib.load(tmp_path / "out.nii.gz")
    assert after.header.get_data_dtype() == before.header.get_data_dtype()
    assert after.header.endianness == before.header.endianness
    assert (after.dataobj.slope, after.dataobj.inter) == (before.dataobj.slope, before.dataobj.inter)
    assert after.header["descrip"].item() == b"SYNTHETIC tumor, not a real finding"
    same = np.ones(stored.shape, bool)
    same[3, 3, 3] = False
    old, new = before.dataobj.get_unscaled(), after.dataobj.get_unscaled()
    np.testing.assert_array_equal(new[same], old[same])
    # Half a storage step, and what float32 HU lose.
    assert abs(read_ct(tmp_path / "out.nii.gz").hu[3, 3, 3] - hu[3, 3, 3]) <= abs(slope) / 2 + 1e-3


def test_values_beyond_the_storage_are_clipped_not_wrapped(tmp_path):
    scan = read_ct(save(tmp_path / "in.nii.gz", (body_hu() + 1024) / 9, dtype=np.uint8, slope=9, intercept=-1024))
    hu = scan.hu.copy()
    hu[0, 0, 0], hu[0, 0, 1] = 5000, -5000
    write_ct(tmp_path / "out.nii.gz", hu, scan, description="clipped")
    written = read_ct(tmp_path / "out.nii.gz").hu
    assert (written[0, 0, 0], written[0, 0, 1]) == (255 * 9 - 1024, -1024)


def test_qform_and_sform_with_their_codes_are_kept(tmp_path):
    header = nib.Nifti1Header()
    header.set_xyzt_units("mm")
    path = tmp_path / "in.nii.gz"
    save(path, body_hu(), affine=OBLIQUE, header=header)
    image = nib.load(path)
    image.header["qform_code"], image.header["sform_code"] = 1, 4
    nib.save(image, path)
    scan = read_ct(path)
    write_ct(tmp_path / "out.nii.gz", scan.hu, scan, description="")
    write_labels(tmp_path / "labels.nii.gz", np.zeros(scan.hu.shape, np.uint8), scan)
    before = nib.load(path).header
    for name in ("out", "labels"):
        after = nib.load(tmp_path / f"{name}.nii.gz").header
        for field in ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "pixdim", "xyzt_units", "quatern_b"):
            np.testing.assert_array_equal(after[field], before[field])
        np.testing.assert_array_equal(after["qoffset_z"], before["qoffset_z"])


def test_writing_twice_gives_the_same_bytes(tmp_path, scan):
    for name in ("a", "b"):
        write_ct(tmp_path / f"{name}.nii.gz", scan.hu, scan, description="same")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_scan_made_in_memory_can_be_written_and_read(tmp_path):
    made = scan_from_array(body_hu().T, affine=OBLIQUE)
    write_ct(tmp_path / "ct.nii.gz", made.hu, made, description="phantom")
    read = read_ct(tmp_path / "ct.nii.gz")
    np.testing.assert_array_equal(read.hu, made.hu)
    np.testing.assert_allclose(read.affine, OBLIQUE, atol=1e-4)
    np.testing.assert_allclose(read.spacing_mm, made.spacing_mm, rtol=1e-6)


def test_a_fourth_axis_of_one_is_dropped_and_written_without(tmp_path):
    scan = read_ct(save(tmp_path / "in.nii.gz", body_hu()[..., None]))
    assert scan.hu.shape == (7, 8, 9)
    write_ct(tmp_path / "out.nii.gz", scan.hu, scan, description="")
    assert nib.load(tmp_path / "out.nii.gz").shape == (9, 8, 7)


def test_crops_paddings_and_thick_slices_are_accepted(tmp_path):
    rng = np.random.default_rng(0)
    organ_crop = np.rint(rng.normal(100, 20, (20, 20, 20)))
    five_mm = np.diag([0.7, 0.7, 5.0, 1.0])
    assert read_ct(save(tmp_path / "crop.nii.gz", organ_crop, affine=five_mm)).spacing_mm[0] == 5.0
    for padding in (-1024, -2000, -3024, -32768):
        padded = np.maximum(body_hu(), -1000)
        padded[:3] = padding
        assert read_ct(save(tmp_path / "padded.nii.gz", padded)).hu.min() == padding


@pytest.mark.parametrize("highest", [1, 255, 256])
def test_written_labels_are_stored_small_and_unscaled(tmp_path, highest):
    scan = read_ct(save(tmp_path / "in.nii.gz", (body_hu() + 1024) / 9, dtype=np.uint8, slope=9, intercept=-1024))
    labels = np.zeros(scan.hu.shape, np.int64)
    labels[2, 3, 4] = highest
    write_labels(tmp_path / "labels.nii.gz", labels, scan)
    image = nib.load(tmp_path / "labels.nii.gz")
    assert image.get_data_dtype() == (np.uint8 if highest <= 255 else np.int16)
    assert (image.dataobj.slope, image.dataobj.inter) == (1, 0)
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.nii.gz", like=scan), labels)


WRITER = """
import resource, signal, sys
import numpy as np
from nnunet_difftumor.ct import read_ct, write_ct, write_labels
from nnunet_difftumor.errors import InputError
scan = read_ct(sys.argv[1])
hu = np.random.default_rng(0).normal(0, 300, scan.hu.shape).astype(np.float32)
if sys.argv[3] == "limit":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    for write in (lambda: write_ct(sys.argv[2], hu, scan, description=""),
                  lambda: write_labels(sys.argv[2], np.abs(hu).astype(int), scan)):
        try:
            write()
        except InputError as error:
            print("refused:", error)
else:
    print("ready", flush=True)
    while True:
        write_ct(sys.argv[2], hu, scan, description="")
        print("again", flush=True)
"""


def writer(*arguments) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WRITER, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.skipif(os.name != "posix", reason="file size limits and SIGKILL are POSIX")
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_full_disk_leaves_nothing_and_names_the_file(tmp_path, suffix):
    source = save(tmp_path / "in.nii.gz", body_hu((60, 60, 60)))
    target = tmp_path / "out" / f"ct{suffix}"
    process = writer(source, target, "limit")
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert output.count("refused:") == 2
    assert f"ct{suffix}: cannot be written" in output
    assert list(target.parent.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="file size limits and SIGKILL are POSIX")
@pytest.mark.parametrize("exists_before", [True, False])
def test_a_killed_process_leaves_no_half_written_file(tmp_path, exists_before):
    source = save(tmp_path / "in.nii.gz", body_hu((160, 160, 60)))
    target = tmp_path / "out" / "ct.nii.gz"
    if exists_before:
        scan = read_ct(source)
        write_ct(target, scan.hu, scan, description="before")
        content = target.read_bytes()
    process = writer(source, target, "kill")
    assert process.stdout.readline() == "ready\n"
    while not list(target.parent.glob(".tmp-*")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    output = process.communicate(timeout=60)[0]
    assert "again" not in output, "killed too late to test anything"
    assert all(file == target or file.name.startswith(".tmp-") for file in target.parent.iterdir())
    if exists_before:
        assert target.read_bytes() == content
    else:
        assert not target.exists()


def test_real_scans_round_trip_bit_for_bit(tmp_path):
    folder = os.environ.get("DIFFTUMOR_TEST_DATA")
    if not folder:
        pytest.skip("DIFFTUMOR_TEST_DATA names no folder with real CT")
    for case in ("abdomen_3mm", "liver_healthy"):
        path = Path(folder) / case / "ct.nii.gz"
        scan = read_ct(path)
        labels = read_labels(path.with_name("labels.nii.gz"), like=scan)
        write_ct(tmp_path / "ct.nii.gz", scan.hu, scan, description="copy")
        write_labels(tmp_path / "labels.nii.gz", labels, scan)
        before, after = nib.load(path), nib.load(tmp_path / "ct.nii.gz")
        np.testing.assert_array_equal(after.dataobj.get_unscaled(), before.dataobj.get_unscaled())
        np.testing.assert_array_equal(after.affine, before.affine)
        np.testing.assert_array_equal(read_labels(tmp_path / "labels.nii.gz", like=scan), labels)
