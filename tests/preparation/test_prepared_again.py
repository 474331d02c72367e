"""`difftumor prepare` after the raw data changed, and what trainings say where it was not run again."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from changeable import ARRAYS, REQUEST, start

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.prepared.made_from.records import read_case_records


def prepare(*arguments: str) -> int:
    return main(["prepare", "-d", "501", "-np", "1", *REQUEST, *arguments])


def changed(before: dict[str, int], after: dict[str, int]) -> set[str]:
    names = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    return {name.removesuffix(".pkl").removesuffix(".b2nd").removesuffix("_seg") for name in names}


def test_a_mended_label_reaches_everything_that_was_made_from_it(dataset, capsys):
    case, before = "phantom_tumor_000", dataset.times()
    dataset.mend(case, old=2, new=1)
    assert prepare() == 0
    said = capsys.readouterr().out
    assert f"{case}: its label map changed" in said and "preprocessing 1 of 6 cases" in said
    assert changed(before, dataset.times()) == {case}
    truth = np.asarray(nib.load(dataset.folder / "gt_segmentations" / f"{case}.nii.gz").dataobj)
    assert 2 not in truth and (truth == 1).any()
    record = json.loads((dataset.folder / "difftumor_statistics" / ARRAYS / f"{case}.json").read_text())
    assert 2 not in record["labels"]
    # Without a tumor it is no real case any more.
    for split in dataset.splits():
        assert case not in (*split["train"], *split["val"]) and case in split["synthesis_bases"]


def test_options_of_planning_need_not_be_said_again(dataset, capsys):
    """Every message that advises `difftumor prepare -d ID` is about a dataset that some options may have made."""
    dataset.mend("phantom_002", old=5, new=0)
    plans = (dataset.folder / "nnUNetPlansDiffTumor.json").read_bytes()
    assert main(["prepare", "-d", "501", "-np", "1"]) == 0
    assert "preprocessing 1 of 6 cases" in capsys.readouterr().out
    assert (dataset.folder / "nnUNetPlansDiffTumor.json").read_bytes() == plans


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--spacing", "3", "3", "3"), "{'spacing_mm': [3.0, 3.0, 3.0]}"),
        (("--patch-size", "32", "32", "48"), "{'patch_size': [32, 32, 48]}"),
        (("--planner", "ExperimentPlanner"), "{'planner': 'ExperimentPlanner'}"),
    ],
)
def test_other_options_of_planning_are_refused(prepared_phantom, capsys, options, said):
    assert main(["prepare", "-d", "501", "-np", "1", *options]) == 2
    error = capsys.readouterr().err
    assert f"now {said} is asked for; give --overwrite" in error and "'spacing_mm': [4.0, 3.0, 3.0]" in error


def test_a_mended_base_gets_a_new_validation_case(dataset):
    specs = dataset.folder / "difftumor_validation" / "specs"
    case = "phantom_003"
    before = {path.name: path.stat().st_mtime_ns for path in specs.iterdir()}
    assert f"{case}.json" in before
    dataset.mend(case, old=5, new=0)
    assert prepare() == 0
    after = {path.name: path.stat().st_mtime_ns for path in specs.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {f"{case}.json"}
    truth = dataset.folder / "difftumor_validation" / "gt_segmentations" / f"{case}.nii.gz"
    assert 5 not in np.asarray(nib.load(truth).dataobj)


def test_other_settings_of_tumors_make_the_validation_cases_again(dataset):
    path = dataset.folder / "difftumor.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "contrast_hu": [-60, -50]}))
    assert prepare() == 0
    for specs in (dataset.folder / "difftumor_validation" / "specs").iterdir():
        content = json.loads(specs.read_text())
        assert content["tumors"]
        assert all(-60 <= tumor["spec"]["contrast_hu"] <= -50 for tumor in content["tumors"])


def test_a_withdrawn_patient_is_nowhere(dataset, capsys):
    assert main(["check", "-d", "501", "-np", "1"]) == 0
    for case in ("phantom_tumor_001", "phantom_002"):
        assert dataset.names_of(case)
        dataset.withdraw(case)
    before = dataset.times()
    assert prepare() == 0
    said = capsys.readouterr().out
    for case in ("phantom_tumor_001", "phantom_002"):
        assert f"{case}: withdrawn from Dataset501_Phantom; removed" in said
        assert dataset.names_of(case) == []
        assert dataset.texts_about(case) == []
    assert changed(before, dataset.times()) == {"phantom_tumor_001", "phantom_002"}
    assert prepare() == 0 and "withdrawn" not in capsys.readouterr().out


def test_new_patients_get_a_place_in_the_folds_and_the_others_keep_theirs(dataset):
    before = dataset.splits()
    dataset.add("new_tumor", like="phantom_tumor_000")
    dataset.add("new_healthy", like="phantom_000")
    times = dataset.times()
    assert prepare() == 0
    after = dataset.splits()
    assert changed(times, dataset.times()) == {"new_tumor", "new_healthy"}
    assert len(after) == len(before)
    for old, new in zip(before, after, strict=True):
        for key in ("train", "val"):
            assert [case for case in new[key] if case != "new_tumor"] == old[key]
        assert ("new_tumor" in new["train"]) != ("new_tumor" in new["val"])
        assert "new_healthy" in new["synthesis_bases"]
    assert sum("new_tumor" in fold["val"] for fold in after) == 1


def test_a_case_that_the_user_took_out_of_the_folds_stays_out(dataset, capsys):
    splits = dataset.splits()
    for split in splits:
        for key in ("train", "val"):
            split[key] = [case for case in split[key] if case != "phantom_tumor_001"] or ["phantom_tumor_000"]
        split["left_out"] = ["phantom_tumor_001"]
    (dataset.folder / "splits_final.json").write_text(json.dumps(splits))
    assert prepare() == 0
    assert all("phantom_tumor_001" not in (*split["train"], *split["val"]) for split in dataset.splits())
    assert "in no fold, and never trained: phantom_tumor_001" in capsys.readouterr().out


def test_the_same_content_with_another_time_is_no_change(dataset, capsys):
    before = dataset.times()
    for path in (dataset.image("phantom_000"), dataset.label("phantom_000")):
        path.write_bytes(path.read_bytes())
    assert prepare() == 0
    assert before == dataset.times()
    assert "preprocessing: kept" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["phantom_001.b2nd", "phantom_001_seg.b2nd", "phantom_001.pkl"])
def test_a_damaged_preprocessed_case_is_made_again(dataset, capsys, name):
    path = dataset.folder / ARRAYS / name
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(
        InputError, match=rf"phantom_001: \S*{name} has .* it is damaged; run `difftumor prepare -d 501`"
    ):
        start(dataset)
    assert prepare() == 0
    assert f"phantom_001: {name} is damaged" in capsys.readouterr().out
    assert path.stat().st_size == len(good)
    assert not [line for line in start(dataset) if "ERROR" in line]


def test_damaged_statistics_are_measured_again(dataset):
    path = dataset.folder / "difftumor_statistics" / ARRAYS / "liver" / "phantom_001.npz"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2])
    assert prepare() == 0
    assert path.stat().st_size == size


def mended(dataset):
    dataset.mend("phantom_tumor_000", old=2, new=1)


def withdrawn(dataset):
    dataset.withdraw("phantom_002")


def added(dataset):
    dataset.add("new", like="phantom_000")


def organs(dataset):
    path = dataset.folder / "difftumor.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "organs": content["organs"][:1]}))


def labels(dataset):
    dataset.write(labels={"background": 0, "a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6, "spleen": 7})


def window(dataset):
    path = dataset.folder / "nnUNetPlansDiffTumor.json"
    plans = json.loads(path.read_text())
    plans["foreground_intensity_properties_per_channel"]["0"]["percentile_99_5"] = 400.0
    path.write_text(json.dumps(plans))


def older(dataset):
    shutil.rmtree(dataset.folder / "difftumor_made_from")


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (mended, "phantom_tumor_000: .*phantom_tumor_000.nii.gz has changed since the dataset was prepared"),
        (withdrawn, "phantom_002: was withdrawn from Dataset501_Phantom"),
        (added, "new: is in Dataset501_Phantom, but not in the prepared dataset"),
        (organs, "difftumor.json: organs are not those that were measured"),
        (labels, "dataset.json: labels are not those of when the dataset was prepared"),
        (window, "the HU window is -175 to 400, but .* was preprocessed with -175 to 250"),
        (older, "by an older version, which kept no record"),
    ],
)
def test_a_training_on_data_that_are_not_what_was_prepared_stops_unless_told_otherwise(dataset, change, seen):
    assert not [line for line in start(dataset) if "ERROR" in line]
    change(dataset)
    with pytest.raises(InputError, match=f"the training does not begin: .*{seen}.*`difftumor prepare -d 501`"):
        start(dataset)
    path = dataset.folder / "difftumor.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "on_wrong_data": "warn"}))
    said = "\n".join(start(dataset))
    assert "ERROR" in said and "begins all the same" in said


@pytest.mark.parametrize("change", [mended, withdrawn, added, labels, older])
def test_prepare_is_the_way_out(dataset, change):
    change(dataset)
    assert prepare() == 0
    assert not [line for line in start(dataset) if "ERROR" in line]


def test_raw_data_that_are_elsewhere_are_said_not_to_be_compared(dataset, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", "/nowhere")
    assert [line for line in start(dataset) if "NOTE" in line and "is not compared with its raw data" in line]


def test_the_record_says_versions_settings_and_content(dataset):
    record = json.loads((dataset.folder / "difftumor_made_from" / "dataset.json").read_text())
    assert record["window_hu"] == [-175, 250] and record["difftumor"] and record["nnunetv2"]
    assert [organ["name"] for organ in record["organs"]] == ["liver", "kidney", "pancreas"]
    cases = read_case_records(dataset.folder)
    assert sorted(cases) == sorted(path.name.removesuffix(".nii.gz") for path in (dataset.raw / "labelsTr").iterdir())
    assert {len(digest) for case in cases.values() for digest in case.files.values()} == {64}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"labels": {"0": "background", "1": "liver"}}, "labels is that of nnU-Net version 1"),
        ({"channel_names": None, "modality": {"0": "CT"}}, "modality is that of nnU-Net version 1"),
        ({"file_ending": None}, "file_ending is null, expected"),
        ({"numTraining": 9}, "numTraining is 9, but 6 cases are there"),
        ({"labels": {"background": 0, "liver": "1"}}, 'labels: liver is "1", expected a whole number without quotes'),
        ({"labels": None}, "labels is null, expected an object"),
        ({"labels": {"liver": 1}}, "labels: background is null, expected 0"),
        ({"labels": {"background": 0, "liver": 2}}, "the values are [0, 2], expected 0, 1, 2, ... without a gap"),
        (
            {"labels": {"background": 0, "kidney": [2, 4], "kidney_tumor": 5}},
            "`difftumor convert folder --labels kidney=2,4 kidney_tumor=5` renumbers them",
        ),
        ({"labels": {"background": 0, "liver": [1, 2], "liver_tumor": 2}}, "regions_class_order is missing"),
        ({"channel_names": ["CT"]}, 'channel_names is ["CT"], expected an object'),
    ],
)
def test_a_mistake_in_dataset_json_is_named(dataset, capsys, values, said):
    dataset.write(**values)
    assert prepare() == 2
    error = capsys.readouterr().err
    assert str(dataset.raw / "dataset.json") in error and said in error and len(error.splitlines()) == 1


def test_dataset_json_that_is_no_json_is_named_with_the_place(dataset, capsys):
    path = dataset.raw / "dataset.json"
    path.write_text(path.read_text().rstrip().removesuffix("}") + ",}")
    assert prepare() == 2
    assert f"{path}: is not valid JSON" in (error := capsys.readouterr().err) and "line" in error


def test_the_advice_for_a_broken_difftumor_json_leads_out(dataset, capsys):
    path = dataset.folder / "difftumor.json"
    path.write_text(path.read_text().rstrip().removesuffix("}") + ",}")
    assert prepare() == 2
    error = capsys.readouterr().err
    assert "line" in error and "delete the file: `difftumor prepare` then writes a new one" in error
    path.unlink()
    assert prepare() == 0
    assert not [line for line in start(dataset) if "ERROR" in line]


@pytest.mark.parametrize(
    ("old", "new", "status", "said"),
    [
        (
            "imagesTr/phantom_000_0000.nii.gz",
            "imagesTr/phantom_000_seg_0000.nii.gz",
            2,
            "case phantom_000_seg: nnU-Net",
        ),
        ("labelsTr/phantom_000.nii.gz", "labelsTr/other.nii.gz", 2, "phantom_000.nii.gz: no such file, but case"),
        ("imagesTr/phantom_000_0000.nii.gz", "imagesTr/phantom_000.nii.gz", 2, "numTraining is 6, but 5 cases"),
    ],
)
def test_cases_that_are_lost_by_their_names_are_named(dataset, capsys, old, new, status, said):
    (dataset.raw / old).rename(dataset.raw / new)
    assert prepare() == status
    assert said in capsys.readouterr().err


def test_files_that_belong_to_no_case_are_named(dataset, capsys):
    shutil.copy(dataset.label("phantom_000"), dataset.label("forgotten"))
    assert prepare() == 0
    assert "NOTE" in (said := capsys.readouterr().out) and "forgotten.nii.gz belong to no case" in said


def test_the_installed_command_mends_and_names(dataset):
    command = [Path(sys.executable).with_name("difftumor"), "prepare", "-d", "501", "-np", "1", *REQUEST]
    mended(dataset)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "phantom_tumor_000: its label map changed" in done.stdout
    dataset.write(file_ending=None)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "file_ending is null" in done.stderr and "Traceback" not in done.stderr
