"""`difftumor synthesize --renderer diffusion`, with tiny networks, and with imported ones on real CT."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tiny_networks
import torch
from scans import body, command, content, files_below, save

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.ct import read_ct
from nnunet_difftumor.generative import registry
from nnunet_difftumor.generative.weights import file_sha256
from nnunet_difftumor.synthesis.shape.profile import alpha_in
from nnunet_difftumor.synthesis.shape.survey import region_of
from nnunet_difftumor.synthesis.spec import TumorSpec

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny_networks.write_weights(
        tmp_path_factory.mktemp("weights"), "liver_early", "liver_late", "pancreas_early"
    )


@pytest.fixture
def case(tmp_path):
    hu, labels = body((34, 32, 28), radius_mm=30.0)
    save(tmp_path / "case" / "ct.nii.gz", hu)
    save(tmp_path / "case" / "liver.nii.gz", labels == 1, dtype=np.uint8)
    return tmp_path / "case"


def diffused(case, output, weights, *options):
    return command(case, output, "--renderer", "diffusion", "--organ", "liver", "--weights", weights, *options)


def small(case, output, weights, *options):
    return diffused(case, output, weights, "--size", "small", "--count", 1, *options)


def assert_geometry(folder, out, mask_name):
    """Masks of one component inside the organ, and every voxel beyond alpha's reach as it was."""
    before, after = read_ct(folder / "ct.nii.gz"), read_ct(out / "ct.nii.gz")
    organ = np.asarray(nib.load(folder / mask_name).dataobj).T == 1
    tumor = np.asarray(nib.load(out / "tumor_mask.nii.gz").dataobj).T == 1
    manifest = json.loads((out / "manifest.json").read_text())
    reached, expected = np.zeros(organ.shape, bool), np.zeros(organ.shape, bool)
    for record in manifest["tumors"]:
        spec = TumorSpec.from_dict(record["spec"])
        assert spec.mass_effect == 0 and not spec.exophytic, "choose another seed"
        box = region_of(spec, organ.shape, before.spacing_mm)
        alpha = alpha_in(spec, box, before.spacing_mm, organ[box])
        reached[box] |= alpha > 0
        expected[box] |= alpha >= 0.5
        inside = after.hu[box][alpha >= 0.5].mean()
        # Stored as whole HU.
        tissue = before.hu[box][organ[box] & (alpha < 0.5)]
        assert record["measured_contrast_hu"] == pytest.approx(inside - np.median(tissue), abs=0.6)
    np.testing.assert_array_equal(tumor, expected)
    assert organ[tumor].all()
    assert (before.hu != after.hu)[tumor].mean() > 0.9
    np.testing.assert_array_equal(after.hu[~reached], before.hu[~reached])
    return manifest


def test_a_scan_gets_tumors_and_a_manifest_that_gives_the_same_files(case, tmp_path, weights, monkeypatch, capsys):
    known = registry.KnownFile(
        "us.safetensors", "us", "https://example.org/us.safetensors", "CC BY 4.0", "liver", "early"
    )
    monkeypatch.setitem(registry.KNOWN_FILES, file_sha256(weights / "liver_early.safetensors"), known)
    out, again = tmp_path / "out", tmp_path / "again"
    assert main(small(case, out, weights, "--preset", "difftumor", "--seed", 3)) == 0
    files = {"ct.nii.gz", "tumor_mask.nii.gz", "labels.nii.gz", "preview.png", "report.html", "manifest.json"}
    assert files_below(out) == files
    manifest = assert_geometry(case, out, "liver.nii.gz")
    assert f"{manifest['tumors'][0]['measured_contrast_hu']:+.0f} HU" in capsys.readouterr().out

    record = manifest["renderer"]
    assert (record["name"], record["device"], record["organ"]) == ("diffusion", "cpu", "liver")
    assert record["threads"] == torch.get_num_threads() and record["processor"]
    assert [file["file"] for file in record["weights"]] == ["autoencoder.safetensors", "liver_early.safetensors"]
    assert all(len(file["sha256"]) == 64 for file in record["weights"])
    assert [file["published_as"] and file["published_as"]["publisher"] for file in record["weights"]] == [None, "us"]
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["settings"]["renderer"] == "diffusion"
    assert manifest["tumors"][0]["spec"]["renderer"] == "diffusion"

    assert main(command(case, again, "--from-spec", out / "manifest.json", "--weights", weights)) == 0
    assert content(again) == content(out)
    assert "the same voxels" in capsys.readouterr().out
    assert main(small(case, out, weights, "--preset", "difftumor", "--seed", 3)) == 0
    assert "finished before" in capsys.readouterr().out


def test_a_replay_takes_the_threads_of_the_manifest(case, tmp_path, weights):
    out, again = tmp_path / "out", tmp_path / "again"
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        assert main(small(case, out, weights)) == 0
    finally:
        torch.set_num_threads(before)
    assert main(command(case, again, "--from-spec", out / "manifest.json", "--weights", weights)) == 0
    assert json.loads((again / "manifest.json").read_text())["renderer"]["threads"] == before + 1
    assert content(again) == content(out)
    assert torch.get_num_threads() == before


def test_fast_tumors_and_few_steps_are_recorded_and_replayed(case, tmp_path, weights, capsys):
    files = {}
    for name, options in {
        "exact": [],
        "fast": ["--fast"],
        "late": ["--size", "medium", "--exact"],
        "few": ["--size", "medium", "--sampler-steps", "2"],
    }.items():
        assert main(small(case, tmp_path / name, weights, *options)) == 0
        record = json.loads((tmp_path / name / "manifest.json").read_text())
        assert record["renderer"]["mode"] == ("fast" if name == "fast" else "exact")
        assert record["renderer"]["sampler_steps"] == (2 if name == "few" else None)
        again = ["--from-spec", tmp_path / name / "manifest.json", "--weights", weights]
        assert main(command(case, tmp_path / f"{name}_again", *again)) == 0
        files[name] = content(tmp_path / name)
        assert content(tmp_path / f"{name}_again") == files[name]
    assert files["exact"] != files["fast"] and files["late"] != files["few"]
    capsys.readouterr()
    # Finished before, by these options and by no others.
    assert main(small(case, tmp_path / "fast", weights, "--fast")) == 0
    assert "finished before" in capsys.readouterr().out
    assert main(small(case, tmp_path / "fast", weights)) == 2
    assert main(command(case, tmp_path / "x", "--from-spec", tmp_path / "fast" / "manifest.json", "--fast")) == 2
    assert "the manifest says how its tumors are drawn" in capsys.readouterr().err


def test_a_manifest_from_before_there_were_modes_is_exact(case, tmp_path, weights, capsys):
    assert main(small(case, tmp_path / "out", weights)) == 0
    path = tmp_path / "out" / "manifest.json"
    record = json.loads(path.read_text())
    for key in ("mode", "sampler_steps"):
        del record["renderer"][key]
    for key in ("fast", "sampler_steps"):
        del record["settings"][key]
    path.write_text(json.dumps(record))
    capsys.readouterr()
    assert main(small(case, tmp_path / "out", weights)) == 0
    assert "finished before" in capsys.readouterr().out
    assert main(command(case, tmp_path / "again", "--from-spec", path, "--weights", weights)) == 0
    assert "the same voxels" in capsys.readouterr().out


def test_a_replay_of_an_edited_spec_says_that_the_voxels_differ(case, tmp_path, weights, capsys):
    assert main(small(case, tmp_path / "out", weights)) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    manifest["tumors"][0]["spec"]["seed"] += 1
    (tmp_path / "edited.json").write_text(json.dumps(manifest))
    options = ["--from-spec", tmp_path / "edited.json", "--weights", weights]
    assert main(command(case, tmp_path / "edited", *options)) == 0
    assert "other voxels: edited, or made on another device" in capsys.readouterr().out


def test_other_weights_are_refused(case, tmp_path, weights, capsys):
    out, other = tmp_path / "out", tmp_path / "weights"
    assert main(small(case, out, weights)) == 0
    whole = content(out)
    tiny_networks.write_weights(other, "liver_early", seed=5)
    for arguments in (
        command(case, tmp_path / "again", "--from-spec", out / "manifest.json", "--weights", other),
        small(case, out, other),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert "liver_early.safetensors: SHA-256 is" in error and "was made with" in error
    assert content(out) == whole
    assert not (tmp_path / "again").exists()
    arguments = command(case, tmp_path / "again", "--from-spec", out / "manifest.json", "--weights", tmp_path / "none")
    assert main(arguments) == 2
    assert "autoencoder.json: no such file" in capsys.readouterr().err


def test_weights_are_looked_for_where_import_weights_puts_them(case, tmp_path, weights, monkeypatch, capsys):
    arguments = [str(part) for part in small(case, tmp_path / "out", weights)]
    at = arguments.index("--weights")
    del arguments[at : at + 2]
    monkeypatch.delenv("nnUNet_results", raising=False)
    assert main(arguments) == 2
    assert re.search("nnUNet_results is not set.*name a folder of weights with --weights", capsys.readouterr().err)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    assert main(arguments) == 2
    assert "difftumor_weights: autoencoder.safetensors, liver_early.safetensors not found" in capsys.readouterr().err
    shutil.copytree(weights, tmp_path / "results" / "difftumor_weights")
    assert main(arguments) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--contrast-hu", -30], "--contrast-hu: a diffusion model decides the contrast by itself"),
        (["--organ", "kidney"], r"kidney_early.* not found \(there: .*pancreas_early"),
        (["--organ", "spleen"], "organ spleen: .*choose with --weights-organ .* for example --weights-organ liver"),
        (["--organ", "livr"], "organ livr: .*; is liver meant[?]"),
        (["--organ", "../liver"], "--organ is '../liver', expected a plain name"),
        (["--weights-organ", "spleen=liver"], "--weights-organ ORGAN=NAME: for banks; a scan has one organ"),
        (["--organ", "pancreas", "--size", "medium"], r"pancreas_late.* not found"),
        (["--organ", "pancreas", "--size", "mix"], r"pancreas_late.* not found.* ask for --size tiny or small"),
        (["--device", "cuda"], "--device is cuda, but torch finds no CUDA device"),
        (["--renderer", "handcrafted"], "--weights: for --renderer diffusion only; add it"),
        (["--sampler-steps", "2"], "the early models of liver take every step of DDPM; leave it out"),
        (["--size", "medium", "--sampler-steps", "3"], r"`?sampler.steps`? is 3, which does not divide the 10 steps"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_written(
    case, tmp_path, weights, monkeypatch, capsys, options, message
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(small(case, tmp_path / "out", weights, *options)) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(message, error), error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("organ", "drawn_by"), [("spleen", "liver"), ("liver", "pancreas"), ("pancreas", "liver")])
def test_weights_of_a_named_organ_draw_in_another(case, tmp_path, weights, capsys, organ, drawn_by):
    """Also in one that has weights of its own: Tables 2 and 3 of DiffTumor."""
    out, again = tmp_path / "out", tmp_path / "again"
    assert main(small(case, out, weights, "--organ", organ, "--weights-organ", drawn_by)) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["renderer"]["organ"] == manifest["settings"]["weights_organ"] == drawn_by
    assert manifest["renderer"]["weights"][1]["file"] == f"{drawn_by}_early.safetensors"
    assert manifest["organ"]["name"] == manifest["tumors"][0]["spec"]["organ"] == organ
    said = capsys.readouterr().out
    assert f"NOTE: organ {organ}: drawn by the diffusion models of {drawn_by}\n" in said
    assert manifest["notes"][-1] == f"organ {organ}: drawn by the diffusion models of {drawn_by}"
    assert main(command(case, again, "--from-spec", out / "manifest.json", "--weights", weights)) == 0
    assert content(again) == content(out)


def test_an_organs_own_weights_need_no_note(case, tmp_path, weights, capsys):
    out = tmp_path / "out"
    assert main(small(case, out, weights)) == 0
    assert json.loads((out / "manifest.json").read_text())["notes"] == []
    assert "NOTE" not in capsys.readouterr().out


def test_an_empty_organ_is_refused(case, tmp_path, weights, capsys):
    save(case / "liver.nii.gz", np.zeros((34, 32, 28)), dtype=np.uint8)
    assert main(small(case, tmp_path / "out", weights)) == 2
    assert "the organ mask is empty" in capsys.readouterr().err


def test_missing_weights_stop_a_folder_of_scans_once(case, tmp_path, capsys):
    arguments = [
        str(part) for part in ("synthesize", case.parent, "--organ-mask", "liver.nii.gz", "-o", tmp_path / "out")
    ]
    arguments += ["--renderer", "diffusion", "--organ", "liver", "--weights", str(tmp_path / "none")]
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("not found") == 1


def damage_of(renderer):
    yield {key: value for key, value in renderer.items() if key != "weights"}
    yield renderer | {"name": "watercolour"}
    yield renderer | {"threads": "two"}
    yield renderer | {"device": 3}
    yield renderer | {"weights": [{"file": "liver_early.safetensors"}]}
    yield "diffusion"


def test_a_damaged_record_of_the_renderer_is_refused(case, tmp_path, weights, capsys):
    assert main(small(case, tmp_path / "out", weights)) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    for renderer in damage_of(manifest["renderer"]):
        (tmp_path / "damaged.json").write_text(json.dumps(manifest | {"renderer": renderer}))
        options = ["--from-spec", tmp_path / "damaged.json", "--weights", weights]
        assert main(command(case, tmp_path / "again", *options)) == 2
        assert "the manifest is damaged" in capsys.readouterr().err, renderer


def test_hand_crafted_tumors_need_no_torch(case, tmp_path):
    code = (
        "import sys; from nnunet_difftumor.cli.main import main; status = main(sys.argv[1:]); "
        "sys.exit('torch was imported' if 'torch' in sys.modules else status)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = command(case, tmp_path / "out", "--size", "tiny", "--count", 1)
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=environment, cwd=REPOSITORY)


@pytest.fixture
def real_case(tmp_path, test_data):
    """A part of a real liver, stored as LPS with 0.7 x 0.7 x 2 mm."""
    folder = tmp_path / "real"
    folder.mkdir()
    labels = nib.load(test_data / "liver_healthy" / "labels.nii.gz")
    middle = np.median(np.argwhere(np.asarray(labels.dataobj) == 1), axis=0).astype(int)
    part = tuple(slice(max(0, at - half), at + half) for at, half in zip(middle, (60, 60, 20), strict=True))
    for name in ("ct", "labels"):
        nib.save(nib.load(test_data / "liver_healthy" / f"{name}.nii.gz").slicer[part], folder / f"{name}.nii.gz")
    return folder


def on_real_ct(case, output, weights, *options):
    parts = ["synthesize", case / "ct.nii.gz", "--organ-mask", case / "labels.nii.gz", "-o", output]
    return [str(part) for part in [*parts, "--weights", weights, *options]]


@pytest.mark.slow
def test_imported_weights_draw_into_real_ct(real_case, tmp_path):
    parity = os.environ.get("DIFFTUMOR_PARITY")
    if not parity or not Path(parity).is_dir():
        pytest.skip("DIFFTUMOR_PARITY names no folder with files of the published layout")
    names = ("small_AutoencoderModel.ckpt", "small_liver_early.pt", "small_liver_noearly.pt")
    folder = tmp_path / "weights"
    assert main(["import-weights", *(str(Path(parity) / name) for name in names), "-o", str(folder)]) == 0
    # 4 steps instead of 50, and patches of 32^3 instead of 96^3, to be quick.
    for page, steps in ((folder / "liver_early.json", 4), (folder / "liver_late.json", 50)):
        description = json.loads(page.read_text())
        assert description["diffusion"]["sampler_steps"] == steps
        assert description["diffusion"]["patch_size"] == [96, 96, 96]
        description["diffusion"] |= {"sampler_steps": 4, "patch_size": [32, 32, 32]}
        page.write_text(json.dumps(description))
    for size, file in (("tiny", "small_liver_early.pt"), ("medium", "small_liver_noearly.pt")):
        options = ["--renderer", "diffusion", "--organ", "liver", "--preset", "difftumor", "--size", size]
        assert main(on_real_ct(real_case, tmp_path / size, folder, *options, "--count", "1", "--seed", "1")) == 0
        manifest = assert_geometry(real_case, tmp_path / size, "labels.nii.gz")
        assert manifest["renderer"]["weights"][1]["source"]["imported_from"] == file
    options = ["--from-spec", str(tmp_path / "tiny" / "manifest.json")]
    assert main(on_real_ct(real_case, tmp_path / "again", folder, *options)) == 0
    assert content(tmp_path / "again") == content(tmp_path / "tiny")


def test_own_weights_draw_late_tumors_into_real_ct(real_case, tmp_path, weights):
    options = ["--renderer", "diffusion", "--organ", "liver", "--preset", "difftumor", "--size", "medium"]
    out, again = tmp_path / "out", tmp_path / "again"
    assert main(on_real_ct(real_case, out, weights, *options, "--count", "1", "--seed", "1")) == 0
    assert_geometry(real_case, out, "labels.nii.gz")
    assert main(on_real_ct(real_case, again, weights, "--from-spec", str(out / "manifest.json"))) == 0
    assert content(again) == content(out)
