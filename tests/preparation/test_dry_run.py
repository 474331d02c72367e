"""`prepare --dry-run` and `synthesize --bank --dry-run`: nothing is written, and what is said is what then happens."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from folder_contents import state

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.preparation.lesion_bank import make_bank

pytestmark = pytest.mark.slow(file_seconds=25)

DIFFTUMOR = Path(sys.executable).with_name("difftumor")
SMALL = ("--spacing", "4", "3", "3", "--patch-size", "32", "32", "32")


@pytest.fixture
def unprepared(prepared_phantom, tmp_path, monkeypatch) -> Path:
    """nnU-Net's folders with the raw phantoms alone."""
    shutil.copytree(prepared_phantom.raw, tmp_path / "raw" / prepared_phantom.raw.name)
    return point_to(tmp_path, monkeypatch)


@pytest.fixture
def prepared(prepared_phantom, unprepared) -> Path:
    """nnU-Net's folders with a copy of the prepared phantoms."""
    name = prepared_phantom.preprocessed.name
    shutil.copytree(prepared_phantom.preprocessed, unprepared / "preprocessed" / name)
    return unprepared


def point_to(folder: Path, monkeypatch) -> Path:
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir(exist_ok=True)
        monkeypatch.setenv(f"nnUNet_{name}", str(folder / name))
    return folder


def labels_of(folder: Path, case: str) -> Path:
    return folder / "raw" / "Dataset501_Phantom" / "labelsTr" / f"{case}.nii.gz"


def dry(folder: Path, *words: str) -> int:
    """Runs a command with --dry-run, which must change nothing."""
    before = state(folder)
    status = main([*words, "--dry-run"])
    assert state(folder) == before
    return status


def test_of_a_new_dataset_the_installed_command_says_plans_settings_and_cases(unprepared):
    before = state(unprepared)
    done = subprocess.run([DIFFTUMOR, "prepare", "-d", "501", *SMALL, "--dry-run"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert state(unprepared) == before
    plans = unprepared / "preprocessed" / "Dataset501_Phantom" / "nnUNetPlansDiffTumor.json"
    for said in (
        "[1/6] fingerprint: would be extracted from 6 cases",
        f"[2/6] plans: {plans} would be made by nnUNetPlannerResEncM, voxels of [4.0, 3.0, 3.0], patches of [32, ",
        "[3/6] preprocessing: 6 of 6 cases would be preprocessed",
        f"[4/6] settings: {plans.with_name('difftumor.json')} would be made: liver [1] with tumor 2",
        "folds would be made from what the label maps hold",
        "are free for",
        "Dry run: nothing was written",
    ):
        assert said in done.stdout


def test_of_a_prepared_dataset_it_says_what_is_kept_and_what_has_changed(prepared, capsys):
    assert dry(prepared, "prepare", "-d", "501") == 0
    # The copies are new files, whose content nobody has looked at.
    said = capsys.readouterr().out
    assert "[1/6] fingerprint: kept" in said and "plans: kept" in said and "settings: kept" in said
    assert main(["prepare", "-d", "501", "-np", "1"]) == 0
    assert dry(prepared, "prepare", "-d", "501") == 0
    assert "preprocessing: 0 of 6 cases would be preprocessed" in capsys.readouterr().out

    image = nib.load(labels_of(prepared, "phantom_000"))
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine), labels_of(prepared, "phantom_000"))
    for part, name in (("imagesTr", "phantom_001_0000"), ("labelsTr", "phantom_001")):
        path = prepared / "raw" / "Dataset501_Phantom" / part / f"{name}.nii.gz"
        shutil.copy(path, path.with_name(path.name.replace("001", "009")))
        path.unlink()
    assert dry(prepared, "prepare", "-d", "501") == 0
    said = capsys.readouterr().out
    assert "2 of 6 cases would be preprocessed" in said
    assert "phantom_000: if phantom_000.nii.gz, of another time of change, has another content" in said
    assert "phantom_001: withdrawn; would be removed" in said
    assert dry(prepared, "prepare", "-d", "501", "--overwrite") == 0
    assert "6 of 6 cases would be preprocessed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-d", "501", "--planner", "NoSuchPlanner"], "--planner NoSuchPlanner: nnU-Net has no such planner"),
        (["-d", "501", "--patch-size", "4", "32", "32"], "--patch-size [4, 32, 32]: expected at least 8 on every axis"),
        (["-d", "501", "--recipe", "hu2023", "--preset", "hu2023"], "--preset: the recipe hu2023 decides it"),
        (["-d", "501", "--organ", "liver=1"], "expected NAME=ORGAN:TUMOR"),
        (["-d", "501", "--organ", "liver=1:9"], "label 9 is not declared in dataset.json"),
        (["-d", "502"], "-d 502: expected one Dataset502_NAME"),
        (["-d", "501", "--healthy", "502"], "--healthy 502: expected one Dataset502_NAME"),
    ],
)
def test_what_prepare_refuses_a_dry_run_refuses(unprepared, capsys, words, said):
    assert dry(unprepared, "prepare", *words) == 2
    foretold = capsys.readouterr().err
    assert main(["prepare", *words]) == 2
    assert capsys.readouterr().err == foretold and said in foretold


def test_plans_for_another_request_are_refused(prepared, capsys):
    assert dry(prepared, "prepare", "-d", "501", "--spacing", "2", "2", "2") == 2
    assert "was made for" in capsys.readouterr().err


def test_cases_whose_headers_are_wrong_are_all_named(unprepared, capsys):
    damaged, cut = (labels_of(unprepared, name) for name in ("phantom_000", "phantom_002"))
    damaged.write_bytes(b"no image")
    image = nib.load(cut)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:-1], image.affine), cut)
    assert dry(unprepared, "prepare", "-d", "501", *SMALL) == 2
    said = capsys.readouterr()
    assert f"phantom_000: {damaged}: cannot be read" in said.out and f"phantom_002: {cut}: " in said.out
    assert "2 cases cannot be preprocessed, see above" in said.err
    assert main(["prepare", "-d", "501", *SMALL, "-np", "1"]) == 2


def test_folds_with_cases_that_are_not_there_are_refused(unprepared, capsys):
    folds = unprepared / "raw" / "Dataset501_Phantom" / "splits_final.json"
    folds.write_text(json.dumps([{"train": ["phantom_tumor_000"], "val": ["nobody"]}]))
    assert dry(unprepared, "prepare", "-d", "501", *SMALL) == 2
    assert f"{folds}: fold 0 names cases that are not in the dataset: ['nobody']" in capsys.readouterr().err


def test_of_a_bank_it_says_how_many_lesions_are_missing_and_where_they_go(prepared_phantom, tmp_path, capsys):
    bank = tmp_path / "bank"
    words = ("synthesize", "--bank", "-d", "501", "--per-case", "2", "-o", str(bank))
    assert dry(tmp_path, *words) == 0
    said = capsys.readouterr().out
    assert "phantom_000: 2 missing" in said and "To train on it" not in said
    assert f"{bank}/CASE/NUMBER.lesion.npz: 8 of 8 lesions are missing and would be made, 0 are there" in said
    made = make_bank(501, per_case=1, output=bank)
    (bank / "phantom_001" / "00000.lesion.npz").unlink()
    before = state(prepared_phantom.preprocessed)
    assert dry(tmp_path, *words) == 0
    assert state(prepared_phantom.preprocessed) == before
    said = capsys.readouterr().out
    assert "phantom_001: 2 missing" in said and "phantom_000: 1 missing" in said
    assert f"5 of 8 lesions are missing and would be made, {made.made - 1} are there" in said
    assert dry(tmp_path, *words, "--seed", "3") == 2
    assert "holds a bank made with other settings (seed; see bank.json)" in capsys.readouterr().err


def test_a_dry_run_of_scans_is_refused(tmp_path, capsys):
    assert dry(tmp_path, "synthesize", "ct.nii.gz", "--organ-mask", "m.nii.gz", "-o", str(tmp_path / "out")) == 2
    assert "--dry-run: for a lesion bank only; add --bank" in capsys.readouterr().err
