"""Tumors of hollow organs: in the wall and out of it, never in the lumen, whatever the mask holds."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tiny_networks
from phantom_colon import FLUID_HU, ORGAN, WALL_HU, Colon, colon
from scipy.ndimage import binary_dilation, distance_transform_edt

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.handcrafted import HandcraftedRenderer
from nnunet_difftumor.synthesis.organ import HOLLOW_ORGANS, Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.placement.sampler import Placement, TumorSampler, equivalent_diameter_mm
from nnunet_difftumor.synthesis.scene import insert_tumors, rendered_in
from nnunet_difftumor.synthesis.shape.wall import enclosed_in, is_too_thin, measured_wall_mm
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import ArrayVolume

COMMAND = Path(sys.executable).with_name("difftumor")


def statistics_of(found: Colon, organ: Organ = ORGAN) -> OrganStatistics:
    volume = found.volume
    return OrganStatistics.measure(volume.hu_array, volume.label_array, organ=organ, spacing_mm=volume.spacing_mm)


@pytest.fixture(scope="module", params=[False, True], ids=["mask of the whole organ", "mask of the wall alone"])
def found(request) -> Colon:
    return colon(wall_alone=request.param)


def in_whole_scan(found: Colon, box, mask: np.ndarray) -> np.ndarray:
    whole = np.zeros(found.volume.shape, bool)
    whole[box] = mask
    return whole


def check_tumors(found: Colon, count: int, *, organ: Organ = ORGAN, seed: int = 0, preset: str = "realistic") -> None:
    """So many tumors, of all sizes: none in the lumen, all joined to the wall, sizes in their bands for 90 %."""
    volume, statistics = found.volume, statistics_of(found, organ)
    sampler, rng, sizes = TumorSampler(organ, preset), np.random.default_rng(seed), list(SIZE_BANDS_MM)
    in_band = 0
    for number in range(count):
        size = sizes[number % len(sizes)]
        placed = sampler.sample(volume, statistics, rng, size=size)
        if not isinstance(placed, Placement):
            continue
        tumor = rendered_in(volume, placed.spec, organ, renderer=HandcraftedRenderer())
        mask = in_whole_scan(found, tumor.box, tumor.mask)
        assert not (mask & found.lumen).any(), number
        np.testing.assert_array_equal(tumor.hu[found.lumen[tumor.box]], volume.hu(tumor.box)[found.lumen[tumor.box]])
        diameter_mm = equivalent_diameter_mm(mask, volume.spacing_mm)
        # A fifth of a disc as wide as the tumor and as thick as the thinnest wall, or of the tumor.
        disc, ball = np.pi / 4 * diameter_mm**2 * statistics.wall_mm, np.pi / 6 * diameter_mm**3
        wall_mm3 = np.count_nonzero(mask & found.wall) * np.prod(volume.spacing_mm)
        assert wall_mm3 >= 0.19 * min(disc, ball), number
        low, high = SIZE_BANDS_MM[size]
        in_band += low <= diameter_mm < high
        assert (tumor.labels[tumor.mask] == organ.tumor_label).all()
    assert in_band >= 0.9 * count


@pytest.mark.slow(file_seconds=30)
def test_tumors_are_joined_to_the_wall_and_never_in_the_lumen(found):
    check_tumors(found, 16)


@pytest.mark.long
@pytest.mark.parametrize("wall_alone", [False, True])
def test_two_hundred_tumors_are_joined_to_the_wall_and_never_in_the_lumen(wall_alone):
    check_tumors(colon(wall_alone=wall_alone), 200, seed=1)


@pytest.mark.parametrize(
    "spacing_mm", [(5.0, 1.5, 1.5), (2.0, 2.0, 2.0), pytest.param((2.5, 0.9, 0.9), marks=pytest.mark.long)]
)
def test_thick_slices_and_other_spacings(spacing_mm):
    check_tumors(colon(spacing_mm=spacing_mm), 4)


@pytest.mark.parametrize("preset", ["hu2023_visual", "difftumor"])
def test_presets_that_draw_all_organs_alike_grow_from_the_wall_too(found, preset):
    check_tumors(found, 4, preset=preset)


def test_a_stated_wall_decides(found):
    """Also for an organ whose name says nothing. Half a voxel less than the thinnest place: voxels are steps."""
    organ = Organ("tube", (1,), 2, (2,), wall_mm=2.25)
    assert statistics_of(found, organ).wall_mm == 2.25
    check_tumors(found, 4, organ=organ)


@pytest.mark.parametrize("thinner", [0.0, -2.0, -4.0])
def test_the_wall_is_measured_where_it_is_thin(thinner):
    """Between 3 and 4 mm, or so much more."""
    found = colon(thinner=thinner)
    measured, limited = (
        measured_wall_mm(
            found.volume.hu_array,
            found.volume.label_array == 1,
            greatest_mm=greatest_mm,
            spacing_mm=found.volume.spacing_mm,
        )
        for greatest_mm in (12.0, 1.75)
    )
    # Up to a voxel of 1.5 mm less, never more.
    assert 3.0 - thinner - 1.5 <= measured <= 3.0 - thinner + 0.25 and limited == 1.75


def test_a_wall_that_looks_like_what_is_in_it_is_taken_as_stated_at_most():
    found = colon(spacing_mm=(2.0, 2.0, 2.0))
    hu = np.where(found.lumen | found.wall, WALL_HU, -100).astype(np.float32)
    hu += np.random.default_rng(0).normal(0, 10, hu.shape).astype(np.float32)
    assert measured_wall_mm(hu, found.lumen | found.wall, greatest_mm=5.0, spacing_mm=(2.0, 2.0, 2.0)) == 5.0


def test_bright_contents_are_lumen_too():
    """Oral contrast agent."""
    found = colon(spacing_mm=(1.5, 1.5, 1.5))
    hu = found.volume.hu_array.copy()
    hu[found.lumen] += 300 - FLUID_HU
    volume = ArrayVolume(hu, found.volume.label_array, found.volume.spacing_mm)
    check_tumors(Colon(volume, found.wall, found.lumen), 8)


def test_gas_is_lumen_where_hu_are_cut_off_too(found):
    """As in prepared datasets."""
    hu = np.clip(found.volume.hu_array, -175, 250)
    check_tumors(found._replace(volume=ArrayVolume(hu, found.volume.label_array, found.volume.spacing_mm)), 8)


def test_statistics_are_those_of_the_wall(found):
    statistics = statistics_of(found)
    assert statistics.parenchyma_hu == pytest.approx(WALL_HU, abs=12) and not statistics.vessel_cells.any()
    # That of the whole mask would be far below: gas and fluid.
    assert found.volume.hu_array[found.wall | found.lumen].mean() < -100


def test_muscle_beside_the_fat_does_not_close_it():
    """What is outside is one piece, of which little is fat."""
    found = colon(spacing_mm=(2.0, 2.0, 2.0))
    solid = found.wall | found.lumen
    distance_mm = 2.0 * distance_transform_edt(~solid)
    hu = np.where(distance_mm > 10, 50, found.volume.hu_array).astype(np.float32)
    for mask, lumen in ((solid, False), (found.wall, True)):
        closed = enclosed_in(hu, mask, spacing_mm=(2.0, 2.0, 2.0))
        assert not closed[(distance_mm > 0) & (distance_mm < 8)].any()
        assert not lumen or closed[found.lumen].mean() > 0.95


def test_the_outermost_places_are_wall_too():
    """Where the mask ends at the end of its box."""
    labels = np.zeros((30, 30, 30), np.int16)
    labels[5:25, 5:25, 5:25] = 1
    hu = np.where(labels == 1, 60, -100).astype(np.float32)
    statistics = OrganStatistics.measure(
        hu, labels, organ=Organ("tube", (1,), 2, wall_mm=2.0), spacing_mm=(1.0, 1.0, 1.0)
    )
    # Two voxels of depth 0.5 and 1.5 mm on each side of 20.
    assert statistics.volume_ml == pytest.approx((20**3 - 16**3) / 1000)


def test_statistics_of_a_wall_are_saved_and_those_of_before_are_read(found, tmp_path):
    statistics = statistics_of(found)
    statistics.save(tmp_path / "new.npz")
    assert OrganStatistics.load(tmp_path / "new.npz").wall_mm == statistics.wall_mm > 0
    with np.load(tmp_path / "new.npz") as stored:
        np.savez(tmp_path / "old.npz", **{key: stored[key] for key in stored.files if key != "wall_mm"})
    assert OrganStatistics.load(tmp_path / "old.npz").wall_mm == 0.0


def test_a_second_tumor_does_not_make_the_lumen_wall(found):
    """The first one is not taken for outside, below which there would be wall again."""
    volume = found.volume
    volume = ArrayVolume(volume.hu_array.copy(), volume.label_array.copy(), volume.spacing_mm)
    both = Colon(volume, found.wall, found.lumen)
    sampler, rng = TumorSampler(ORGAN), np.random.default_rng(3)
    first = sampler.sample(volume, statistics_of(both), rng, size="medium")
    assert isinstance(first, Placement)
    insert_tumors(volume, [first.spec], ORGAN)
    # In the same place.
    second = replace(first.spec, seed=first.spec.seed + 1, semi_axes_mm=tuple(1.5 * a for a in first.spec.semi_axes_mm))
    (tumor,) = insert_tumors(volume, [second], ORGAN)
    assert not (in_whole_scan(both, tumor.box, tumor.mask) & found.lumen).any()


def beside_lumen(found: Colon, spec: TumorSpec) -> TumorSpec:
    """The tumor with its centre at the inner side of the wall."""
    inner = np.argwhere(binary_dilation(found.lumen) & (found.volume.label_array == 1) & ~found.lumen)
    return replace(spec, centre_mm=tuple(float(mm) for mm in inner[len(inner) // 2] * found.volume.spacing_mm))


def test_the_lumen_is_filled_only_if_the_spec_says_so():
    found = colon()
    placed = TumorSampler(ORGAN).sample(found.volume, statistics_of(found), np.random.default_rng(0), size="medium")
    assert isinstance(placed, Placement) and placed.spec.wall_mm > 0 and not placed.spec.fills_lumen
    inwards = replace(beside_lumen(found, placed.spec), fills_lumen=True)
    tumor = rendered_in(found.volume, inwards, ORGAN, renderer=HandcraftedRenderer())
    assert (in_whole_scan(found, tumor.box, tumor.mask) & found.lumen).sum() > 20
    assert TumorSpec.from_dict(inwards.to_dict()) == inwards


def test_a_spec_of_before_means_what_it_meant():
    """No wall: all of the mask is organ."""
    found = colon()
    placed = TumorSampler(ORGAN).sample(found.volume, statistics_of(found), np.random.default_rng(0), size="medium")
    record = replace(beside_lumen(found, placed.spec), exophytic=False).to_dict()
    old = TumorSpec.from_dict({k: v for k, v in record.items() if k not in ("wall_mm", "fills_lumen")})
    tumor = rendered_in(found.volume, old, ORGAN, renderer=HandcraftedRenderer())
    mask = in_whole_scan(found, tumor.box, tumor.mask)
    assert (mask & found.lumen).any() and (found.volume.label_array[mask] == 1).all()


@pytest.mark.parametrize(
    ("name", "wall_mm"), [("colon", 5.0), ("Sigmoid_colon", 5.0), ("gallbladder", 4.0), ("liver", 0.0)]
)
def test_names_of_hollow_organs(name, wall_mm):
    assert Organ(name, (1,), 2).greatest_wall_mm == wall_mm
    assert Organ(name, (1,), 2, wall_mm=0.0).greatest_wall_mm == 0.0
    assert all(0 < limit <= 15 for limit in HOLLOW_ORGANS.values())


@pytest.mark.parametrize("organ", [Organ("liver", (1,), 2), Organ("colon", (1,), 2), Organ("colon", (1,), 2, (), 0.0)])
def test_records_of_organs_give_equal_organs(organ):
    assert Organ.from_dict(json.loads(json.dumps(organ.to_dict()))) == organ
    assert ("wall_mm" in organ.to_dict()) == (organ.name == "colon")  # solid ones are recorded as they always were


def test_a_mask_is_thinner_than_two_voxels_if_most_of_it_is_in_no_block_of_eight():
    sheet = np.zeros((10, 12, 14), bool)
    sheet[4] = True
    assert is_too_thin(sheet)
    sheet[5] = True
    assert not is_too_thin(sheet)


def write(found: Colon, folder: Path, labels: np.ndarray) -> list[str]:
    folder.mkdir()
    affine = np.diag([*found.volume.spacing_mm[::-1], 1.0])
    nib.save(nib.Nifti1Image(found.volume.hu_array.T.astype(np.int16), affine), folder / "ct.nii.gz")
    nib.save(nib.Nifti1Image(labels.T.astype(np.uint8), affine), folder / "colon.nii.gz")
    words = ["synthesize", folder / "ct.nii.gz", "--organ-mask", folder / "colon.nii.gz", "-o", folder / "out"]
    return [str(word) for word in [*words, "--size", "small", "--count", 2]]


def test_the_command_says_that_the_organ_is_hollow_and_the_manifest_gives_the_same_voxels(tmp_path):
    found = colon(spacing_mm=(2.0, 2.0, 2.0))
    words = write(found, tmp_path / "case", found.volume.label_array)
    done = subprocess.run([COMMAND, *words, "--organ", "colon"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "NOTE: organ colon: hollow; tumors grow in its wall (measured, at most 5 mm)" in done.stdout
    out = tmp_path / "case" / "out"
    manifest = json.loads((out / "manifest.json").read_text())
    mask = np.asarray(nib.load(out / "tumor_mask.nii.gz").dataobj).T > 0
    assert mask.any() and not (mask & found.lumen).any()
    walls = {tumor["spec"]["wall_mm"] for tumor in manifest["tumors"]}
    assert {round(wall, 2) for wall in walls} == {manifest["organ"]["wall_mm_taken"]}
    again = ["synthesize", *words[1:4], "-o", str(tmp_path / "again"), "--from-spec", str(out / "manifest.json")]
    assert main(again) == 0
    assert json.loads((tmp_path / "again" / "manifest.json").read_text())["outputs"] == manifest["outputs"]


def test_a_model_of_another_organ_draws_in_the_wall_and_leaves_the_lumen(tmp_path):
    """Also where the wall is thicker than what the networks see beside a tumor otherwise."""
    found = colon(wall_alone=True, spacing_mm=(2.0, 2.0, 2.0))
    weights = tiny_networks.write_weights(tmp_path / "weights", "liver_early")
    words = write(found, tmp_path / "case", found.volume.label_array)
    options = ["--organ", "colon", "--renderer", "diffusion", "--weights", str(weights)]
    assert main([*words, *options]) == 2  # nothing is chosen in silence
    assert main([*words, *options, "--weights-organ", "liver", "--wall-mm", "12"]) == 0
    out = tmp_path / "case" / "out"
    mask = np.asarray(nib.load(out / "tumor_mask.nii.gz").dataobj).T > 0
    before, after = (
        np.asarray(nib.load(path).dataobj).T for path in (tmp_path / "case" / "ct.nii.gz", out / "ct.nii.gz")
    )
    assert (before != after)[mask].mean() > 0.8 and not (mask & found.lumen).any()
    np.testing.assert_array_equal(after[found.lumen], before[found.lumen])
    assert json.loads((out / "manifest.json").read_text())["renderer"]["organ"] == "liver"


def test_a_wall_thinner_than_two_voxels_and_an_impossible_one_are_refused_in_a_line(tmp_path, capsys):
    found = colon(spacing_mm=(2.0, 2.0, 2.0))
    skin = found.wall & ~np.roll(found.wall, 1, 0) & found.wall
    words = write(found, tmp_path / "case", skin)
    assert main([*words, "--organ", "colon"]) == 2
    error = capsys.readouterr().err
    assert "organ colon: its mask is thinner than two voxels of 2 x 2 x 2 mm" in error and error.count("\n") == 1
    assert main([*words, "--organ", "colon", "--wall-mm", "60"]) == 2
    assert "--wall-mm is 60, expected 0 to 50" in capsys.readouterr().err
    assert not (tmp_path / "case" / "out").exists()


def test_a_mask_of_gas_has_no_wall_and_a_solid_organ_needs_none():
    found = colon()
    with pytest.raises(InputError, match="holds gas alone"):
        hu = np.full(found.volume.shape, -900.0, np.float32)
        OrganStatistics.measure(hu, found.volume.label_array, organ=ORGAN, spacing_mm=found.volume.spacing_mm)
    solid = Organ("colon", (1,), 2, wall_mm=0.0)
    assert statistics_of(found, solid).wall_mm == 0.0
