import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from tumors import LIVER, liver_scan, measured

from nnunet_difftumor.dataset_conversion.phantom import phantom_case
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.volume import ArrayVolume


@pytest.mark.parametrize("spacing_mm", [(0.6, 0.6, 0.6), (1.0, 1.0, 1.0), (2.5, 0.8, 0.8), (5.0, 5.0, 5.0)])
def test_a_ball_of_liver_is_measured(spacing_mm):
    volume = liver_scan(60.0, spacing_mm, mean_hu=110.0, sd_hu=12.0, radius_mm=20.0)
    found = measured(volume)
    error = 4 * 12 / np.sqrt(volume.label_array.sum()) + 0.1
    assert found.mean_hu == pytest.approx(110, abs=error)
    assert found.parenchyma_hu == pytest.approx(110, abs=error)
    # What lies outside 2.5 standard deviations is taken for something else: 4 % less of a Gaussian's.
    assert found.parenchyma_sd_hu == pytest.approx(12, rel=0.08)
    assert found.volume_ml == pytest.approx(4 / 3 * np.pi * 2.0**3, rel=0.1)
    assert found.vessel_threshold_hu == found.mean_hu + 15
    # Table 1 of Hu et al., in mm, and in voxels where these are larger.
    sigma = 0.5 + 0.025 * found.parenchyma_sd_hu
    np.testing.assert_allclose(found.smoothing_vox(spacing_mm), [sigma * max(1 / size, 1) for size in spacing_mm])
    # Room: at the middle the radius, less what the coarse cells lose.
    assert found.free_mm.max() == pytest.approx(20, abs=1 + 1.8 * max(2.0, *spacing_mm))


def test_parenchyma_leaves_out_vessels_and_fat():
    volume = liver_scan(60.0, mean_hu=110.0, sd_hu=12.0)
    volume.hu_array[:, 20:26, 20:26] += 90  # 1 % vessel
    volume.hu_array[:4] = -90  # 7 % fat
    found = measured(volume)
    assert found.mean_hu < 100
    assert found.parenchyma_hu == pytest.approx(110, abs=1)
    assert found.parenchyma_sd_hu == pytest.approx(12, rel=0.08)


def test_vessels_are_equation_one_of_hu_et_al():
    rng = np.random.default_rng(0)
    hu = rng.normal(100, 12, (30, 40, 40)).astype(np.float32)
    hu[:, 18:23, 18:23] = 180
    labels = np.ones(hu.shape, np.uint8)
    labels[:, :3] = 0
    hu[:, :3] = 250  # bright, but outside
    volume = ArrayVolume(hu, labels, (1.0, 1.0, 1.0))
    found = measured(volume)
    vessels = found.vessels(hu, labels == 1, volume.spacing_mm)
    sigma_a = 0.5 + 0.025 * found.parenchyma_sd_hu
    expected = (gaussian_filter(hu, sigma_a) > hu[labels == 1].mean() + 15) & (labels == 1)
    np.testing.assert_array_equal(vessels, expected)
    assert vessels[:, 19:22, 19:22].all()
    assert not vessels[:, 30:, 30:].any()
    cells = found.vessel_cells
    assert cells[:, 9 - 2 + 1 : 11 - 2 + 1, 9:11].any()
    assert not cells[:, 14:, 14:].any()


def test_cells_of_lesions_are_no_room():
    volume = liver_scan(60.0, sd_hu=5.0)
    volume.label_array[28:33, 28:33, 28:33] = 2
    found = measured(volume, Organ("liver", (1,), 2, avoid_labels=(2,)))
    assert not found.organ_cells[14:17, 14:17, 14:17].any()
    assert found.free_mm[15, 15, 15] == 0
    assert found.organ_cells[:13].all()


def test_several_labels_make_one_organ():
    volume = liver_scan(40.0)
    volume.label_array[:20] = 4
    both, lower = measured(volume, Organ("kidney", (1, 4), 9)), measured(volume, Organ("kidney", (4,), 9))
    assert both.volume_ml == pytest.approx(41**3 / 1000)
    assert lower.volume_ml == pytest.approx(20 * 41 * 41 / 1000)


def test_an_empty_organ_is_refused_with_its_labels():
    volume = liver_scan(20.0)
    with pytest.raises(InputError, match=r"organ spleen: no voxel of the label map has the value \[7\]"):
        measured(volume, Organ("spleen", (7,), 8))


def test_one_voxel_of_organ_is_measured():
    hu, labels = np.zeros((5, 6, 7), np.float32), np.zeros((5, 6, 7), np.uint8)
    labels[2, 3, 4], hu[2, 3, 4] = 1, 80
    found = OrganStatistics.measure(hu, labels, organ=LIVER, spacing_mm=(1.0, 1.0, 1.0))
    assert (found.mean_hu, found.parenchyma_sd_hu, found.cell_origin) == (80, 0, (2, 3, 4))


def test_statistics_survive_the_file(tmp_path):
    found = measured(liver_scan(40.0, radius_mm=15.0))
    found.save(tmp_path / "case" / "liver.npz")
    again = OrganStatistics.load(tmp_path / "case" / "liver.npz")
    for name, value in vars(found).items():
        np.testing.assert_array_equal(getattr(again, name), value)
        assert type(getattr(again, name)) is type(value)
        assert getattr(value, "dtype", None) == getattr(getattr(again, name), "dtype", None)


def test_damaged_statistics_are_refused(tmp_path):
    path = tmp_path / "liver.npz"
    measured(liver_scan(30.0)).save(path)
    whole = path.read_bytes()
    for content in (b"", b"garbage", whole[: len(whole) // 2], whole[:200] + b"\xff" * 60 + whole[260:]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"liver\.npz: cannot be read as organ statistics"):
            OrganStatistics.load(path)
    np.savez(path, mean_hu=3.0)
    with pytest.raises(InputError, match=r"cell_origin, .* missing"):
        OrganStatistics.load(path)
    with pytest.raises(InputError, match=r"none\.npz"):
        OrganStatistics.load(tmp_path / "none.npz")


def test_the_phantoms_liver_is_found_with_its_vessels():
    hu, labels = phantom_case(3, spacing_mm=(3.0, 2.0, 2.0))
    found = OrganStatistics.measure(hu, labels, organ=LIVER, spacing_mm=(3.0, 2.0, 2.0))
    values = hu[labels == 1]
    assert found.mean_hu == pytest.approx(values.mean(), abs=0.1)
    assert found.volume_ml == pytest.approx(np.count_nonzero(labels == 1) * 12 / 1000)
    assert 80 < found.parenchyma_hu < 150
    assert 0.005 < found.vessel_cells.sum() / found.organ_cells.sum() < 0.2
