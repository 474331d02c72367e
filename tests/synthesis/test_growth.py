"""Tumors that grow out of an organ stop where they must, are hardly cut and leave no spikes; and their capsules."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from scipy.special import ndtr
from tumors import LIVER, copy_of, grid_of, liver_scan, measured, spec

from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.placement.growth import GrowthMap
from nnunet_difftumor.synthesis.placement.sampler import Placement, TumorSampler
from nnunet_difftumor.synthesis.scene import insert_tumors
from nnunet_difftumor.synthesis.shape.profile import mask_in
from nnunet_difftumor.synthesis.shape.room import room_of
from nnunet_difftumor.synthesis.shape.survey import region_of, survey
from nnunet_difftumor.synthesis.volume import ArrayVolume, whole

KIDNEY = Organ("kidney", (1,), 2)
EDGE_MM = 110.0


def kidney_scan(spacing_mm=(1.5, 1.5, 1.5), *, sd_hu=12.0) -> ArrayVolume:
    """A kidney in fat, with lung above, bone on one side, muscle on another, bowel without and liver with a label."""
    shape = grid_of(EDGE_MM, spacing_mm)
    z, y, x = np.meshgrid(*[np.arange(n) * step for n, step in zip(shape, spacing_mm, strict=True)], indexing="ij")
    labels = (((z - 52) / 32) ** 2 + ((y - 55) / 20) ** 2 + ((x - 55) / 20) ** 2 <= 1).astype(np.uint8)
    hu = np.where(labels == 1, 150.0, -95.0)
    hu[z > 96] = -820.0
    hu[(z <= 96) & (z > 92)] = 50.0  # diaphragm
    hu[y > 95] = 55.0  # muscle
    hu[x < 12] = 500.0  # bone
    hu[(z - 30) ** 2 + (y - 20) ** 2 < 64] = 40.0  # bowel
    labels[(x > 90) & (z <= 92)] = 5
    hu[labels == 5] = 100.0
    hu += np.random.default_rng(2).normal(0, sd_hu, shape)
    return ArrayVolume(hu.astype(np.float32), labels, tuple(spacing_mm))


def placed(volume: ArrayVolume, size: str, count: int) -> list[Placement]:
    statistics = measured(volume, KIDNEY)
    sampler = TumorSampler(KIDNEY)
    found = [sampler.sample(volume, statistics, np.random.default_rng((1, i)), size=size) for i in range(count)]
    return [place for place in found if isinstance(place, Placement)]


@pytest.mark.parametrize(("size", "spacing_mm"), [("medium", (1.5, 1.5, 1.5)), ("small", (4.0, 0.9, 0.9))])
def test_exophytic_tumors_stop_where_they_must_and_are_hardly_cut(size, spacing_mm):
    volume = kidney_scan(spacing_mm)
    lung = np.arange(volume.shape[0]) * spacing_mm[0] > 96
    to_lung_mm = np.broadcast_to(distance_transform_edt(~lung, sampling=spacing_mm[0])[:, None, None], volume.shape)
    grown = [place for place in placed(volume, size, 16) if place.spec.exophytic]
    assert len(grown) >= 6
    for place in grown:
        after = copy_of(volume)
        tumor = insert_tumors(after, [place.spec], KIDNEY)[0]
        mask = after.label_array == 2
        outside = mask & (volume.label_array != 1)
        assert (volume.label_array[outside] == 0).all()
        assert 0.2 <= outside.sum() / mask.sum() <= 0.8
        assert to_lung_mm[mask].min() >= 2
        assert np.prod(spacing_mm) * mask.sum() >= 0.84 * survey(place.spec).volume_mm3
        beyond = outside & (distance_transform_edt(volume.label_array != 1, sampling=spacing_mm) > 4.5)
        assert np.median(volume.hu_array[beyond]) < -60 if beyond.any() else True
        assert tumor.mask.sum() == mask.sum()


def test_most_large_tumors_of_a_kidney_grow_out():
    found = placed(kidney_scan((3.0, 3.0, 3.0)), "large", 16)
    assert len(found) == 16
    assert np.mean([place.spec.exophytic for place in found]) >= 0.8


def test_fat_with_strands_is_room_and_lung_bone_and_their_borders_are_not():
    volume = kidney_scan((1.0, 1.0, 1.0))
    volume.hu_array[20:40, 79, :] = 30.0  # a strand
    z, y, _ = np.meshgrid(*[np.arange(n, dtype=float) for n in volume.shape], indexing="ij")
    volume.hu_array[(z > 99) & (z < 101)] = -100.0  # between air and soft tissue there are HU of fat
    tumor = spec(exophytic=True, growth_radius_mm=4.0)
    room = room_of(volume.hu_array, volume.label_array, tumor, organ=KIDNEY, spacing_mm=(1, 1, 1))
    assert room[volume.label_array == 1].mean() > 0.99
    assert room[25:35, 76:82, 50:60].all()
    assert not room[volume.label_array == 5].any()
    assert not room[93:].any()
    assert not room[:, 98:].any()
    assert not room[:, :, :13].any()
    assert not room[(z - 30) ** 2 + (y - 20) ** 2 < 49].any()


def test_a_map_of_the_room_knows_where_there_is_fat():
    volume = kidney_scan()
    room = GrowthMap(volume, measured(volume, KIDNEY), KIDNEY)
    points = np.array([[[52.0, 55.0, 55.0]], [[52.0, 80.0, 55.0]], [[104.0, 55.0, 55.0]], [[52.0, 55.0, 5.0]]])
    assert room.share_of(points).tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(("growth_radius_mm", "longest_mm"), [(4.0, 3.5), (0.0, 30.0)])
def test_thin_room_makes_no_spike(growth_radius_mm, longest_mm):
    """A ball of 10 mm fits, and a finger of 3 x 3 mm beside it is room too."""
    z, y, x = np.meshgrid(*[np.arange(61.0) - 30] * 3, indexing="ij")
    room = (z**2 + y**2 + x**2 <= 100) | ((abs(z) <= 1) & (abs(y) <= 1) & (x > 0) & (x < 22))
    tumor = spec(
        centre_mm=(30.0,) * 3, semi_axes_mm=(26.0,) * 3, exophytic=True, growth_radius_mm=growth_radius_mm,
    )  # fmt: skip
    mask = mask_in(tumor, whole(room.shape), (1.0, 1.0, 1.0), room)
    length = np.nonzero(mask)[2].max() - 30 - 10
    assert mask[30, 30, 38]
    assert length == pytest.approx(11, abs=1) if growth_radius_mm == 0 else length <= longest_mm


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.5, 0.8, 0.8), (0.7, 0.7, 0.7)])
def test_a_capsule_is_as_thick_on_every_grid_and_brightens_nothing_outside(spacing_mm):
    before = liver_scan(60.0, spacing_mm, sd_hu=0.0)
    plain = spec(centre_mm=(30.0,) * 3, semi_axes_mm=(14.0,) * 3, texture_sd_hu=0.0, contrast_hu=-30.0)
    pictures = []
    for tumor in (plain, replace(plain, capsule_hu=50.0, capsule_mm=2.0)):
        after = copy_of(before)
        rendered = insert_tumors(after, [tumor], LIVER)[0]
        pictures.append(after.hu_array)
    gain = pictures[1] - pictures[0]
    mask = after.label_array == 2
    assert (gain[~mask] == 0).all()
    assert 35 < gain.max() <= 50
    # Its outer side is blended as the tumor's edge is, its inner side half as blurred.
    depth = np.linspace(0, 8, 2000)
    profile = ndtr(depth / 0.9) * ndtr((2.0 - depth) / 0.45) * 4 * np.pi * (14 - depth) ** 2
    assert gain.sum() * np.prod(spacing_mm) == pytest.approx(50 * np.trapezoid(profile, depth), rel=0.06)
    assert rendered.mask.sum() == mask.sum()


def test_capsules_enhance_with_the_scan():
    statistics = measured(liver_scan(60.0))
    brightness = {}
    for organ_hu in (110.0, 50.0):
        rng = np.random.default_rng(0)
        drawn = [
            PRESETS["realistic"].draw("liver", "large", statistics=replace(statistics, parenchyma_hu=organ_hu), rng=rng)
            for _ in range(200)
        ]
        with_capsule = [tumor for tumor in drawn if tumor.capsule_hu > 0]
        assert 10 <= len(with_capsule) <= 55
        assert all(1 <= tumor.capsule_mm <= 2.5 for tumor in with_capsule)
        brightness[organ_hu] = np.median([tumor.capsule_hu for tumor in with_capsule])
    assert brightness[50.0] / brightness[110.0] == pytest.approx(30 / 90, rel=0.15)


def test_a_tumor_that_grows_out_is_where_its_region_says():
    """The mask that was placed is the one that is rendered."""
    volume = kidney_scan()
    for place in placed(volume, "small", 6):
        box = region_of(place.spec, volume.shape, volume.spacing_mm)
        after = copy_of(volume)
        tumor = insert_tumors(after, [place.spec], KIDNEY)[0]
        assert tumor.box == box
        millimetres = tumor.mask.sum() * np.prod(volume.spacing_mm)
        assert (6 * millimetres / np.pi) ** (1 / 3) == pytest.approx(place.diameter_mm, rel=1e-6)
