from dataclasses import replace

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, maximum_filter
from tumors import LIVER, copy_of, liver_scan, measured

from nnunet_difftumor.dataset_conversion.phantom import LABELS, phantom_case
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.placement.sampler import Placement, TumorSampler, equivalent_diameter_mm
from nnunet_difftumor.synthesis.scene import insert_tumors, mask_of
from nnunet_difftumor.synthesis.shape.survey import survey
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM
from nnunet_difftumor.synthesis.spec import NoRoom
from nnunet_difftumor.synthesis.volume import ArrayVolume

SPACING_MM = (3.0, 2.0, 2.0)


@pytest.fixture(scope="module")
def phantom():
    """A phantom abdomen with real-looking organs and vessels."""
    hu, labels = phantom_case(11, spacing_mm=SPACING_MM)
    return ArrayVolume(hu, labels, SPACING_MM)


@pytest.fixture(scope="module")
def phantom_liver(phantom):
    return measured(phantom)


def rendered_mask(placement, volume, organ=LIVER):
    after = copy_of(volume)
    return mask_of(insert_tumors(after, [placement.spec], organ), volume.shape)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", SIZE_BANDS_MM)
def test_tumors_in_a_phantom_liver_are_whole_inside_and_in_their_band(phantom, phantom_liver, preset, size):
    rng = np.random.default_rng(1)
    sampler = TumorSampler(LIVER, preset)
    count = 12 if size in ("tiny", "small") else 6
    found = [sampler.sample(phantom, phantom_liver, rng, size=size) for _ in range(count)]
    placed = [placement for placement in found if isinstance(placement, Placement)]
    # The large ones of hu2023 (64 mm) meet the border of this liver of 1.5 litres.
    assert len(placed) >= (0.9 * count if size != "large" else 1)
    sigma_a = (0.5 + 0.025 * phantom_liver.parenchyma_sd_hu) * np.maximum(1 / np.array(SPACING_MM), 1)
    liver = phantom.label_array == 1
    threshold = phantom.hu_array[liver].mean() + 15
    vessels = (gaussian_filter(phantom.hu_array, sigma_a) > threshold) & liver
    low, high = SIZE_BANDS_MM[size]
    for placement in placed:
        mask = rendered_mask(placement, phantom)
        assert cc3d.connected_components(mask.astype(np.uint8), connectivity=6, return_N=True)[1] == 1
        if placement.spec.mass_effect == 0:
            assert liver[mask].all()
        else:  # the organ bulges
            assert liver[mask].mean() > 0.9
        assert low <= placement.diameter_mm < high
        assert placement.diameter_mm == pytest.approx(equivalent_diameter_mm(mask, SPACING_MM))
        assert placement.vessel_share == pytest.approx((mask & vessels).sum() / mask.sum(), abs=1e-6)
        if size in ("tiny", "small"):
            assert not (mask & vessels).any()


def test_large_tumors_choose_places_with_few_vessels(phantom, phantom_liver):
    rng = np.random.default_rng(2)
    shares = []
    for _ in range(8):
        found = TumorSampler(LIVER).sample(phantom, phantom_liver, rng, size="medium")
        assert isinstance(found, Placement)
        shares.append(found.vessel_share)
    everywhere = phantom_liver.vessel_cells.sum() / phantom_liver.organ_cells.sum()
    assert np.mean(shares) < 0.5 * everywhere


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (5.0, 0.9, 0.9), (5.0, 5.0, 5.0)])
@pytest.mark.parametrize("size", ["small", "medium"])
def test_sizes_are_in_their_band_on_thin_and_thick_slices(spacing_mm, size):
    volume = liver_scan(110.0, spacing_mm, radius_mm=50.0)
    statistics, rng = measured(volume), np.random.default_rng(3)
    low, high = SIZE_BANDS_MM[size]
    for _ in range(10):
        found = TumorSampler(LIVER).sample(volume, statistics, rng, size=size)
        assert isinstance(found, Placement)
        assert low <= equivalent_diameter_mm(rendered_mask(found, volume), spacing_mm) < high


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 9), preset=st.sampled_from(list(PRESETS)))
def test_tumors_of_a_scene_never_touch(seed, count, preset):
    volume = liver_scan(90.0, (2.0, 1.5, 1.5), radius_mm=42.0)
    placed, refused = TumorSampler(LIVER, preset).sample_scene(
        volume, measured(volume), np.random.default_rng(seed), count=count
    )
    assert len(placed) + len(refused) == count
    after = copy_of(volume)
    rendered = insert_tumors(after, [placement.spec for placement in placed], LIVER)
    masks = [mask_of([tumor], volume.shape) for tumor in rendered]
    for number, mask in enumerate(masks):
        assert mask.any()
        # Each is what was examined: nobody took a voxel of it.
        assert equivalent_diameter_mm(mask, volume.spacing_mm) == pytest.approx(placed[number].diameter_mm)
        for other in masks[:number]:
            assert not (maximum_filter(mask, 3) & other).any()


def test_the_reach_of_a_slanted_tumor_counts_along_its_own_axis():
    volume = liver_scan(60.0)
    found = TumorSampler(LIVER).sample(volume, measured(volume), np.random.default_rng(0), size="small")
    half = np.sqrt(0.5)
    slanted = replace(
        found.spec, semi_axes_mm=(12.0, 4.0, 4.0), rotation=(np.cos(0.4), 0.0, np.sin(0.4) * half, np.sin(0.4) * half)
    )
    assert survey(slanted).reach_mm > 12


def test_a_tumor_keeps_clear_of_those_that_are_there():
    volume = liver_scan(60.0, sd_hu=3.0)
    statistics, sampler = measured(volume), TumorSampler(LIVER)
    first = sampler.sample(volume, statistics, np.random.default_rng(0), size="medium")
    for seed in range(10):
        second = sampler.sample(volume, statistics, np.random.default_rng(seed), size="tiny", occupied=[first])
        if isinstance(second, Placement):
            distance = np.linalg.norm(np.subtract(first.spec.centre_mm, second.spec.centre_mm))
            assert distance >= first.reach_mm + second.reach_mm + 1


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (5.0, 1.5, 1.5)])
def test_no_tumor_touches_a_real_lesion(spacing_mm):
    volume = liver_scan(80.0, spacing_mm, radius_mm=38.0, sd_hu=5.0)
    rng = np.random.default_rng(4)
    inside = np.argwhere(volume.label_array == 1)
    for centre in inside[rng.choice(len(inside), 12, replace=False)]:
        box = tuple(slice(max(0, int(c - 4 / s)), int(c + 4 / s) + 1) for c, s in zip(centre, spacing_mm, strict=True))
        volume.label_array[box][volume.label_array[box] == 1] = 2
    organ = Organ("liver", (1,), 3, avoid_labels=(2,))
    statistics, placed = measured(volume, organ), 0
    lesions = volume.label_array == 2
    for size in ("tiny", "small", "medium"):
        for _ in range(8):
            found = TumorSampler(organ).sample(volume, statistics, rng, size=size)
            if isinstance(found, Placement):
                placed += 1
                mask = rendered_mask(found, volume, organ)
                assert not (maximum_filter(mask, 3) & lesions).any()
    assert placed >= 8


THIN = {
    "plate": lambda labels: labels[20:22],
    "rod": lambda labels: labels[:, 20:22, 20:22],
    "one voxel": lambda labels: labels[20:21, 20:21, 20:21],
    "checkerboard": lambda labels: labels[::2, ::2, ::2],
}


@pytest.mark.parametrize("form", THIN)
@pytest.mark.parametrize("size", SIZE_BANDS_MM)
def test_an_organ_thinner_than_the_tumor_gives_no_room_with_a_reason(form, size):
    volume = liver_scan(40.0)
    volume.label_array[:] = 0
    THIN[form](volume.label_array)[...] = 1
    statistics = measured(volume)
    for preset in PRESETS:
        found = TumorSampler(LIVER, preset).sample(volume, statistics, np.random.default_rng(0), size=size)
        if form == "plate" and size == "tiny" and isinstance(found, Placement):
            assert equivalent_diameter_mm(rendered_mask(found, volume), volume.spacing_mm) >= 5
            continue
        assert isinstance(found, NoRoom)
        assert (found.organ, found.size_class) == ("liver", size)
        assert "no place with enough room" in found.reason or "cut by the organ's border" in found.reason


def test_an_organ_full_of_vessels_or_lesions_gives_no_room():
    volume = liver_scan(40.0, sd_hu=0.0)
    volume.hu_array[::6] += 200
    found = TumorSampler(LIVER).sample(volume, measured(volume), np.random.default_rng(0), size="small")
    assert isinstance(found, NoRoom)
    volume = liver_scan(40.0)
    volume.label_array[::6] = 2
    organ = Organ("liver", (1,), 3, avoid_labels=(2,))
    for size in SIZE_BANDS_MM:
        found = TumorSampler(organ).sample(volume, measured(volume, organ), np.random.default_rng(0), size=size)
        assert isinstance(found, NoRoom)


def test_the_same_seed_draws_the_same_scene(phantom, phantom_liver):
    scenes = [
        TumorSampler(LIVER).sample_scene(phantom, phantom_liver, np.random.default_rng(5), count=4) for _ in range(2)
    ]
    assert scenes[0] == scenes[1]
    assert scenes[0] != TumorSampler(LIVER).sample_scene(phantom, phantom_liver, np.random.default_rng(6), count=4)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_scene_has_the_presets_number_of_tumors_of_one_size(phantom, phantom_liver, preset):
    rng = np.random.default_rng(7)
    for _ in range(4):
        placed, refused = TumorSampler(LIVER, preset).sample_scene(phantom, phantom_liver, rng)
        sizes = {placement.spec.size_class for placement in placed} | {miss.size_class for miss in refused}
        assert len(sizes) == 1
        low, high = PRESETS[preset].sizes[sizes.pop()].count
        assert low <= len(placed) + len(refused) <= high


def test_weights_and_contrast_replace_the_presets(phantom, phantom_liver):
    sampler = TumorSampler(LIVER, weights={"tiny": 0.0, "small": 1.0}, contrast_hu=(30.0, 31.0))
    for seed in range(5):
        found = sampler.sample(phantom, phantom_liver, np.random.default_rng(seed))
        assert found.spec.size_class == "small"
        assert 30 <= found.spec.contrast_hu <= 31


def test_mixed_sizes_come_in_the_presets_shares():
    sampler, rng = TumorSampler(LIVER, "difftumor"), np.random.default_rng(8)
    drawn = [sampler._draw_size(rng) for _ in range(2000)]
    for size, share in PRESETS["difftumor"].weights.items():
        assert drawn.count(size) / 2000 == pytest.approx(share, abs=0.04)


def test_hu2023_draws_the_tumors_hu_of_table_1():
    volume = liver_scan(60.0, mean_hu=120.0, sd_hu=14.0)
    statistics = measured(volume)
    for seed in range(20):
        tumor = TumorSampler(LIVER, "hu2023").sample(volume, statistics, np.random.default_rng(seed), size="tiny").spec
        assert 30 <= tumor.background_hu + tumor.contrast_hu <= statistics.parenchyma_hu - 10
        assert 0.6 <= tumor.edge_blur_mm <= 1.2
        assert 1.1 <= tumor.texture_grain_mm <= 1.5
        assert tumor.texture_blur_mm == 0.6


def test_hu2023_stays_darker_than_an_organ_without_contrast_agent():
    volume = liver_scan(60.0, mean_hu=40.0, sd_hu=10.0)
    for seed in range(20):
        found = TumorSampler(LIVER, "hu2023").sample(volume, measured(volume), np.random.default_rng(seed), size="tiny")
        assert -26 <= found.spec.contrast_hu <= -9


def test_realistic_contrast_refers_to_the_tissue_around():
    volume = liver_scan(70.0, mean_hu=100.0, sd_hu=5.0)
    volume.hu_array[:36] -= 20  # a perfusion difference
    sides = []
    for seed in range(12):
        found = TumorSampler(LIVER).sample(volume, measured(volume), np.random.default_rng(seed), size="tiny")
        if isinstance(found, Placement):
            z = found.spec.centre_mm[0]
            if z < 25 or z > 47:
                sides.append(z < 36)
                assert found.spec.background_hu == pytest.approx(80 if z < 36 else 100, abs=2)
    assert len(set(sides)) == 2


@pytest.mark.parametrize("organ", ["kidney", "spleen", "pancreas"])
def test_other_organs_of_the_phantom_take_tiny_tumors(phantom, organ):
    organ = Organ(organ, (LABELS[organ],), 99)
    statistics, rng = measured(phantom, organ), np.random.default_rng(9)
    found = [TumorSampler(organ).sample(phantom, statistics, rng, size="tiny") for _ in range(10)]
    assert sum(isinstance(placement, Placement) for placement in found) >= 8


def test_unknown_names_are_refused(phantom, phantom_liver):
    with pytest.raises(InputError, match=r"preset is 'best', expected one of realistic, hu2023, .*difftumor"):
        TumorSampler(LIVER, "best")
    with pytest.raises(InputError, match="size is 'huge', expected one of tiny, small, medium, large, mix"):
        TumorSampler(LIVER).sample_scene(phantom, phantom_liver, np.random.default_rng(0), size="huge")


def test_equivalent_diameter_of_known_masks():
    assert equivalent_diameter_mm(np.zeros((3, 3, 3), bool), (1, 1, 1)) == 0
    assert equivalent_diameter_mm(np.ones((1, 1, 1), bool), (1, 2, 3)) == pytest.approx((36 / np.pi) ** (1 / 3))


def test_statistics_from_a_file_place_the_same_tumors(tmp_path, phantom, phantom_liver):
    phantom_liver.save(tmp_path / "liver.npz")
    stored = OrganStatistics.load(tmp_path / "liver.npz")
    for size in SIZE_BANDS_MM:
        first, second = (
            TumorSampler(LIVER).sample(phantom, statistics, np.random.default_rng(1), size=size)
            for statistics in (phantom_liver, stored)
        )
        assert first == second
