"""What makes a tumor look real: shape, growth out of the organ, core, capsule, and look-alikes."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from tumors import LIVER, copy_of, liver_scan, measured, spec

from nnunet_difftumor.synthesis.look.lesion_shapes import SHAPES
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.placement.sampler import Placement, TumorSampler
from nnunet_difftumor.synthesis.scene import insert_tumors
from nnunet_difftumor.synthesis.shape.room import room_of
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM

REALISTIC = PRESETS["realistic"]


def drawn(organ: str, size: str, *, mean_hu: float = 110.0, count: int = 200):
    statistics = replace(measured(liver_scan(60.0, mean_hu=mean_hu)), parenchyma_hu=mean_hu)
    rng = np.random.default_rng(0)
    return [REALISTIC.draw(organ, size, statistics=statistics, rng=rng) for _ in range(count)]


def test_axis_ratios_have_the_quantiles_of_real_lesions():
    rng = np.random.default_rng(0)
    for organ, sizes in SHAPES.items():
        assert set(sizes) == set(SIZE_BANDS_MM), organ
        for shapes in sizes.values():
            ratios = np.array([shapes.quantiles.axis_ratios(rng) for _ in range(2000)])
            assert (np.diff(ratios, axis=1) <= 0).all()
            assert np.median(ratios[:, 1]) == pytest.approx(shapes.quantiles.middle_to_longest[3], abs=0.02)


@pytest.mark.parametrize("organ", SHAPES)
def test_a_drawn_ellipsoid_has_the_volume_of_its_ball(organ):
    rng = np.random.default_rng(0)
    for size, shapes in SHAPES[organ].items():
        for _ in range(50):
            drawn = shapes.draw(rng, radius_mm=10.0)
            assert np.prod(drawn["semi_axes_mm"]) == pytest.approx(1000)
            assert shapes.deformation[0] - 1e-9 <= drawn["deformation_mm"] / 10 <= shapes.deformation[1] + 1e-9, size
            assert shapes.roughness[0] - 1e-9 <= drawn["roughness"] <= shapes.roughness[1] + 1e-9
            assert shapes.grain[0] <= drawn["roughness_grain_mm"] / 10 <= shapes.grain[1]


def test_kidney_tumors_are_rounder_and_smoother_than_those_of_the_liver():
    liver, kidney = drawn("liver", "medium"), drawn("left_kidney", "medium")

    def flatness(tumors):
        return np.median([min(t.semi_axes_mm) / max(t.semi_axes_mm) for t in tumors])

    assert flatness(kidney) > flatness(liver) + 0.05
    assert np.mean([t.roughness for t in kidney]) < 0.65 * np.mean([t.roughness for t in liver])


@pytest.mark.parametrize(("organ", "share"), [("liver", 0.0), ("kidney", 0.97), ("pancreas", 1.0)])
def test_large_tumors_of_kidney_and_pancreas_grow_out(organ, share):
    assert np.mean([tumor.exophytic for tumor in drawn(organ, "large")]) == pytest.approx(share, abs=0.04)


def test_a_tumor_grows_into_fat_but_not_into_another_organ_or_bone():
    volume = liver_scan(60.0, radius_mm=18.0, sd_hu=5.0)
    volume.label_array[:, :, 52:] = 5  # another organ
    volume.hu_array[:, :8, :] = 600  # bone
    tumor = spec(centre_mm=(30.0, 30.0, 30.0), exophytic=True)
    room = room_of(volume.hu_array, volume.label_array, tumor, organ=LIVER, spacing_mm=(1, 1, 1))
    assert room[volume.label_array == 1].all()
    assert not room[volume.label_array == 5].any()
    assert not room[:, :9].any()
    assert room[30, 30, 6] and room[30, 52, 30]
    inside = room_of(volume.hu_array, volume.label_array, spec(), organ=LIVER, spacing_mm=(1, 1, 1))
    assert np.array_equal(inside, volume.label_array == 1)


def test_a_core_is_darker_and_the_mean_stays():
    before = liver_scan(60.0, sd_hu=0.0)
    plain = spec(centre_mm=(30.0,) * 3, semi_axes_mm=(14.0,) * 3, texture_sd_hu=0.0)
    after = copy_of(before)
    rendered = insert_tumors(after, [replace(plain, core_size=0.5, core_contrast_hu=-30.0)], LIVER)[0]
    values = after.hu_array[rendered.box]
    inner = binary_erosion(rendered.mask, iterations=11)
    rim = binary_erosion(rendered.mask, iterations=3) & ~binary_erosion(rendered.mask, iterations=6)
    assert values[rim].mean() - values[inner].mean() == pytest.approx(30, abs=3)
    assert values[binary_erosion(rendered.mask, iterations=1)].mean() == pytest.approx(60, abs=5)


def test_a_capsule_is_a_bright_rim_by_equation_8():
    before = liver_scan(60.0, sd_hu=0.0)
    plain = spec(centre_mm=(30.0,) * 3, semi_axes_mm=(14.0,) * 3, texture_sd_hu=0.0, contrast_hu=-30.0)
    pictures = []
    for tumor in (plain, replace(plain, capsule_hu=120.0)):
        after = copy_of(before)
        insert_tumors(after, [tumor], LIVER)
        pictures.append(after.hu_array)
    gain = pictures[1] - pictures[0]
    profile = gain[30, 30, 30:50]
    assert 20 < gain.max() <= 120
    assert 12 <= int(profile.argmax()) <= 15
    assert np.abs(profile[:9]).max() < 1 and np.abs(profile[19:]).max() == 0


def test_look_alikes_change_the_scan_and_not_the_labels():
    kinds = set()
    before = liver_scan(100.0, mean_hu=110.0, sd_hu=8.0, radius_mm=45.0)
    statistics, rng = measured(before), np.random.default_rng(4)
    for _ in range(12):
        found = TumorSampler(LIVER).sample_look_alike(before, statistics, rng)
        assert isinstance(found, Placement)
        kinds.add(found.spec.kind)
        after = copy_of(before)
        rendered = insert_tumors(after, [found.spec], LIVER)[0]
        assert np.array_equal(after.label_array, before.label_array)
        core = binary_erosion(rendered.mask, iterations=1)
        values = after.hu_array[rendered.box]
        if found.spec.kind == "cyst" and core.any():
            assert -8 < values[core].mean() < 28
    assert kinds == {"cyst", "haemangioma"}
    others = [TumorSampler(Organ("kidney", (1,), 2)).sample_look_alike(before, statistics, rng) for _ in range(12)]
    assert {found.spec.kind for found in others} == {"cyst"}
