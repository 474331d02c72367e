"""What `difftumor check` remembers, what follows from what it found, and the ways out."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from changeable import REQUEST, ChangeableDataset, start
from seeds import edit, live, moved, one_bit
from tiny_networks import write_weights

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.preparation.check import check

BASE, REAL = "phantom_001", "phantom_tumor_000"


@pytest.fixture(scope="module", autouse=True)
def looked_at(prepared_phantom):
    """Once, so that each test's check looks at what the test has changed."""
    check(501, processes=1, report=lambda line: None)
    yield
    shutil.rmtree(prepared_phantom.preprocessed / "difftumor_checks")


def found(dataset: ChangeableDataset, kind: str, case: str) -> str:
    """The line of the only finding of a kind about a case, from the command, which must say that something is wrong."""
    output = dataset.folder / "findings.json"
    assert main(["check", "-d", "501", "-np", "1", "-o", str(output)]) == 2
    content = json.loads(output.read_text())
    (finding,) = [entry for entry in content["findings"] if entry["kind"] == kind and entry["case"] == case]
    assert finding["severity"] in ("error", "warning")
    return f"{finding['seen']}; {finding['do']}"


def prepare(*arguments: str) -> None:
    assert main(["prepare", "-d", "501", "-np", "1", *REQUEST, *arguments]) == 0


def test_phantoms_are_all_well(dataset, capsys):
    assert main(["check", "-d", "501", "-np", "1"]) == 0
    assert "Dataset501_Phantom: 6 cases, all well" in capsys.readouterr().out


def test_check_and_synthesize_have_the_same_limits_of_organs(dataset, tmp_path):
    """At the installed command: 350 HU too low, where no fat is left to be seen."""
    edit(dataset.image(BASE), lambda hu: np.where(hu < -50, -900, hu - 350).astype(hu.dtype))
    script = Path(sys.executable).with_name("difftumor")
    done = subprocess.run([script, "check", "-d", "501", "-np", "1"], capture_output=True, text=True)
    checked = re.search(rf"{BASE}: liver has a median of (-\d+), expected (\S+) to (\S+) HU", done.stdout + done.stderr)
    assert done.returncode == 2 and checked, done.stdout + done.stderr
    words = [script, "synthesize", dataset.image(BASE), "--organ-mask", dataset.label(BASE), "--organ-label", "1"]
    words += ["--organ", "liver", "-o", tmp_path / "out"]
    done = subprocess.run(words, capture_output=True, text=True)
    refused = re.search(r"liver median (-\d+) HU; expected (\S+) to ([^;]+);", done.stderr)
    assert done.returncode == 2 and refused, done.stderr
    assert refused.groups() == checked.groups() and checked.groups()[1:] == ("-50", "300")


def test_a_dataset_to_compare_with_that_is_not_there(dataset, capsys):
    assert main(["check", "-d", "501", "--against", "888"]) == 2
    assert "--against 888: expected one Dataset888_NAME" in capsys.readouterr().err


def test_a_bank_made_from_another_version_of_a_case(dataset, tmp_path):
    bank = tmp_path / "bank"
    arguments = ["synthesize", "--bank", "-d", "501", "--per-case", "1", "-o", str(bank)]
    assert main(arguments) == 0
    path = dataset.folder / "difftumor.json"
    settings = {**json.loads(path.read_text()), "source": "bank", "bank_folder": str(bank)}
    path.write_text(json.dumps(settings))
    assert main(["check", "-d", "501", "-np", "1"]) == 0
    assert not [line for line in start(dataset) if "ERROR" in line]
    edit(dataset.image(BASE), lambda hu: hu + np.int16(5))
    prepare()
    assert "made from another version of the case" in found(dataset, "stale-bank", BASE)
    with pytest.raises(InputError, match=f"{BASE}: .* made from another version of the case"):
        start(dataset)
    # The way out.
    kept = {path: path.read_bytes() for path in bank.glob("*/*.npz") if path.parent.name != BASE}
    assert main(arguments) == 0
    assert {path: path.read_bytes() for path in kept} == kept
    assert main(["check", "-d", "501", "-np", "1"]) == 0


def test_weights_that_fit_are_all_well(dataset, tmp_path):
    live(dataset, write_weights(tmp_path / "weights", "liver_early", "liver_late"))
    assert main(["check", "-d", "501", "-np", "1"]) == 0


def test_what_a_check_found_stops_the_next_training(dataset):
    edit(dataset.label(BASE), lambda labels: moved(labels, 7, 1))
    prepare()
    shutil.rmtree(dataset.folder / "difftumor_checks")
    said = start(dataset)
    assert any("NOTE nobody has looked at the raw data of 6 cases" in line for line in said)
    assert main(["check", "-d", "501", "-np", "1"]) == 2
    with pytest.raises(InputError, match=f"the training does not begin: {BASE}: .* labels look shifted"):
        start(dataset)
    edit(dataset.label(BASE), lambda labels: moved(labels, -7, 1))
    prepare()
    assert any("of 1 cases" in line for line in start(dataset))


def test_a_training_may_begin_once_the_twin_of_a_case_is_withdrawn(dataset):
    """What was found about the one because of the other goes with it; what was found about others stays."""
    dataset.add("phantom_twin", like=REAL)
    edit(dataset.label(BASE), lambda labels: moved(labels, 7, 1))
    prepare()
    assert "is the same scan as phantom_twin" in found(dataset, "same-scan", REAL)
    # One shifted label map is three findings, one an organ.
    with pytest.raises(InputError, match=rf"{BASE}: .* labels look shifted .* \(and 3 more\)"):
        start(dataset)
    dataset.withdraw("phantom_twin")
    prepare()
    with pytest.raises(InputError, match=rf"{BASE}: .* labels look shifted .* \(and 2 more\)"):
        start(dataset)


def test_nothing_is_read_again_while_files_stay_the_same(dataset, monkeypatch):
    monkeypatch.setattr("nnunet_difftumor.checks.examine.read_ct", None)
    monkeypatch.setattr("hashlib.file_digest", None)
    assert check(501, processes=1, report=lambda line: None) == []
    assert not [line for line in start(dataset) if "ERROR" in line]


@pytest.mark.parametrize("ending", [".b2nd", "_seg.b2nd", ".pkl"])
def test_a_training_reads_files_of_the_same_size_that_were_written_again(dataset, ending):
    path = dataset.arrays / f"{BASE}{ending}"
    content = path.read_bytes()
    path.write_bytes(content)
    assert not [line for line in start(dataset) if "ERROR" in line]
    path.write_bytes(one_bit(0.5)(bytearray(content)))
    with pytest.raises(InputError, match=f"the training does not begin: {BASE}: {path} is not what was written"):
        start(dataset)


def test_a_copy_of_a_prepared_dataset_is_not_read_again(dataset, tmp_path, monkeypatch):
    """As batch systems make one for every training, with times of change."""
    copy = shutil.copytree(dataset.folder, tmp_path / "scratch" / dataset.folder.name)
    monkeypatch.setattr("hashlib.file_digest", None)
    assert not [line for line in start(ChangeableDataset(dataset.raw, copy)) if "ERROR" in line]


def test_several_processes_find_the_same(dataset):
    edit(dataset.label(BASE), lambda labels: moved(labels, 7, 1))
    one = check(501, processes=1, report=lambda line: None)
    assert one
    shutil.rmtree(dataset.folder / "difftumor_checks")
    assert check(501, processes=2, report=lambda line: None) == one


def test_a_dataset_that_is_not_prepared_is_looked_at_too(dataset, capsys):
    shutil.rmtree(dataset.folder)
    try:
        assert main(["check", "-d", "501", "-np", "1"]) == 0
        assert "NOTE Dataset501_Phantom is not prepared" in capsys.readouterr().out
    finally:
        dataset.folder.mkdir(exist_ok=True)
