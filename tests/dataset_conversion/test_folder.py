import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.dataset_conversion.folder import convert
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.preparation.organs import find_organs
from nnunet_difftumor.synthesis.organ import Organ

LIVER_TUMOR = {"liver": [1], "tumor": [2]}


def labels_of(dataset, case) -> np.ndarray:
    return np.asarray(nib.load(dataset / "labelsTr" / f"{case}.nii.gz").dataobj)


def test_the_command_makes_a_dataset_that_nnunet_can_read(tmp_path, raw, save_case, capsys):
    for case in ("a", "b"):
        save_case(tmp_path / "in" / case)
    status = main(["convert", "folder", "-i", str(tmp_path / "in"), "-d", "7", "--labels", "liver=1", "tumor=2"])
    assert status == 0
    dataset = raw / "Dataset007_in"
    assert sorted(path.name for path in raw.iterdir()) == ["Dataset007_in"]
    content = json.loads((dataset / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "CT"}
    assert content["labels"] == {"background": 0, "liver": 1, "tumor": 2}
    assert content["numTraining"] == 2
    assert content["file_ending"] == ".nii.gz"
    assert (dataset / "imagesTr" / "a_0000.nii.gz").read_bytes() == (tmp_path / "in/a/ct.nii.gz").read_bytes()
    output = capsys.readouterr().out
    assert "[1/2] a: 8 x 10 x 12 voxels of 3 x 1.5 x 1.5 mm; liver 0.1 ml" in output
    assert "2 cases, 0 rejected" in output


def test_source_values_are_renumbered_in_the_order_given(tmp_path, raw, save_case):
    save_case(tmp_path / "in" / "a", values=(9, 2, 3))
    dataset = convert(tmp_path / "in", 7, labels={"kidney": [2, 3], "spleen": [9]}, name="Two")
    assert dataset == raw / "Dataset007_Two"
    labels = labels_of(dataset, "a")
    assert [int(labels[x, 4, 3]) for x in (1, 2, 3, 4, 5)] == [0, 2, 1, 1, 0]
    assert labels.dtype == np.uint8


def test_label_map_json_overrides_the_values_for_its_case(tmp_path, raw, save_case):
    save_case(tmp_path / "in" / "a")
    save_case(tmp_path / "in" / "b", values=(5,), label_map={"liver": 5})
    save_case(tmp_path / "in" / "c", values=(5, 8, 1), label_map={"liver": [5, 8], "tumor": 1})
    dataset = convert(tmp_path / "in", 7, labels=LIVER_TUMOR)
    assert set(np.unique(labels_of(dataset, "b"))) == {0, 1}
    assert [int(labels_of(dataset, "c")[x, 4, 3]) for x in (2, 3, 4)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"spleen": 5}', "spleen is not among the labels liver, tumor"),
        ("[5]", "expected label names with values"),
        ("{", "is not JSON"),
        ('{"liver": "5"}', "expected whole numbers"),
        ('{"liver": 0}', "expected whole numbers"),
        ('{"liver": 5, "tumor": 5}', "value 5 is given to both"),
    ],
)
def test_a_wrong_label_map_json_rejects_its_case(tmp_path, raw, save_case, content, reason):
    save_case(tmp_path / "in" / "bad", values=(5,))
    (tmp_path / "in" / "bad" / "label_map.json").write_text(content)
    save_case(tmp_path / "in" / "good")
    dataset = convert(tmp_path / "in", 7, labels=LIVER_TUMOR)
    rejected = json.loads((dataset / "conversion_report.json").read_text())["rejected"]
    assert list(rejected) == ["bad"]
    assert "label_map.json" in rejected["bad"]
    assert reason in rejected["bad"]


def test_values_that_no_label_lists_reject_the_case_unless_ignored(tmp_path, raw, save_case):
    save_case(tmp_path / "in" / "a", values=(1, 2, 7))
    with pytest.raises(InputError, match=r"labels\.nii\.gz: holds the values 7, which no label lists"):
        convert(tmp_path / "in", 7, labels=LIVER_TUMOR)
    dataset = convert(tmp_path / "in", 7, labels=LIVER_TUMOR, ignore_other_labels=True)
    assert set(np.unique(labels_of(dataset, "a"))) == {0, 1, 2}


def test_every_rejected_case_is_listed_with_its_reason(tmp_path, raw, save_case, capsys):
    save_case(tmp_path / "in" / "good")
    save_case(tmp_path / "in" / "no_labels")
    (tmp_path / "in/no_labels/labels.nii.gz").unlink()
    (tmp_path / "in" / "no_files").mkdir()
    save_case(tmp_path / "in" / "normalized", scale=0.001)
    save_case(tmp_path / "in" / "wrong_labels", values=(5,))
    save_case(tmp_path / "in" / "empty", values=())
    save_case(tmp_path / "in" / "two words")
    truncated = save_case(tmp_path / "in" / "truncated") / "ct.nii.gz"
    truncated.write_bytes(truncated.read_bytes()[:500])
    moved = save_case(tmp_path / "in" / "moved") / "labels.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(nib.load(moved).dataobj), np.diag([-1.5, -1.5, 2.0, 1])), moved)
    dataset = convert(tmp_path / "in", 7, labels=LIVER_TUMOR)
    report = json.loads((dataset / "conversion_report.json").read_text())
    assert list(report["cases"]) == ["good"]
    assert report["cases"]["good"]["shape"] == [8, 10, 12]
    assert report["cases"]["good"]["volume_ml"] == {
        "liver": pytest.approx(0.061, 0.01),
        "tumor": pytest.approx(0.061, 0.01),
    }
    expected = {
        "no_labels": "labels.nii.gz: no such file",
        "no_files": "ct.nii.gz: no such file",
        "normalized": "not CT in HU",
        "wrong_labels": "holds the values 5",
        "empty": "none of the labels",
        "two words": "cannot be a case name",
        "truncated": "cannot be read",
        "moved": "mm away from",
    }
    assert set(report["rejected"]) == set(expected)
    output = capsys.readouterr().out
    for case, reason in expected.items():
        assert reason in report["rejected"][case]
        assert f"{case}: REJECTED: {report['rejected'][case]}" in output
    assert sorted(path.name for path in (dataset / "labelsTr").iterdir()) == ["good.nii.gz"]
    assert json.loads((dataset / "dataset.json").read_text())["numTraining"] == 1


def test_other_file_names_and_plain_nifti_are_taken(tmp_path, raw, save_case):
    save_case(tmp_path / "in" / "a", suffix=".nii", ct="image", labels="mask")
    arguments = ["-i", str(tmp_path / "in"), "-d", "7", "--labels", "liver=1,2"]
    names = ["--ct-name", "image.nii", "--labels-name", "mask.nii", "--name", "Plain"]
    assert main(["convert", "folder", *arguments, *names]) == 0
    before = nib.load(tmp_path / "in/a/image.nii")
    after = nib.load(raw / "Dataset007_Plain/imagesTr/a_0000.nii.gz")
    np.testing.assert_array_equal(after.dataobj.get_unscaled(), before.dataobj.get_unscaled())
    np.testing.assert_array_equal(after.affine, before.affine)


def test_a_trailing_fourth_axis_is_removed_so_that_nnunet_sees_three(tmp_path, raw, save_case):
    path = save_case(tmp_path / "in" / "a") / "ct.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[..., None], image.affine), path)
    dataset = convert(tmp_path / "in", 7, labels=LIVER_TUMOR)
    assert nib.load(dataset / "imagesTr/a_0000.nii.gz").shape == (12, 10, 8)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"background": [0], "liver": [1]}, "no background"),
        ([("liver", [1]), ("liver", [2])], "each name once"),
        ({"liver": [1], "tumor": [1]}, "value 1 is given to both liver and tumor"),
        ({"liver": [0]}, "from 1 to 32767"),
    ],
)
def test_wrong_labels_are_refused_before_any_work(tmp_path, raw, save_case, labels, reason):
    save_case(tmp_path / "in" / "a")
    with pytest.raises(InputError, match=reason):
        convert(tmp_path / "in", 7, labels=labels)
    assert list(raw.iterdir()) == []


def test_a_label_without_values_is_declared_so_that_prepare_finds_a_pair(tmp_path, raw, save_case):
    save_case(tmp_path / "in" / "healthy", values=(1,))
    save_case(tmp_path / "in" / "other_values", values=(5,), label_map={"liver": 5, "liver_tumor": []})
    arguments = ["-i", str(tmp_path / "in"), "-d", "7", "--labels", "liver=1", "liver_tumor="]
    assert main(["convert", "folder", *arguments]) == 0
    dataset = raw / "Dataset007_in"
    content = json.loads((dataset / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "liver": 1, "liver_tumor": 2} and content["numTraining"] == 2
    assert find_organs(content) == (Organ("liver", (1,), 2, (2,)),)
    for case in ("healthy", "other_values"):
        assert set(np.unique(labels_of(dataset, case))) == {0, 1}


def test_a_label_without_values_does_not_hide_a_tumor(tmp_path, raw, save_case):
    save_case(tmp_path / "in" / "ill", values=(1, 2))
    with pytest.raises(InputError, match="holds the values 2, which no label lists"):
        convert(tmp_path / "in", 7, labels={"liver": [1], "liver_tumor": []})


@pytest.mark.parametrize("text", ["liver", "=1", "=", "liver=a", "liver=1,", "liver=-1"])
def test_labels_that_cannot_be_read_end_the_command(tmp_path, raw, capsys, text):
    with pytest.raises(SystemExit) as stop:
        main(["convert", "folder", "-i", str(tmp_path), "-d", "7", "--labels", text])
    assert stop.value.code == 2
    assert "NAME=VALUE" in capsys.readouterr().err


def test_a_folder_that_is_missing_or_empty_is_named(tmp_path, raw):
    with pytest.raises(InputError, match="absent: no such folder"):
        convert(tmp_path / "absent", 7, labels=LIVER_TUMOR)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: has no sub-folders"):
        convert(tmp_path / "empty", 7, labels=LIVER_TUMOR)


@pytest.mark.slow
def test_real_scans_with_different_label_values_become_one_dataset(tmp_path, raw):
    data = os.environ.get("DIFFTUMOR_TEST_DATA")
    if not data:
        pytest.skip("DIFFTUMOR_TEST_DATA names no folder with real CT")
    for case in ("abdomen_3mm", "liver_healthy", "liver_tumors"):
        (tmp_path / "in" / case).mkdir(parents=True)
        for name in ("ct.nii.gz", "labels.nii.gz"):
            (tmp_path / "in" / case / name).symlink_to(Path(data) / case / name)
    (tmp_path / "in/abdomen_3mm/label_map.json").write_text('{"liver": 5}')
    arguments = ["-i", str(tmp_path / "in"), "-d", "7", "--labels", "liver=1", "tumor=2", "--ignore-other-labels"]
    assert main(["convert", "folder", *arguments]) == 0
    dataset = raw / "Dataset007_in"
    cases = json.loads((dataset / "conversion_report.json").read_text())["cases"]
    # Volumes as the data's own description states them.
    assert cases["abdomen_3mm"]["volume_ml"]["liver"] == pytest.approx(1126, rel=0.02)
    assert cases["abdomen_3mm"]["volume_ml"]["tumor"] == 0
    assert cases["liver_tumors"]["volume_ml"]["tumor"] > 50
    assert not (dataset / "imagesTr/liver_tumors_0000.nii.gz").is_symlink()
