import json
import os

import nibabel as nib
import numpy as np
import pytest

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.dataset_conversion.msd import convert
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.preparation.organs import find_organs


@pytest.fixture
def task(tmp_path, save_case):
    """A small MSD task: two good cases, one normalized, and one test image."""
    folder = tmp_path / "Task55_Mini"
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / part).mkdir(parents=True)
    for case, scale in (("mini_001", 1), ("mini_002", 1), ("mini_003", 0.001)):
        source = save_case(tmp_path / case, scale=scale)
        (source / "ct.nii.gz").rename(folder / "imagesTr" / f"{case}.nii.gz")
        (source / "labels.nii.gz").rename(folder / "labelsTr" / f"{case}.nii.gz")
    (save_case(tmp_path / "test") / "ct.nii.gz").rename(folder / "imagesTs" / "mini_004.nii.gz")
    (folder / "imagesTr" / "._mini_001.nii.gz").write_bytes(b"left by macOS")
    content = {
        "name": "Mini",
        "description": "a small task",
        "reference": "nobody",
        "licence": "CC0",
        "release": "1.0",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "numTraining": 3,
        "training": [],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def change(task, **entries):
    path = task / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


@pytest.mark.slow
def test_a_task_becomes_a_dataset_with_bad_cases_left_out(task, raw, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_results", "/nowhere")
    assert main(["convert", "msd", "-i", str(task), "-d", "9", "--processes", "1"]) == 0
    dataset = raw / "Dataset009_Mini"
    assert [path.name for path in raw.iterdir()] == ["Dataset009_Mini"]
    content = json.loads((dataset / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "liver": 1, "cancer": 2}
    assert content["channel_names"] == {"0": "CT"}
    assert content["numTraining"] == 2
    assert (content["description"], content["licence"]) == ("a small task", "CC0")
    assert sorted(path.name for path in (dataset / "imagesTr").iterdir()) == [
        "mini_001_0000.nii.gz",
        "mini_002_0000.nii.gz",
    ]
    assert [path.name for path in (dataset / "imagesTs").iterdir()] == ["mini_004_0000.nii.gz"]
    image = task / "imagesTr" / "mini_001.nii.gz"
    assert (dataset / "imagesTr" / "mini_001_0000.nii.gz").read_bytes() == image.read_bytes()
    np.testing.assert_array_equal(
        nib.load(dataset / "labelsTr" / "mini_001.nii.gz").dataobj,
        nib.load(task / "labelsTr" / "mini_001.nii.gz").dataobj,
    )
    report = json.loads((dataset / "conversion_report.json").read_text())
    assert list(report["rejected"]) == ["mini_003"]
    assert "not CT in HU" in report["rejected"]["mini_003"]
    assert "mini_003: REJECTED" in capsys.readouterr().out
    assert os.environ["nnUNet_raw"] == str(raw)
    assert os.environ["nnUNet_results"] == "/nowhere"


@pytest.mark.slow
def test_a_broken_image_ends_the_conversion_with_nothing_left(task, raw):
    path = task / "imagesTr" / "mini_002.nii.gz"
    path.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"Task55_Mini: nnU-Net's converter failed: [\s\S]*mini_002"):
        convert(task, 9, processes=1)
    assert list(raw.iterdir()) == []


def test_what_is_no_ct_task_is_refused_before_any_work(task, raw):
    with pytest.raises(InputError, match="named like Task03_Liver"):
        convert(task / "imagesTr", 9)
    change(task, modality={"0": "FLAIR", "1": "T1w"})
    with pytest.raises(InputError, match=r"dataset\.json: modality is \['FLAIR', 'T1w'\]"):
        convert(task, 9)
    change(task, modality={"0": "CT"}, labels={"0": "background", "3": "liver"})
    with pytest.raises(InputError, match=r"expected 0, 1, 2"):
        convert(task, 9)
    (task / "dataset.json").write_text("{}")
    with pytest.raises(InputError, match=r"dataset\.json: not the dataset\.json of an MSD task"):
        convert(task, 9)
    (task / "dataset.json").unlink()
    with pytest.raises(InputError, match=r"Task55_Mini: dataset\.json is missing"):
        convert(task, 9)
    assert list(raw.iterdir()) == []


def test_a_taken_id_is_refused_before_nnunets_converter_runs(task, raw):
    (raw / "Dataset009_Other").mkdir()
    with pytest.raises(InputError, match="taken by Dataset009_Other"):
        convert(task, 9)
    (raw / "Dataset009_Other").rename(raw / "Dataset009_Mini")
    with pytest.raises(InputError, match="`overwrite`"):
        convert(task, 9)


@pytest.mark.parametrize(
    ("name", "case", "labels", "organ"),
    [
        ("Task03_Liver", "liver_{}", ["background", "liver", "cancer"], "liver"),
        ("Task07_Pancreas", "pancreas_{:03d}", ["background", "pancreas", "cancer"], "pancreas"),
    ],
)
def test_the_liver_and_the_pancreas_task_convert_and_their_tumors_are_found(
    tmp_path, raw, miniature, verify, report_of, name, case, labels, organ
):
    task = tmp_path / name
    for number in (1, 28):
        made = miniature() if number == 1 else miniature(affine=np.eye(4))
        made.save(task / "imagesTr" / f"{case.format(number)}.nii.gz", made.hu)
        made.save(task / "labelsTr" / f"{case.format(number)}.nii.gz", made.organ + 1 * made.tumor)
    made.save(task / "imagesTs" / f"{case.format(2)}.nii.gz", made.hu)
    content = {
        "name": name[7:],
        "description": "as distributed",
        "reference": "somebody",
        "licence": "CC-BY-SA 4.0",
        "release": "1.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {str(value): label for value, label in enumerate(labels)},
        "numTraining": 2,
        "numTest": 1,
        "training": [],
        "test": [],
    }
    (task / "dataset.json").write_text(json.dumps(content))
    dataset = convert(task, 9, processes=1)
    verify(dataset)
    (found,) = find_organs(json.loads((dataset / "dataset.json").read_text()))
    assert (found.name, found.organ_labels, found.tumor_label) == (organ, (1,), 2)
    report = report_of(dataset)
    assert list(report["cases"]) == [case.format(1)]
    # As in volumes 28 to 47 of LiTS.
    assert "state the voxel size" in report["rejected"][case.format(28)]
    dataset = convert(task, 10, processes=1, spacing_mm=(1, 1, 1))
    assert len(report_of(dataset)["cases"]) == 2


@pytest.mark.slow
def test_what_a_killed_conversion_left_is_removed_and_a_finished_one_is_success(task, raw, capsys):
    left = raw / ".tmp-0123abcd-Dataset009_Mini"
    left.mkdir()
    (left / "of nnU-Net").write_text("")
    arguments = ["convert", "msd", "-i", str(task), "-d", "9", "--processes", "1"]
    assert main(arguments) == main(arguments) == 0
    assert "Dataset009_Mini: finished before" in capsys.readouterr().out
    assert [path.name for path in raw.iterdir()] == ["Dataset009_Mini"]
