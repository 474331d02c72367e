"""HU are judged by organs and by fat, air and bone: whatever padding, metal, noise, window or crop a scan has."""

import numpy as np
import pytest
from ct_files import body_hu, save

from nnunet_difftumor.ct import read_ct
from nnunet_difftumor.ct.hounsfield import check_hu, check_organs_hu, limits_of
from nnunet_difftumor.errors import InputError

SHAPE = (40, 40, 40)


def body(*, noise_hu=15, organ_hu=110.0, air=True, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Air, fat, muscle and bone around an organ; HU and labels (z, y, x)."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(SHAPE) - 19.5
    radius = np.hypot(y, x)
    hu = np.where(radius < 17, np.where(radius > 14, -100.0, 45.0), -1000.0 if air else -100.0)
    hu[np.hypot(y - 11, x) < 2] = 700
    organ = np.sqrt(z**2 + y**2 + x**2) < 8
    hu[organ] = organ_hu
    return np.rint(hu + rng.normal(0, noise_hu, SHAPE)).astype(np.float32), organ.astype(np.uint8)


def check(hu, labels, organ="liver"):
    check_hu(hu, "ct.nii.gz")
    check_organs_hu(hu, labels, {organ: (1,)}, where="ct.nii.gz")


def outside(hu, value):
    """The circle of the scanner, with padding outside of it."""
    y, x = np.indices(SHAPE)[1:] - 19.5
    return np.where(np.hypot(y, x) > 18, value, hu)


def test_hu_pass():
    check(*body())


@pytest.mark.parametrize("padding", [-1024, -2000, -2048, -3024, -32768])
def test_any_padding_passes(padding):
    hu, labels = body()
    check(outside(hu, padding), labels)


@pytest.mark.parametrize("noise_hu", [1, 5, 60, 120])
def test_smooth_and_low_dose_scans_pass(noise_hu):
    check(*body(noise_hu=noise_hu))


@pytest.mark.parametrize("organ_hu", [-20, 40, 160, 230])
def test_fat_iron_and_any_phase_pass(organ_hu):
    check(*body(organ_hu=organ_hu))


def test_metal_passes():
    hu, labels = body()
    hu[10:13, 10:13], hu[14:16, 10:20] = 3071, -1024
    check(hu, labels)


@pytest.mark.parametrize("window", [(-175, 250), (-100, 240), (-1000, 1000), (-200, 300)])
def test_a_window_that_was_clipped_passes(window):
    hu, labels = body()
    check(np.clip(hu, *window), labels)


def test_a_crop_of_soft_tissue_passes():
    hu, labels = body(noise_hu=25)
    inside = (slice(15, 25),) * 3
    assert hu[inside].min() > 0
    check(hu[inside], labels[inside])
    hu[17, 17, 17] = 3000
    check(hu[inside], labels[inside])


@pytest.mark.parametrize("padding", [None, -2000, -1])
def test_a_missing_intercept_is_refused(padding):
    hu, labels = body()
    stored = np.clip(hu + 1024, 0, 4095)
    stored = stored if padding is None else outside(stored, padding)
    with pytest.raises(InputError, match=r"ct\.nii\.gz: .*(lack their intercept|lacks its intercept: subtract 1024)"):
        check(stored, labels)


def test_the_organ_finds_a_missing_intercept_where_padding_looks_like_air():
    hu, labels = body()
    message = (
        r"ct\.nii\.gz: liver median 113\d HU; expected -50 to 300; the file lacks its intercept: subtract 1024 from"
    )
    with pytest.raises(InputError, match=message):
        check(outside(hu + 1024, -900), labels)


@pytest.mark.parametrize("organ", ["liver", "kidney", "pancreas", "spleen", "gland_of_nobody"])
def test_an_intercept_that_was_applied_twice_is_refused(organ):
    hu, labels = body()
    with pytest.raises(InputError, match="applied twice"):
        check(hu - 1024, labels, organ)


def test_the_organ_finds_it_where_much_bone_looks_like_tissue():
    hu, labels = body()
    hu[:1] = 1000
    message = r"liver median -91\d HU; expected -50 to 300; the intercept was applied twice: add 1024 to every voxel"
    with pytest.raises(InputError, match=message):
        check(hu - 1024, labels)


def test_a_mask_in_another_place_is_not_taken_for_an_offset():
    hu, labels = body()
    with pytest.raises(InputError, match=r"liver median -\d+ HU; .*is the mask that of this organ in this scan"):
        check(hu, np.roll(labels, 16, axis=1) * (hu < -900))


def test_lungs_and_hollow_organs_have_limits_of_their_own():
    hu, labels = body(organ_hu=-850)
    check(hu, labels, "lung")
    check(hu, labels, "colon")
    with pytest.raises(InputError, match="liver median -850 HU"):
        check(hu, labels, "liver")
    with pytest.raises(InputError, match=r"lung median 17\d HU; expected -1050 to -200; the file lacks its intercept"):
        check(outside(hu + 1024, -900), labels, "lung")


def test_lesions_are_left_out():
    hu, labels = body(organ_hu=-850)
    check(hu, labels, "liver_lesion")


@pytest.mark.parametrize(
    ("name", "limits"),
    [("Liver", (-50, 300)), ("kidney_left", (-50, 400)), ("lung_upper_lobe_left", (-1050, -200)), ("x", (-1100, 800))],
)
def test_limits_are_found_by_the_name(name, limits):
    assert limits_of(name) == limits


def test_reading_refuses_a_scan_with_padding_and_without_its_intercept(tmp_path):
    hu, _ = body()
    stored = outside(np.clip(hu + 1024, 0, 4095), -2000)
    with pytest.raises(InputError, match=r"padding below -1500; .*no voxel here is below 0"):
        read_ct(save(tmp_path / "ct.nii.gz", stored.T))
    padded = body_hu((20, 20, 20))
    padded[:3] = -2000
    assert read_ct(save(tmp_path / "ct.nii.gz", padded)).hu.min() == -2000
