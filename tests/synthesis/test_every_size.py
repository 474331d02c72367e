"""Scans with tumors of every size, and tumors that keep clear of vessels whatever their size."""

from collections import Counter

import numpy as np
import pytest
from scipy.ndimage import maximum_filter
from tumors import LIVER, copy_of, liver_scan, measured

from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.placement.sampler import Placement, TumorSampler
from nnunet_difftumor.synthesis.scene import insert_tumors
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM

SPACING_MM = (3.0, 2.5, 2.5)


@pytest.fixture(scope="module")
def large_liver():
    """Room for an 80 mm tumor and many others."""
    return liver_scan(250.0, SPACING_MM, radius_mm=115.0)


@pytest.fixture(scope="module")
def vascular_liver(large_liver):
    """With a net of vessels, 40 mm wide, 8 mm thick, 80 HU brighter."""
    volume = copy_of(large_liver)
    lines = [(np.arange(size) * step % 40.0) < 8 for size, step in zip(volume.shape, volume.spacing_mm, strict=True)]
    along_z = lines[1][None, :, None] & lines[2][None, None, :]
    along_y = lines[0][:, None, None] & lines[2][None, None, :]
    volume.hu_array[(along_z | along_y) & (volume.label_array == 1)] += 80
    return volume


def test_a_scan_of_every_size_holds_all_four_and_none_touches_another(large_liver):
    placed, _ = TumorSampler(LIVER, "hu2023").sample_scene(
        large_liver, measured(large_liver), np.random.default_rng(0), size="every"
    )
    counts = Counter(placement.spec.size_class for placement in placed)
    for size, distribution in PRESETS["hu2023"].sizes.items():
        least, most = distribution.count
        assert 1 <= counts[size] <= most, size
        assert counts[size] >= least or size == "large"
    after = copy_of(large_liver)
    masks = []
    for tumor in insert_tumors(after, [placement.spec for placement in placed], LIVER):
        mask = np.zeros(large_liver.shape, bool)
        mask[tumor.box] = tumor.mask
        assert not any((maximum_filter(mask, 3) & other).any() for other in masks)
        masks.append(mask)


@pytest.mark.parametrize(("preset", "share"), [("hu2023", 0.2), ("hu2023_spline", 0.2), ("difftumor", 0.0)])
def test_one_scan_in_five_of_hu2023_has_every_size(preset, share):
    sampler, rng = TumorSampler(LIVER, preset), np.random.default_rng(0)
    scenes = [set(sampler._sizes_of_scene("mix", None, rng)) for _ in range(2000)]
    assert np.mean([len(scene) == 4 for scene in scenes]) == pytest.approx(share, abs=0.03)
    assert {len(scene) for scene in scenes} <= {1, 4}


def test_a_number_of_tumors_goes_through_the_sizes_in_turn(large_liver):
    placed, refused = TumorSampler(LIVER, "difftumor").sample_scene(
        large_liver, measured(large_liver), np.random.default_rng(1), size="every", count=6
    )
    sizes = [found.spec.size_class for found in placed] + [miss.size_class for miss in refused]
    assert Counter(sizes) == {"large": 2, "medium": 2, "small": 1, "tiny": 1}


def test_weights_that_a_user_gives_leave_no_scan_of_every_size():
    sampler = TumorSampler(LIVER, "hu2023", weights={"tiny": 1.0})
    assert {one for _ in range(50) for one in sampler._sizes_of_scene("mix", None, np.random.default_rng(2))} == {
        "tiny"
    }


@pytest.mark.parametrize("size", list(SIZE_BANDS_MM))
def test_no_tumor_that_keeps_clear_of_vessels_holds_a_voxel_of_one(vascular_liver, size):
    statistics, rng = measured(vascular_liver), np.random.default_rng(3)
    strict = TumorSampler(LIVER, clear_of_vessels=True)
    vessels = statistics.vessels(vascular_liver.hu_array, vascular_liver.label_array == 1, SPACING_MM)
    assert vessels.mean() > 0.02
    found = [strict.sample(vascular_liver, statistics, rng, size=size) for _ in range(6)]
    placed = [one for one in found if isinstance(one, Placement)]
    for placement in placed:
        assert placement.vessel_share == 0
        (tumor,) = insert_tumors(copy_of(vascular_liver), [placement.spec], LIVER)
        assert not (vessels[tumor.box] & tumor.mask).any()
    assert len(placed) == 6 or size in ("medium", "large")
    if size in ("medium", "large"):
        usual = [TumorSampler(LIVER).sample(vascular_liver, statistics, rng, size=size) for _ in range(6)]
        assert any(isinstance(one, Placement) and one.vessel_share > 0 for one in usual)
