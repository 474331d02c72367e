"""What a killed `prepare` may have left of nnU-Net's own files, at moments too short to be met by killing it."""

import json

from changeable import ARRAYS, REQUEST

from nnunet_difftumor.cli.main import main

PREPARE = ["prepare", "-d", "501", "-np", "1", *REQUEST]


def test_half_a_fingerprint_and_half_planned_plans_are_made_again(dataset, capsys):
    """nnU-Net writes its fingerprint in place, and its plans before they are edited."""
    plans = dataset.folder / "nnUNetPlansDiffTumor.json"
    fingerprint = dataset.folder / "dataset_fingerprint.json"
    expected = plans.read_text(), fingerprint.read_text()
    plans.rename(dataset.folder / ".unfinished-nnUNetPlansDiffTumor.json")
    (dataset.folder / ".unfinished-nnUNetPlansDiffTumor.json").write_text(expected[0][:500])
    fingerprint.write_text(expected[1][:100])
    assert main(PREPARE) == 0, capsys.readouterr().err
    assert (plans.read_text(), fingerprint.read_text()) == expected
    assert not list(dataset.folder.rglob(".*"))


def test_what_users_added_to_the_plans_is_there_after_planning_again(dataset):
    """As nnU-Net itself does it."""
    path = dataset.folder / "nnUNetPlansDiffTumor.json"
    plans = json.loads(path.read_text())
    plans["configurations"]["mine"] = {"inherits_from": "3d_fullres", "batch_size": 3}
    path.write_text(json.dumps(plans))
    assert main([*PREPARE, "--overwrite"]) == 0
    again = json.loads(path.read_text())
    assert again["configurations"]["mine"] == {"inherits_from": "3d_fullres", "batch_size": 3}
    assert again["plans_name"] == "nnUNetPlansDiffTumor"
    assert not list(dataset.folder.rglob(".*"))


def test_unfinished_cases_of_a_killed_call_are_removed_when_all_are_there(dataset, capsys):
    left = dataset.folder / f".unfinished-{ARRAYS}" / "phantom_000"
    left.mkdir(parents=True)
    (left / "phantom_000.b2nd").write_bytes(b"half of it")
    times = dataset.times()
    assert main(PREPARE) == 0
    assert dataset.times() == times and "[3/6] preprocessing: kept" in capsys.readouterr().out
    assert not list(dataset.folder.rglob(".*"))
