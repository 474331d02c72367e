"""`convert NAME --dry-run`: nothing is written, and what is said of cases is what a real run then says and does."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from folder_contents import state

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.dataset_conversion import CONVERTERS

DIFFTUMOR = Path(sys.executable).with_name("difftumor")
# The first case is good; the labels of the second one have another shape, which headers show.
GOOD, BAD = "case_00001", "case_00002"


def write_cases(folder: Path, miniature, image: str, labels: str) -> None:
    """Two cases; the names have {case}, {number} where those differ."""
    body = miniature()
    for number, case in enumerate((GOOD, BAD), 1):
        values = body.organ + body.tumor.astype(np.uint8)
        body.save(folder / image.format(case=case, number=number), body.hu + number)
        cut = values if case == GOOD else values[:-4]
        body.save(folder / labels.format(case=case, number=number), cut, dtype=np.uint8)


def make_folder(folder: Path, miniature) -> list[str]:
    write_cases(folder, miniature, "{case}/ct.nii.gz", "{case}/labels.nii.gz")
    return ["-i", str(folder), "--labels", "liver=1", "tumor=2"]


def make_lits(folder: Path, miniature) -> list[str]:
    write_cases(folder, miniature, "volume-{number}.nii", "segmentation-{number}.nii")
    return ["-i", str(folder)]


def make_kits(folder: Path, miniature) -> list[str]:
    write_cases(folder, miniature, "{case}/imaging.nii.gz", "{case}/segmentation.nii.gz")
    return ["-i", str(folder)]


def make_msd(folder: Path, miniature) -> list[str]:
    task = folder / "Task55_Mini"
    write_cases(task, miniature, "imagesTr/{case}.nii.gz", "labelsTr/{case}.nii.gz")
    (task / "imagesTs").mkdir()
    labels = {"0": "background", "1": "liver", "2": "cancer"}
    (task / "dataset.json").write_text(
        json.dumps({"modality": {"0": "CT"}, "labels": labels, "training": [], "test": []})
    )
    return ["-i", str(task), "-np", "1"]


def make_healthy(folder: Path, miniature) -> list[str]:
    write_cases(folder, miniature, "{case}/ct.nii.gz", "{case}/segmentations/liver.nii.gz")
    return ["-i", str(folder), "--organs", "liver", "--margin-mm", "10"]


def make_phantom(_folder: Path, _miniature) -> list[str]:
    return ["--cases", "1", "--tumor-cases", "0", "--spacing", "6", "5", "5"]


MAKERS: dict[str, Callable[..., list[str]]] = {
    "folder": make_folder,
    "lits": make_lits,
    "kits23": make_kits,
    "kits19": make_kits,
    "msd": make_msd,
    "healthy": make_healthy,
    "phantom": make_phantom,
}


def rejected(said: str) -> list[str]:
    """Reasons, without the names of folders: in that of the Decathlon real runs name nnU-Net's copies of the files."""
    return [re.sub(r"/\S*/|_0000", "", reason) for reason in re.findall(r"REJECTED: .*", said)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVERTERS)
def test_a_dry_run_writes_nothing_and_rejects_what_a_real_run_rejects(name, tmp_path, miniature, raw, capsys):
    words = ["convert", name, "-d", "7", "--name", "Tried", *MAKERS[name](tmp_path / "source", miniature)]
    before = state(tmp_path, raw)
    assert main([*words, "--dry-run"]) == 0
    assert state(tmp_path, raw) == before
    foretold = capsys.readouterr().out
    assert f"{raw / 'Dataset007_Tried'} would be made" in foretold and "Dry run: nothing was written" in foretold
    assert main(words) == 0
    done = capsys.readouterr().out
    assert rejected(foretold) == rejected(done) and len(rejected(done)) == (name != "phantom")
    assert "1 cases" in foretold and "1 cases" in done

    before = state(tmp_path, raw)
    assert main([*words, "--dry-run"]) == 0
    assert "finished before; nothing would be done" in capsys.readouterr().out
    assert main([*words, "--overwrite", "--dry-run"]) == 0
    assert "would be replaced" in capsys.readouterr().out
    assert state(tmp_path, raw) == before


def test_with_no_good_case_both_end_alike(tmp_path, miniature, raw, capsys):
    words = ["convert", "folder", "-d", "7", *make_folder(tmp_path / "source", miniature)]
    (tmp_path / "source" / GOOD / "labels.nii.gz").unlink()
    before = state(tmp_path, raw)
    assert main([*words, "--dry-run"]) == 2
    foretold = capsys.readouterr().err
    assert state(tmp_path, raw) == before
    assert main(words) == 2
    assert capsys.readouterr().err == foretold and "no case is left for Dataset007_source" in foretold


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-i", "SOURCE", "-d", "1000"], "dataset id 1000: expected 1 to 999"),
        (["-i", "SOURCE", "-d", "7", "--name", "a b"], "dataset name 'a b': expected letters"),
        (["-i", "SOURCE", "-d", "8"], "dataset id 8 is taken by Dataset008_Other"),
        (["-i", "SOURCE/none", "-d", "7"], "no such folder; expected one with a sub-folder for each case"),
        (["-i", "SOURCE", "-d", "7", "--spacing", "0", "1", "1"], "--spacing is (0.0, 1.0, 1.0)"),
    ],
)
def test_what_a_real_run_refuses_a_dry_run_refuses(words, said, tmp_path, miniature, raw, capsys):
    options = make_folder(tmp_path / "source", miniature)[2:]
    (raw / "Dataset008_Other").mkdir()
    words = ["convert", "folder", *(word.replace("SOURCE", str(tmp_path / "source")) for word in words), *options]
    refused = []
    for more in (["--dry-run"], []):
        assert main([*words, *more]) == 2
        refused.append(capsys.readouterr().err)
    assert refused[0] == refused[1] and said in refused[0]


def test_what_an_interrupted_run_has_left_is_said_to_be_kept(tmp_path, miniature, raw, monkeypatch, capsys):
    from nnunet_difftumor.dataset_conversion import raw_dataset

    words = ["convert", "folder", "-d", "7", *make_folder(tmp_path / "source", miniature)]
    with monkeypatch.context() as patch:
        patch.setattr(raw_dataset, "_write_dataset_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(words) == 130
    capsys.readouterr()
    before = state(raw)
    assert main([*words, "--dry-run"]) == 0
    assert f"{GOOD}: would be kept from the interrupted run" in capsys.readouterr().out
    assert state(raw) == before


def test_nothing_is_told_of_an_anonymous_case(tmp_path, miniature, raw, capsys):
    words = ["convert", "folder", "-d", "7", "--name", "Tried", *make_folder(tmp_path / "Jane", miniature)]
    assert main([*words, "--anonymous", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "REJECTED: file 2 of case_" in said and GOOD not in said and "Jane" not in said


def test_the_installed_command_says_sizes_and_free_space(tmp_path, miniature, raw):
    words = ["convert", "lits", "-d", "7", *make_lits(tmp_path / "source", miniature), "--dry-run"]
    done = subprocess.run([DIFFTUMOR, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"lits_001: 16 x 20 x 24 voxels of 3 x 2 x 2 mm\n", done.stdout)
    assert re.search(r"have [\d.]+ [KM]B, [\d.]+ [GT]B are free there", done.stdout)
    assert not list(raw.iterdir())
