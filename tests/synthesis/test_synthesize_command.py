import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scans import LPS, OBLIQUE, RAS, SPACING_XYZ, body, command, content, files_below, save
from scipy.ndimage import center_of_mass

from nnunet_difftumor import __version__
from nnunet_difftumor.cli.main import main
from nnunet_difftumor.ct import read_ct
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.placement.sampler import equivalent_diameter_mm
from nnunet_difftumor.synthesis.scans import folder as module
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM
from nnunet_difftumor.synthesis.spec import TumorSpec

OUTPUTS = {"ct.nii.gz", "tumor_mask.nii.gz", "labels.nii.gz", "preview.png", "report.html", "manifest.json"}


def test_the_output_folder_holds_what_is_promised(case, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(command(case, out, "--size", "small", "--count", 2, "--organ", "liver", "--seed", 3)) == 0
    assert files_below(out) == OUTPUTS
    assert capsys.readouterr().out.count(" mm ") == 2

    before, after = nib.load(case / "ct.nii.gz"), nib.load(out / "ct.nii.gz")
    ignored = {"descrip"}
    for name in before.header:
        if name not in ignored:
            np.testing.assert_array_equal(after.header[name], before.header[name], err_msg=name)
    assert after.get_data_dtype() == np.int16
    assert b"SYNTHETIC" in after.header["descrip"].item()

    mask = nib.load(out / "tumor_mask.nii.gz")
    tumor = np.asarray(mask.dataobj).astype(bool)
    np.testing.assert_array_equal(mask.affine, before.affine)
    organ = np.asarray(nib.load(case / "liver.nii.gz").dataobj)
    labels = np.asarray(nib.load(out / "labels.nii.gz").dataobj)
    np.testing.assert_array_equal(labels, np.where(tumor, 2, organ))
    assert (organ[tumor] == 1).all()

    stored_before, stored_after = (np.asarray(image.dataobj.get_unscaled()) for image in (before, after))
    changed = stored_before != stored_after
    assert changed[tumor].mean() > 0.9
    manifest = json.loads((out / "manifest.json").read_text())
    spacing, centres = np.array(SPACING_XYZ), [record["spec"]["centre_mm"] for record in manifest["tumors"]]
    positions = np.argwhere(changed) * spacing
    nearest = min_distance(positions, centres)
    assert nearest.max() < 20 / 2 + 3 * 1.2 + 8, "far away from both tumors every stored value is as it was"

    from matplotlib.image import imread

    picture = imread(out / "preview.png")
    assert picture.shape[0] > 300 and picture.shape[1] > 1000
    red = (picture[..., 0] > 0.9) & (picture[..., 1] < 0.4)
    assert red.any(), "the contour"


def min_distance(positions, centres_zyx):
    return np.min([np.linalg.norm(positions - np.array(centre)[::-1], axis=1) for centre in centres_zyx], axis=0)


def test_the_manifest_is_complete(case, tmp_path):
    out = tmp_path / "out"
    options = ["--size", "tiny", "--count", 2, "--organ", "liver", "--contrast-hu", -40, -30, "--seed", 11]
    assert main(command(case, out, *options)) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["synthetic"] is True
    assert manifest["versions"]["nnunet_difftumor"] == __version__
    assert {"numpy", "scipy", "python"} < set(manifest["versions"])
    assert manifest["inputs"]["ct"]["file"] == "ct.nii.gz"
    assert all(len(manifest["inputs"][name]["sha256"]) == 64 for name in ("ct", "organ_mask"))
    assert manifest["settings"]["seed"] == 11
    assert manifest["settings"]["contrast_hu"] == [-40, -30]
    assert manifest["organ"]["name"] == "liver"
    assert manifest["organ"]["organ_labels"] == [1]
    assert manifest["organ"]["tumor_label"] == 2
    assert manifest["not_placed"] == []
    mask = np.asarray(nib.load(out / "tumor_mask.nii.gz").dataobj)
    assert len(manifest["tumors"]) == 2
    volume = 0
    for tumor in manifest["tumors"]:
        spec = TumorSpec.from_dict(tumor["spec"])
        assert -40 <= spec.contrast_hu <= -30
        assert 5 <= tumor["equivalent_diameter_mm"] < 10
        assert tumor["vessel_share"] == 0
        volume += np.pi / 6 * tumor["equivalent_diameter_mm"] ** 3
    assert volume == pytest.approx(mask.sum() * 10, rel=0.01)


def test_tumors_are_merged_into_the_given_label_map(tmp_path):
    hu, labels = body()
    save(tmp_path / "ct.nii.gz", hu)
    save(tmp_path / "liver.nii.gz", labels, dtype=np.uint8)
    out = tmp_path / "out"
    assert main(command(tmp_path, out, "--organ-label", 1, "--size", "tiny", "--count", 1)) == 0
    merged = np.asarray(nib.load(out / "labels.nii.gz").dataobj)
    tumor = np.asarray(nib.load(out / "tumor_mask.nii.gz").dataobj) == 1
    np.testing.assert_array_equal(merged, np.where(tumor, 4, labels))

    real = labels.copy()
    real[20:24, 20:24, 18:20] = 2
    save(tmp_path / "liver.nii.gz", real, dtype=np.uint8)
    options = ["--organ-label", 1, "--avoid-label", 2, "--tumor-label", 2, "--size", "tiny", "--count", 1]
    assert main(command(tmp_path, tmp_path / "merged", *options)) == 0
    merged = np.asarray(nib.load(tmp_path / "merged" / "labels.nii.gz").dataobj)
    tumor = np.asarray(nib.load(tmp_path / "merged" / "tumor_mask.nii.gz").dataobj) == 1
    assert not tumor[real == 2].any()
    np.testing.assert_array_equal(merged, np.where(tumor, 2, real))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", SIZE_BANDS_MM)
def test_a_replayed_manifest_gives_the_same_files(tmp_path, preset, size):
    shape = (34, 32, 28) if size in ("tiny", "small") else (60, 58, 48)
    hu, labels = body(shape, radius_mm=30.0 if size in ("tiny", "small") else 56.0)
    save(tmp_path / "ct.nii.gz", hu)
    save(tmp_path / "liver.nii.gz", labels == 1, dtype=np.uint8)
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(command(tmp_path, first, "--preset", preset, "--size", size, "--count", 1, "--seed", 8)) == 0
    assert main(command(tmp_path, second, "--from-spec", first / "manifest.json")) == 0
    assert content(first) == content(second)


def test_a_replay_follows_the_manifest_and_not_a_new_draw(case, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(command(case, first, "--size", "small", "--count", 1)) == 0
    manifest = json.loads((first / "manifest.json").read_text())
    manifest["tumors"][0]["spec"]["contrast_hu"] = -100.0
    edited = tmp_path / "edited.json"
    edited.write_text(json.dumps(manifest))
    assert main(command(case, second, "--from-spec", edited)) == 0
    mask = np.asarray(nib.load(first / "tumor_mask.nii.gz").dataobj) == 1
    np.testing.assert_array_equal(mask, np.asarray(nib.load(second / "tumor_mask.nii.gz").dataobj) == 1)
    means = [nib.load(folder / "ct.nii.gz").get_fdata()[mask].mean() for folder in (first, second)]
    assert means[1] < means[0] - 30


def test_another_ct_or_mask_is_refused_for_a_manifest(case, tmp_path, capsys):
    first = tmp_path / "first"
    assert main(command(case, first, "--size", "tiny", "--count", 1)) == 0
    other = tmp_path / "other"
    shutil.copytree(case, other)
    save(other / "ct.nii.gz", body(seed=1)[0])
    assert main(command(other, tmp_path / "out", "--from-spec", first / "manifest.json")) == 2
    message = capsys.readouterr().err
    assert "other/ct.nii.gz: SHA-256 is" in message and "was made from ct.nii.gz" in message
    shutil.copy(case / "ct.nii.gz", other / "ct.nii.gz")
    save(other / "liver.nii.gz", body(radius_mm=30)[1] == 1, dtype=np.uint8)
    assert main(command(other, tmp_path / "out", "--from-spec", first / "manifest.json")) == 2
    assert "other/liver.nii.gz: SHA-256 is" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def damage_of(manifest):
    yield "cannot be read as a manifest", "{"
    yield "is not a manifest", "[]"
    yield "is not a manifest", json.dumps({"synthetic": True})
    for change in (
        {"tumors": [{}]},
        {"tumors": 3},
        {"tumors": [{"spec": {"organ": "liver"}}]},
        {"organ": {"name": "liver"}},
        {"organ": manifest["organ"] | {"tumor_label": "2"}},
        {"inputs": {"ct": {}}},
        {"inputs": []},
    ):
        yield "the manifest is damaged", json.dumps(manifest | change)


def test_a_damaged_manifest_is_refused_with_its_name(case, tmp_path, capsys):
    assert main(command(case, tmp_path / "first", "--size", "tiny", "--count", 1)) == 0
    manifest = json.loads((tmp_path / "first" / "manifest.json").read_text())
    path = tmp_path / "damaged.json"
    for message, text in damage_of(manifest):
        path.write_text(text)
        assert main(command(case, tmp_path / "out", "--from-spec", path)) == 2
        error = capsys.readouterr().err
        assert f"damaged.json: {message}" in error, text
    assert main(command(case, tmp_path / "out", "--from-spec", tmp_path / "none.json")) == 2
    assert "none.json: cannot be read as a manifest" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def folder(tmp_path):
    """Three scans in sub-folders."""
    for number in range(3):
        hu, labels = body((30, 30, 26), radius_mm=24.0, seed=number)
        save(tmp_path / "scans" / f"case_{number}" / "ct.nii.gz", hu)
        save(tmp_path / "scans" / f"case_{number}" / "liver.nii.gz", labels == 1, dtype=np.uint8)
    return tmp_path / "scans"


def folder_command(folder, output, *options):
    parts = ("synthesize", folder, "--organ-mask", "liver.nii.gz", "-o", output, "--size", "tiny", *options)
    return [str(part) for part in parts]


def test_a_folder_of_folders_gives_a_folder_per_scan(folder, tmp_path):
    out = tmp_path / "out"
    assert main(folder_command(folder, out)) == 0
    assert files_below(out) == {f"case_{number}/{name}" for number in range(3) for name in OUTPUTS}
    specs = [json.loads((out / f"case_{n}" / "manifest.json").read_text())["tumors"][0]["spec"] for n in range(3)]
    assert len({spec["seed"] for spec in specs}) == 3, "every scan draws its own tumors"
    alone = tmp_path / "alone"
    shutil.copytree(folder / "case_1", alone / "case_1")
    assert main(folder_command(alone, tmp_path / "out_alone")) == 0
    assert content(tmp_path / "out_alone" / "case_1") == content(out / "case_1"), "whatever else is in the folder"


def test_a_folder_of_files_goes_with_a_folder_of_masks(folder, tmp_path):
    for number in range(2):
        for name, source in (("images", "ct.nii.gz"), ("masks", "liver.nii.gz")):
            (tmp_path / name).mkdir(exist_ok=True)
            shutil.copy(folder / f"case_{number}" / source, tmp_path / name / f"a{number}.nii.gz")
    (tmp_path / "images" / "._a0.nii.gz").write_bytes(b"left by another system")
    parts = ["synthesize", tmp_path / "images", "--organ-mask", tmp_path / "masks", "-o", tmp_path / "out"]
    assert main([str(part) for part in parts] + ["--size", "tiny"]) == 0
    assert files_below(tmp_path / "out") == {f"a{number}/{name}" for number in range(2) for name in OUTPUTS}


def test_an_interrupted_folder_goes_on_where_it_stopped(folder, tmp_path, monkeypatch, capsys):
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert main(folder_command(folder, whole)) == 0
    real, calls = module.synthesize_with, []

    def interrupted(settings, ct, *args, **kwargs):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(ct)
        return real(settings, ct, *args, **kwargs)

    monkeypatch.setattr(module, "synthesize_with", interrupted)
    assert main(folder_command(folder, out)) == 130
    assert "resumes where it stopped" in capsys.readouterr().err
    assert files_below(out) == {f"case_0/{name}" for name in OUTPUTS}
    # As if it had been stopped within the second scan: files, but no manifest.
    (out / "case_1").mkdir()
    shutil.copy(whole / "case_1" / "ct.nii.gz", out / "case_1" / "ct.nii.gz")
    monkeypatch.setattr(module, "synthesize_with", real)
    times = {path: path.stat().st_mtime_ns for path in (out / "case_0").iterdir()}
    assert main(folder_command(folder, out)) == 0
    printed = capsys.readouterr().out
    assert f"[1/3] {out / 'case_0'}: finished before" in printed
    assert printed.count("finished before") == 1
    assert times == {path: path.stat().st_mtime_ns for path in (out / "case_0").iterdir()}
    assert content(out) == content(whole)


def test_a_lost_output_file_is_made_again(folder, tmp_path):
    out = tmp_path / "out"
    assert main(folder_command(folder, out)) == 0
    whole = content(out)
    (out / "case_1" / "labels.nii.gz").unlink()
    assert main(folder_command(folder, out)) == 0
    assert content(out) == whole


def flip_a_voxel(path) -> None:
    image = nib.load(path)
    values = np.asarray(image.dataobj).copy()
    values[0, 0, 0] += 1
    nib.save(nib.Nifti1Image(values, image.affine, image.header), path)


@pytest.mark.parametrize("name", ["ct.nii.gz", "tumor_mask.nii.gz", "labels.nii.gz", "preview.png"])
def test_an_output_file_that_is_not_what_was_written_is_made_again(case, tmp_path, capsys, name):
    out = tmp_path / "out"
    assert main(command(case, out, "--size", "tiny")) == 0
    whole = content(out)
    if name.endswith(".png"):
        (out / name).write_bytes(whole[name][:-1])
    else:
        flip_a_voxel(out / name)
    capsys.readouterr()
    assert main(command(case, out, "--size", "tiny")) == 0
    said = capsys.readouterr().out
    assert f"{out}: {name} missing, or not what was written; made again" in said and "finished before" not in said
    assert content(out) == whole
    assert main(command(case, out, "--size", "tiny")) == 0
    assert "finished before" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ct.nii.gz", "tumor_mask.nii.gz"])
def test_results_of_earlier_versions_are_compared_too(case, tmp_path, capsys, name):
    out = tmp_path / "out"
    assert main(command(case, out, "--size", "tiny")) == 0
    whole = content(out)
    manifest = json.loads(whole["manifest.json"])
    del manifest["files"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert main(command(case, out, "--size", "tiny")) == 0
    assert "finished before" in capsys.readouterr().out
    if name == "ct.nii.gz":
        (out / name).write_bytes(whole[name][:-2000])
    else:
        flip_a_voxel(out / name)
    assert main(command(case, out, "--size", "tiny")) == 0
    assert f"{out}: {name} missing, or not what was written; made again" in capsys.readouterr().out
    assert content(out) == whole


def test_one_bad_scan_does_not_stop_the_others(folder, tmp_path, capsys):
    (folder / "case_1" / "ct.nii.gz").write_bytes(b"no scan")
    out = tmp_path / "out"
    assert main(folder_command(folder, out)) == 1
    printed = capsys.readouterr().out
    assert "case_1/ct.nii.gz: cannot be read as NIfTI" in printed
    assert "1 of 3 scans failed" in printed
    assert {path.name for path in out.iterdir()} == {"case_0", "case_2"}


def test_a_folder_without_scans_or_masks_is_refused(folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(folder_command(tmp_path / "empty", tmp_path / "out")) == 2
    assert (
        "empty: neither images (.nii.gz, .nii, .mha or .nrrd) nor sub-folders with ct.nii.gz" in capsys.readouterr().err
    )
    (folder / "case_2" / "liver.nii.gz").unlink()
    assert main(folder_command(folder, tmp_path / "out")) == 2
    assert "1 organ masks are missing, the first is" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mask_ending", ["", "_0000"])
def test_the_folders_of_nnunet_are_pairs(folder, tmp_path, capsys, mask_ending):
    """imagesTr/CASE_0000.nii.gz and labelsTr/CASE.nii.gz."""
    for number in range(2):
        for name, part, ending in (("ct", "imagesTr", "_0000"), ("liver", "labelsTr", mask_ending)):
            (tmp_path / part).mkdir(exist_ok=True)
            shutil.copy(folder / f"case_{number}" / f"{name}.nii.gz", tmp_path / part / f"c{number}{ending}.nii.gz")
    words = ["synthesize", tmp_path / "imagesTr", "--organ-mask", tmp_path / "labelsTr", "-o", tmp_path / "out"]
    words = [str(word) for word in (*words, "--size", "tiny", "--count", 1)]
    assert main(words) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"c0", "c1"}
    (tmp_path / "labelsTr" / f"c1{mask_ending}.nii.gz").rename(tmp_path / "labelsTr" / "other.nii.gz")
    capsys.readouterr()
    assert main(words) == 2
    assert "a mask has the file name of its scan, with or without nnU-Net's ending _0000" in capsys.readouterr().err


def test_two_files_of_one_scan_are_refused(folder, tmp_path, capsys):
    for name, part in (("ct", "cts"), ("liver", "masks")):
        (tmp_path / part).mkdir()
        for ending in ("", "_0000"):
            shutil.copy(folder / "case_0" / f"{name}.nii.gz", tmp_path / part / f"a{ending}.nii.gz")
    words = ["synthesize", tmp_path / "cts", "--organ-mask", tmp_path / "masks", "-o", tmp_path / "out"]
    assert main([str(word) for word in words]) == 2
    assert "holds several files of the scan a; keep one of them" in capsys.readouterr().err


@pytest.mark.parametrize("changed", ["settings", "ct", "mask"])
def test_a_result_of_something_else_is_never_replaced(case, tmp_path, capsys, changed):
    out = tmp_path / "out"
    assert main(command(case, out, "--size", "tiny")) == 0
    assert main(command(case, out, "--size", "tiny")) == 0
    assert "finished before" in capsys.readouterr().out
    whole, options = content(out), ["--size", "tiny"]
    if changed == "settings":
        options += ["--seed", 1]
    elif changed == "ct":
        save(case / "ct.nii.gz", body(seed=9)[0])
    else:
        save(case / "liver.nii.gz", body(radius_mm=30)[1] == 1, dtype=np.uint8)
    assert main(command(case, out, *options)) == 2
    assert f"{out}: already holds the result of other settings or another scan" in capsys.readouterr().err
    assert content(out) == whole


def test_input_and_foreign_files_are_never_overwritten(case, tmp_path, capsys):
    before = content(case)
    assert main(command(case, case, "--size", "tiny")) == 2
    assert "would be overwritten" in capsys.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    (other / "labels.nii.gz").write_bytes(b"somebody's work")
    assert main(command(case, other, "--size", "tiny")) == 2
    assert "holds labels.nii.gz, but not from `difftumor synthesize`" in capsys.readouterr().err
    assert content(case) == before
    assert files_below(other) == {"labels.nii.gz"}
    # Into its own folder again, from its own result.
    out = tmp_path / "out"
    assert main(command(case, out, "--size", "tiny")) == 0
    whole = content(out)
    (out / "manifest.json").rename(tmp_path / "kept.json")
    parts = ["synthesize", out / "ct.nii.gz", "--organ-mask", out / "labels.nii.gz", "-o", out, "--organ-label", "1"]
    assert main([str(part) for part in parts]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert main(command(case, out, "--from-spec", tmp_path / "kept.json")) == 0
    assert content(out) == whole
    assert main(command(case, out, "--from-spec", out / "manifest.json")) == 2
    assert content(out) == whole


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept"),
    [(np.int16, 1.0, -1024.0), (np.uint8, 9.0, -1024.0), (np.float64, 0.5, -3.0), (np.float32, 1.0, 0.0)],
)
def test_storage_with_slope_and_intercept_is_kept(tmp_path, dtype, slope, intercept):
    hu, labels = body()
    stored = (hu - intercept) / slope
    stored = np.rint(stored) if np.dtype(dtype).kind in "iu" else stored
    save(tmp_path / "ct.nii.gz", stored, dtype=dtype, slope=slope, intercept=intercept)
    save(tmp_path / "liver.nii.gz", labels == 1, dtype=np.uint8)
    out = tmp_path / "out"
    assert main(command(tmp_path, out, "--size", "small", "--count", 1, "--contrast-hu", -60)) == 0
    before, after = nib.load(tmp_path / "ct.nii.gz"), nib.load(out / "ct.nii.gz")
    assert after.get_data_dtype() == dtype
    assert (after.dataobj.slope, after.dataobj.inter) == (before.dataobj.slope, before.dataobj.inter)
    raw_before, raw_after = (np.asarray(image.dataobj.get_unscaled()) for image in (before, after))
    tumor = np.asarray(nib.load(out / "tumor_mask.nii.gz").dataobj) == 1
    centre = json.loads((out / "manifest.json").read_text())["tumors"][0]["spec"]["centre_mm"]
    far = min_distance(np.argwhere(np.ones(tumor.shape, bool)) * SPACING_XYZ, [centre]).reshape(tumor.shape) > 22
    assert np.array_equal(raw_before[far], raw_after[far])
    assert (after.get_fdata()[tumor] - before.get_fdata()[tumor]).mean() == pytest.approx(-50, abs=12)


@pytest.mark.parametrize("affine", [RAS, LPS, OBLIQUE], ids=["RAS", "LPS", "oblique"])
def test_the_tumor_lies_at_its_physical_place(tmp_path, affine):
    hu, labels = body()
    save(tmp_path / "ct.nii.gz", hu, affine=affine)
    save(tmp_path / "liver.nii.gz", labels == 1, affine=affine, dtype=np.uint8)
    out = tmp_path / "out"
    assert main(command(tmp_path, out, "--size", "small", "--count", 1, "--contrast-hu", -40)) == 0
    before = nib.load(tmp_path / "ct.nii.gz")
    spec = TumorSpec.from_dict(json.loads((out / "manifest.json").read_text())["tumors"][0]["spec"])
    scan = read_ct(tmp_path / "ct.nii.gz")
    expected_mm = scan.direction @ np.array(spec.centre_mm) + before.affine[:3, 3]
    for name, value in (("tumor_mask", 1), ("labels", 2)):
        image = nib.load(out / f"{name}.nii.gz")
        np.testing.assert_array_equal(image.affine, before.affine)
        place = nib.affines.apply_affine(image.affine, center_of_mass(np.asarray(image.dataobj) == value))
        np.testing.assert_allclose(place, expected_mm, atol=3)  # deformation moves the centre of mass
    after = nib.load(out / "ct.nii.gz")
    np.testing.assert_array_equal(after.affine, before.affine)
    darker = before.get_fdata() - after.get_fdata()
    place = nib.affines.apply_affine(after.affine, center_of_mass(np.clip(darker, 0, None)))
    np.testing.assert_allclose(place, expected_mm, atol=3)


def test_five_mm_slices_work(tmp_path):
    spacing = (1.0, 1.0, 5.0)
    hu, labels = body((80, 80, 18), spacing_xyz=spacing, radius_mm=34.0)
    for size in ("tiny", "small"):
        save(tmp_path / size / "ct.nii.gz", hu, affine=np.diag([*spacing, 1]))
        save(tmp_path / size / "liver.nii.gz", labels == 1, affine=np.diag([*spacing, 1]), dtype=np.uint8)
        assert main(command(tmp_path / size, tmp_path / size / "out", "--size", size, "--count", 1)) == 0
        mask = np.asarray(nib.load(tmp_path / size / "out" / "tumor_mask.nii.gz").dataobj)
        low, high = SIZE_BANDS_MM[size]
        assert low <= equivalent_diameter_mm(mask, spacing) < high


def test_the_installed_command_does_the_same(case, tmp_path):
    script = Path(sys.executable).with_name("difftumor")
    if not script.exists():
        pytest.skip("the package is not installed in this environment")
    done = subprocess.run([script, *command(case, tmp_path / "a", "--size", "tiny")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert main(command(case, tmp_path / "b", "--size", "tiny")) == 0
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_real_ct_with_real_lesions(tmp_path):
    data = os.environ.get("DIFFTUMOR_TEST_DATA")
    if not data:
        pytest.skip("DIFFTUMOR_TEST_DATA names no folder with real CT")
    case, out = Path(data) / "abdomen_3mm", tmp_path / "out"
    parts = ["synthesize", case / "ct.nii.gz", "--organ-mask", case / "labels.nii.gz", "-o", out, "--organ-label", 5]
    assert main([str(part) for part in parts] + ["--size", "small", "--count", "2"]) == 0
    before, after = (np.asarray(nib.load(path / "ct.nii.gz").dataobj.get_unscaled()) for path in (case, out))
    labels = np.asarray(nib.load(case / "labels.nii.gz").dataobj)
    assert (labels[before != after] == 5).all()
    merged = np.asarray(nib.load(out / "labels.nii.gz").dataobj)
    tumor = np.asarray(nib.load(out / "tumor_mask.nii.gz").dataobj) == 1
    assert tumor.any() and (labels[tumor] == 5).all()
    np.testing.assert_array_equal(merged[~tumor], labels[~tumor])
