"""Tumors that nobody could see, and tumors that change voxels out of their reach: counted, refused, drawn again."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scans import body, command, save
from tumors import LIVER, copy_of, liver_scan, spec

from nnunet_difftumor import synthesize_arrays
from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.handcrafted import HandcraftedRenderer
from nnunet_difftumor.synthesis.patch import tissue_around
from nnunet_difftumor.synthesis.scene import insert_tumors, patch_of, rendered_in
from nnunet_difftumor.synthesis.visibility import check_reach, is_faint, too_faint
from nnunet_difftumor.synthesis.volume import ArrayVolume
from nnunet_difftumor.synthesis.volume import whole as whole_box

NOISE_HU = 10.0


def noisy_liver() -> ArrayVolume:
    """Liver everywhere: 100 HU with Gaussian noise of 10 HU."""
    hu = np.random.default_rng(0).normal(100, NOISE_HU, (40, 40, 40)).astype(np.float32)
    return ArrayVolume(hu, np.ones(hu.shape, np.int16), (1.0, 1.0, 1.0))


def drawn(volume, **changes):
    return rendered_in(volume, spec(texture_sd_hu=0.0, **changes), LIVER, renderer=HandcraftedRenderer())


@pytest.mark.parametrize(("contrast_hu", "ratio"), [(-40.0, 4.0), (25.0, 2.5), (-3.0, 0.3), (0.0, 0.0)])
def test_contrast_to_noise_is_the_contrast_over_the_noise_around(contrast_hu, ratio):
    tumor = drawn(noisy_liver(), contrast_hu=contrast_hu, edge_blur_mm=0.1)
    assert tumor.around.hu == pytest.approx(100, abs=0.5)
    assert tumor.around.sd_hu == pytest.approx(NOISE_HU, rel=0.05)
    # Voxels at the edge are tumor in part.
    assert tumor.measured_contrast_hu() == pytest.approx(contrast_hu, abs=0.5 + 0.05 * abs(contrast_hu))
    assert tumor.contrast_to_noise() == pytest.approx(ratio, abs=0.1 + 0.05 * ratio)
    assert is_faint(tumor) == (ratio < 0.5)


def test_the_tissue_around_is_measured_and_not_taken_from_the_spec():
    """A spec that was edited, or whose background is the mean of a whole organ that is uneven."""
    tumor = drawn(noisy_liver(), contrast_hu=-40.0, background_hu=140.0)
    assert abs(tumor.measured_contrast_hu()) < 2 and is_faint(tumor)


def test_vessels_beside_a_tumor_do_not_count_as_noise():
    volume = noisy_liver()
    volume.hu_array[10:30, 10:30, 30:32] = 220
    assert drawn(volume).around == pytest.approx((100, NOISE_HU), rel=0.1)


def test_without_noise_a_contrast_of_whole_hu_is_seen_and_without_tissue_around_nothing_is_said():
    even = ArrayVolume(np.full((40, 40, 40), 100, np.float32), np.ones((40, 40, 40), np.int16), (1.0, 1.0, 1.0))
    assert drawn(even, contrast_hu=-5.0, edge_blur_mm=0.1).contrast_to_noise() == pytest.approx(5, abs=0.3)
    assert (
        tissue_around(patch_of(even, spec(), LIVER, box=whole_box(even.shape)), even.label_array > 0, wall_mm=0) is None
    )
    alone = replace(drawn(even, contrast_hu=0.0), around=None)
    assert alone.contrast_to_noise() is None and not is_faint(alone) and too_faint(alone, 10.0) is None


class Smearing(HandcraftedRenderer):
    """Changes a voxel that the spec does not reach."""

    def __init__(self, what: str) -> None:
        self.what = what

    def region(self, volume, spec):
        return tuple(slice(0, size) for size in volume.shape)

    def render(self, patches, specs):
        (tumor,) = super().render(patches, specs)
        (patch,) = patches
        hu, labels, mask = patch.hu.copy(), patch.labels.copy(), np.zeros(patch.hu.shape, bool)
        for whole, part in ((hu, tumor.hu), (labels, tumor.labels), (mask, tumor.mask)):
            whole[tumor.box] = part
        if self.what == "hu":
            hu[2, 2, 2] += 1
        elif self.what == "labels":
            labels[2, 2, 2] = 2
        return [replace(tumor, box=patch.box, hu=hu, labels=labels, mask=mask)]


PUSHING = {"mass_effect": 0.5, "mass_effect_radius_mm": 15.0}


@pytest.mark.parametrize("changes", [{}, PUSHING])
@pytest.mark.parametrize("what", ["hu", "labels"])
def test_a_change_out_of_reach_is_refused_and_nothing_is_written(what, changes):
    before = liver_scan()
    after = copy_of(before)
    with pytest.raises(InputError, match="of liver at 20, 20, 20 mm: 1 voxels are changed beyond its reach"):
        insert_tumors(after, [spec(**changes)], LIVER, renderer=Smearing(what))
    np.testing.assert_array_equal(after.hu_array, before.hu_array)
    np.testing.assert_array_equal(after.label_array, before.label_array)


@pytest.mark.parametrize("changes", [{}, PUSHING])
def test_what_a_spec_reaches_may_be_changed_in_a_region_of_any_size(changes):
    volume = liver_scan()
    (tumor,) = insert_tumors(copy_of(volume), [spec(**changes)], LIVER, renderer=Smearing("nothing"))
    assert tumor.mask.any()
    check_reach(tumor, volume)


def test_a_tumor_that_is_too_faint_is_drawn_again_and_the_same_each_time():
    hu, labels = (array.transpose(2, 1, 0) for array in body())
    options = {"spacing_mm": (2.5, 2.0, 2.0), "size": "tiny", "count": 4, "contrast_hu": (-30, 30), "seed": 11}
    anything = synthesize_arrays(hu, labels == 1, **options)
    seen = synthesize_arrays(hu, labels == 1, minimum_contrast_to_noise=0.8, **options)
    again = synthesize_arrays(hu, labels == 1, minimum_contrast_to_noise=0.8, **options)
    assert seen.specs == again.specs and np.array_equal(seen.hu, again.hu)
    # Those that are refused are replaced where another finds room, and the others stay where they are.
    kept = set(anything.specs) & set(seen.specs)
    assert 0 < len(kept) < len(anything.specs) and len(seen.specs) >= len(kept)
    # Soft edges take a part of the contrast.
    assert (
        min(abs(one.contrast_hu) for one in anything.specs) < 0.8 * 13 < min(abs(one.contrast_hu) for one in seen.specs)
    )
    none = synthesize_arrays(hu, labels == 1, minimum_contrast_to_noise=0, **options)
    assert none.specs == anything.specs


def test_if_no_tumor_can_be_seen_it_is_said(case, tmp_path, capsys):
    # Without capsules, which are seen whatever the tissue's contrast.
    options = ("--preset", "hu2023", "--contrast-hu", 0, 1, "--size", "small", "--count", 2)
    options += ("--minimum-contrast-to-noise", 1)
    assert main(command(case, tmp_path / "out", *options)) == 2
    message = capsys.readouterr().err
    assert "none of the tumors that were drawn has a contrast of 1 times the noise" in message
    assert "--minimum-contrast-to-noise" in message and not (tmp_path / "out").exists()
    assert main(command(case, tmp_path / "out", "--minimum-contrast-to-noise", 11)) == 2
    assert "--minimum-contrast-to-noise is 11, expected a number from 0 to 10" in capsys.readouterr().err


@pytest.mark.slow
def test_the_installed_command_counts_and_refuses_on_a_real_ct(test_data, tmp_path):
    script, scan = Path(sys.executable).with_name("difftumor"), test_data / "abdomen_3mm"
    words = [script, "synthesize", scan / "ct.nii.gz", "--organ-mask", scan / "labels.nii.gz", "--organ-label", 5]
    words += ["--organ", "liver", "--size", "small", "--count", 3, "--contrast-hu", -12, 0, "--seed", 1]

    def run(output, *more):
        done = subprocess.run([*map(str, [*words, "-o", output, *more])], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout, json.loads((output / "manifest.json").read_text())

    said, manifest = run(tmp_path / "counted")
    faint = [tumor["faint"] for tumor in manifest["tumors"]]
    assert len(faint) == 3 and sum(faint) > 0
    assert f"; hardly to be seen: {sum(faint)} (contrast below 0.5 times the noise)" in said
    assert [tumor["contrast_to_noise"] < 0.5 for tumor in manifest["tumors"]] == faint
    # As anybody would measure it in the files.
    before, after, mask, labels = (
        np.asarray(nib.load(path).dataobj)
        for path in (scan / "ct.nii.gz", *(tmp_path / "counted" / f"{n}.nii.gz" for n in ("ct", "tumor_mask")),
                     scan / "labels.nii.gz")
    )  # fmt: skip
    for tumor in manifest["tumors"]:
        centre = np.rint(np.array(tumor["spec"]["centre_mm"])[::-1] / 3).astype(int)
        near = tuple(slice(max(0, c - 5), c + 6) for c in centre)
        tissue = before[near][(labels[near] == 5) & (mask[near] == 0)]
        inside = after[near][mask[near] > 0].mean()
        assert tumor["measured_contrast_hu"] == pytest.approx(inside - np.median(tissue), abs=3)

    said, manifest = run(tmp_path / "seen", "--minimum-contrast-to-noise", "0.5")
    assert manifest["tumors"] and all(tumor["contrast_to_noise"] >= 0.5 for tumor in manifest["tumors"])
    reasons = [miss["reason"] for miss in manifest["not_placed"]]
    assert "contrast is less than 0.5 times the noise" in reasons and f"not placed: {len(reasons)}" in said
    assert manifest["settings"]["minimum_contrast_to_noise"] == 0.5
    # The manifest replays as ever, with what it has.
    assert "the same voxels" in subprocess.run(
        [script, "synthesize", scan / "ct.nii.gz", "--organ-mask", scan / "labels.nii.gz", "-o", tmp_path / "again",
         "--from-spec", tmp_path / "seen" / "manifest.json"], capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def test_a_folder_of_scans_says_it_for_each(tmp_path, capsys):
    hu, labels = body()
    for name in ("a", "b"):
        save(tmp_path / "scans" / f"{name}.nii.gz", hu)
        save(tmp_path / "masks" / f"{name}.nii.gz", labels == 1, dtype=np.uint8)
    words = ["synthesize", tmp_path / "scans", "--organ-mask", tmp_path / "masks", "-o", tmp_path / "out"]
    words += ["--size", "tiny", "--count", 2, "--contrast-hu", 0]
    assert main([*map(str, words)]) == 0
    assert capsys.readouterr().out.count("hardly to be seen: 2 ") == 2
