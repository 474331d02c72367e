"""Kidneys, whose mask holds two tissues and the fat of the sinus: tumors arise in the tissue."""

from dataclasses import replace

import numpy as np
import pytest
from tumors import liver_scan, measured

from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.placement.sampler import Placement, TumorSampler
from nnunet_difftumor.synthesis.scene import insert_tumors
from nnunet_difftumor.synthesis.size_bands import EARLY_SIZES
from nnunet_difftumor.synthesis.volume import ArrayVolume

KIDNEY = Organ("kidney", (1,), 2)
CORTEX_HU, MEDULLA_HU, SINUS_HU = 225.0, 165.0, -30.0


@pytest.fixture(scope="module")
def kidney() -> tuple[ArrayVolume, np.ndarray]:
    """A ball of 30 mm in fat: cortex around medulla around a sinus of fat and urine; and where the sinus is."""
    volume = liver_scan(90.0, (1.5, 1.2, 1.2), radius_mm=30.0, sd_hu=0.0)
    axes = [np.arange(n) * step - 45.0 for n, step in zip(volume.shape, volume.spacing_mm, strict=True)]
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    hu = np.select([radius < 12, radius < 20, radius <= 30], [SINUS_HU, MEDULLA_HU, CORTEX_HU], -100.0)
    hu = hu + np.random.default_rng(0).normal(0, 15, hu.shape)
    return replace(volume, hu_array=hu.astype(np.float32)), radius < 12


def test_the_cortex_is_no_vessel_and_the_sinus_no_tissue(kidney):
    volume, _ = kidney
    statistics = measured(volume, KIDNEY)
    assert statistics.vessel_threshold_hu > CORTEX_HU - 15 > statistics.mean_hu + 15
    assert SINUS_HU + 30 < statistics.least_tissue_hu < MEDULLA_HU - 20
    assert statistics.vessel_cells.sum() < 0.1 * statistics.organ_cells.sum()
    centre = tuple(n // 2 for n in statistics.organ_cells.shape)
    assert not statistics.organ_cells[centre] and statistics.free_mm[centre] == 0


def test_a_liver_keeps_the_threshold_of_equation_2():
    statistics = measured(liver_scan(60.0))
    assert statistics.bright_tissue_hu == 0 and statistics.vessel_threshold_hu == statistics.mean_hu + 15


@pytest.mark.parametrize("size", EARLY_SIZES)
@pytest.mark.parametrize("preset", ["realistic", "hu2023"])
def test_early_tumors_replace_tissue_and_not_the_fat_of_the_sinus(kidney, preset, size):
    volume, sinus = kidney
    statistics, rng = measured(volume, KIDNEY), np.random.default_rng(1)
    sampler = TumorSampler(KIDNEY, preset)
    placed = [sampler.sample(volume, statistics, rng, size=size) for _ in range(12)]
    placed = [found for found in placed if isinstance(found, Placement)]
    assert len(placed) >= 10 or (preset, size) == ("hu2023", "small")
    for placement in placed:
        copy = replace(volume, hu_array=volume.hu_array.copy(), label_array=volume.label_array.copy())
        insert_tumors(copy, [placement.spec], KIDNEY)
        mask = copy.label_array == 2
        replaced = mask & (volume.label_array == 1)
        assert volume.hu_array[replaced].mean() > statistics.least_tissue_hu
        assert (replaced & sinus).sum() < 0.5 * replaced.sum()


def test_statistics_of_before_are_read(tmp_path, kidney):
    volume, _ = kidney
    statistics = measured(volume, KIDNEY)
    statistics.save(tmp_path / "kidney.npz")
    assert OrganStatistics.load(tmp_path / "kidney.npz").bright_tissue_hu == statistics.bright_tissue_hu > 0
    with np.load(tmp_path / "kidney.npz") as stored:
        before = {key: stored[key] for key in stored if key != "bright_tissue_hu"}
    np.savez(tmp_path / "before.npz", **before)
    assert OrganStatistics.load(tmp_path / "before.npz").bright_tissue_hu == 0
