"""`evaluate` and `difftumor evaluate` on folders of NIfTI files."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.evaluate import evaluate
from nnunet_difftumor.evaluation.labels import tumor_labels

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
ORGAN, TUMOR, CYST = 1, 2, 3


def write(path, *boxes, affine=AFFINE, shape=(30, 30, 20)):
    """A label map (x, y, z) of boxes (label, start, size)."""
    labels = np.zeros(shape, np.uint8)
    for label, start, size in boxes:
        labels[tuple(slice(n, n + size) for n in start)] = label
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(labels, affine), path)


@pytest.fixture
def folders(tmp_path):
    """Three cases: one tumor of two found, a healthy case with a false alarm far from the organ, a healthy case."""
    truth, prediction = tmp_path / "labels", tmp_path / "predicted"
    organ = (ORGAN, (2, 2, 2), 16)
    write(truth / "a.nii.gz", organ, (TUMOR, (4, 4, 4), 4), (TUMOR, (12, 12, 12), 5))
    write(prediction / "a.nii.gz", organ, (TUMOR, (4, 4, 5), 4))
    write(truth / "b.nii.gz", organ)
    write(prediction / "b.nii.gz", organ, (TUMOR, (24, 24, 4), 3))
    write(truth / "c.nii.gz", organ, (CYST, (4, 4, 4), 4))
    write(prediction / "c.nii.gz", organ, (CYST, (4, 4, 4), 4))
    (prediction / "dataset.json").write_text(
        json.dumps({"labels": {"background": 0, "kidney": [1, 2, 3], "tumor": TUMOR, "cyst": CYST}})
    )
    return truth, prediction


def test_figures_of_a_small_folder(folders):
    result = evaluate(*folders, tumor_label={"tumor": [TUMOR]})
    case, summary = result["tumors"]["tumor"]["cases"]["a"], result["tumors"]["tumor"]["summary"]
    # 4 x 4 x 4 voxels moved by one: 48 in common of 64; the other tumor has 125. Voxels are 2 mm3.
    assert case["dsc"] == pytest.approx(2 * 48 / (64 + 64 + 125))
    assert [tumor["detected"] for tumor in case["tumors"]] == [True, False]
    assert case["tumors"][1]["diameter_mm"] == pytest.approx((6 * 125 * 2 / np.pi) ** (1 / 3), abs=1e-3)
    assert summary["tumor_sensitivity"]["all"]["value"] == 1 / 2
    assert summary["false_positives_per_scan"]["all"]["value"] == pytest.approx(1 / 3)
    assert summary["patient_specificity"]["value"] == 1 / 2
    assert result["tumors"]["tumor"]["cases"]["c"]["dsc"] is None


def test_predictions_outside_the_organ_are_dropped(folders):
    result = evaluate(*folders, tumor_label={"tumor": [TUMOR]}, organ_label=[ORGAN])
    assert result["tumors"]["tumor"]["summary"]["patient_specificity"]["value"] == 1.0
    assert result["tumors"]["tumor"]["summary"]["tumor_sensitivity"]["all"]["value"] == 1 / 2


def test_organ_masks_may_come_from_their_own_folder(folders, tmp_path):
    masks = tmp_path / "masks"
    for name in "abc":
        write(masks / f"{name}.nii.gz", (5, (24, 24, 4), 3))
    found = evaluate(*folders, tumor_label={"tumor": [TUMOR]}, organ_masks=masks)["tumors"]["tumor"]["summary"]
    assert found["tumor_sensitivity"]["all"]["value"] == 0  # all tumors lie outside this mask
    assert found["patient_specificity"]["value"] == 1 / 2  # and the false alarm inside
    (masks / "b.nii.gz").unlink()
    with pytest.raises(InputError, match="no organ mask for b"):
        evaluate(*folders, tumor_label={"tumor": [TUMOR]}, organ_masks=masks)


def test_several_tumor_labels_are_reported_each(folders):
    result = evaluate(*folders, tumor_label={"tumor": [TUMOR], "cyst": [CYST], "masses": [TUMOR, CYST]})
    sensitivity = {
        name: found["summary"]["tumor_sensitivity"]["all"]["value"] for name, found in result["tumors"].items()
    }
    assert sensitivity == {"tumor": 1 / 2, "cyst": 1.0, "masses": 2 / 3}


def test_command_prints_a_table_and_writes_strict_json(folders, tmp_path, capsys):
    truth, prediction = map(str, folders)
    output = tmp_path / "metrics.json"
    assert main(["evaluate", truth, prediction, "-o", str(output)]) == 0  # labels from dataset.json in PRED
    printed = capsys.readouterr().out
    assert f"labels of {prediction}/dataset.json\n" in printed
    assert "tumor (values 2): 3 cases, 1 with tumors, 2 without" in printed
    assert "cyst (" not in printed and "nan" not in printed.lower()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads(output.read_text(), parse_constant=refuse)
    assert content["tumors"]["tumor"]["summary"]["tumor_sensitivity"]["all"]["count"] == 2
    assert main(["evaluate", truth, prediction, "--tumor-label", "3"]) == 0
    assert "label 3 (values 3): 3 cases, 1 with tumors" in capsys.readouterr().out


IGNORED = 4


@pytest.fixture
def partly_annotated(tmp_path):
    """A tumor of 8 x 8 x 8 voxels, predicted with a margin of 2 along x; the upper margin is not annotated, nor is a
    place where another tumor is predicted."""
    truth, prediction = tmp_path / "labels", tmp_path / "predicted"
    write(truth / "a.nii.gz", (IGNORED, (16, 0, 0), 10), (TUMOR, (8, 2, 2), 8), (IGNORED, (2, 16, 2), 10))
    write(prediction / "a.nii.gz", (TUMOR, (6, 2, 2), 8), (TUMOR, (10, 2, 2), 8), (TUMOR, (4, 18, 4), 4))
    (prediction / "dataset.json").write_text(
        json.dumps({"labels": {"background": 0, "liver": 1, "tumor": TUMOR, "ignore": IGNORED}})
    )
    return truth, prediction


def test_what_nobody_has_annotated_is_left_out_of_every_figure(partly_annotated):
    found = evaluate(*partly_annotated, tumor_label={"tumor": [TUMOR]})["tumors"]["tumor"]
    # The lower margin counts: 10 of 8 slices of 64 voxels are predicted, all 8 of them rightly.
    assert found["cases"]["a"]["dsc"] == pytest.approx(2 * 8 / (8 + 10))
    assert found["cases"]["a"]["false_positives"] == []
    (partly_annotated[1] / "dataset.json").unlink()
    with_all = evaluate(*partly_annotated, tumor_label={"tumor": [TUMOR]})["tumors"]["tumor"]["cases"]["a"]
    assert with_all["dsc"] == pytest.approx(2 * 8 / (8 + 12 + 1)) and len(with_all["false_positives"]) == 1


@pytest.mark.parametrize("options", [[], ["--tumor-label", "2"]])
def test_command_takes_the_ignored_value_from_dataset_json(partly_annotated, tmp_path, capsys, options):
    truth, prediction = partly_annotated
    output = tmp_path / "metrics.json"
    assert main(["evaluate", str(truth), str(prediction), *options, "-o", str(output)]) == 0
    assert (
        f"left out: voxels of value 4 in GT, the label ignore of {prediction}/dataset.json" in capsys.readouterr().out
    )
    content = json.loads(output.read_text())
    assert content["settings"]["ignore_label"] == IGNORED
    (tumor,) = content["tumors"].values()
    assert tumor["cases"]["a"]["false_positives"] == []


def test_the_ignored_value_is_no_tumor(partly_annotated, capsys):
    truth, prediction = map(str, partly_annotated)
    assert main(["evaluate", truth, prediction, "--tumor-label", "4"]) == 2
    assert "label 4 has the value 4, which is the dataset's label ignore" in capsys.readouterr().err


@pytest.mark.parametrize("inside", [False, True])
def test_labels_of_nnunets_own_validation_are_those_of_the_model(folders, tmp_path, monkeypatch, capsys, inside):
    truth, prediction = folders
    validation = tmp_path / "trainer__plans__3d_fullres" / "fold_0" / "validation"
    validation.parent.mkdir(parents=True)
    prediction.rename(validation)
    (validation / "dataset.json").rename(validation.parent.parent / "dataset.json")
    monkeypatch.chdir(validation if inside else tmp_path)
    assert main(["evaluate", str(truth), "." if inside else str(validation)]) == 0
    printed = capsys.readouterr().out
    assert f"labels of {tmp_path / 'trainer__plans__3d_fullres' / 'dataset.json'}\n" in printed
    assert "tumor (values 2): 3 cases" in printed


def test_no_other_folder_above_the_predictions_is_searched(folders, tmp_path, capsys):
    truth, prediction = folders
    (tmp_path / "a").mkdir()
    (prediction / "dataset.json").rename(tmp_path / "dataset.json")
    prediction.rename(tmp_path / "a" / "predicted")
    assert main(["evaluate", str(truth), str(tmp_path / "a" / "predicted")]) == 2
    assert f"{tmp_path / 'a' / 'predicted' / 'dataset.json'}: no such file" in capsys.readouterr().err


def test_a_prediction_without_ground_truth_is_an_error(folders, capsys):
    truth, prediction = folders
    (truth / "b.nii.gz").unlink()
    assert main(["evaluate", str(truth), str(prediction)]) == 2
    assert "no ground truth for b" in capsys.readouterr().err


def test_a_missing_prediction_is_an_error_unless_asked_for(folders):
    truth, prediction = folders
    (prediction / "b.nii.gz").unlink()
    with pytest.raises(InputError, match="no prediction for b"):
        evaluate(truth, prediction, tumor_label={"tumor": [TUMOR]})
    result = evaluate(truth, prediction, tumor_label={"tumor": [TUMOR]}, missing="skip")
    assert list(result["tumors"]["tumor"]["cases"]) == ["a", "c"]


@pytest.mark.parametrize(
    "change", [{"shape": (30, 30, 21)}, {"affine": np.diag([-1.0, -1.0, 2.5, 1.0])}, {"affine": np.eye(4)}]
)
def test_another_grid_is_an_error_that_names_the_file(folders, change):
    write(folders[1] / "b.nii.gz", **change)
    with pytest.raises(InputError, match=r"predicted/b\.nii\.gz"):
        evaluate(*folders, tumor_label={"tumor": [TUMOR]})


def test_folders_without_label_maps_are_errors(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, message in ((tmp_path / "empty", "no label map"), (tmp_path / "nowhere", "expected a folder")):
        with pytest.raises(InputError, match=message):
            evaluate(folders[0], folder, tumor_label={"tumor": [TUMOR]})


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"background": 0, "liver": 1, "cancer": 2}, {"cancer": (2,)}),
        ({"kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}, {"tumor": (2,)}),
        (
            {"Liver Tumour": [4, 5], "kidney lesion": 6, "cystic lesion": 7},
            {"Liver Tumour": (4, 5), "kidney lesion": (6,)},
        ),
    ],
)
def test_tumor_labels_are_found_by_name(labels, expected, tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert tumor_labels(tmp_path / "dataset.json") == expected


@pytest.mark.parametrize("text", ['{"labels": {"liver": 1, "cyst": 2}}', '{"labels": 3}', "{", "{}"])
def test_a_dataset_json_without_tumors_is_an_error_that_names_it(text, tmp_path):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=r"dataset\.json"):
        tumor_labels(tmp_path / "dataset.json")


@pytest.mark.parametrize("name", ["gt_segmentations", "labelsTr"])
@pytest.mark.parametrize("there", [True, False])
def test_a_label_free_validation_is_not_compared_with_scans_without_tumors(
    folders, tmp_path, monkeypatch, capsys, name, there
):
    truth, prediction = folders
    preprocessed = tmp_path / "preprocessed" / "Dataset009_Free"
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed.parent))
    right = preprocessed / "difftumor_validation" / "gt_segmentations"
    wrong = (preprocessed if name == "gt_segmentations" else tmp_path / "raw") / name
    shutil.copytree(truth, wrong)
    if there:
        shutil.copytree(truth, right)
    validation = tmp_path / "Dataset009_Free" / "trainer__plans__3d_fullres" / "fold_0" / "validation"
    shutil.copytree(prediction, validation)
    assert main(["evaluate", str(wrong), str(validation)]) == 0
    (validation / "summary.json").write_text(json.dumps({"difftumor_validation": "Label-free"}))
    capsys.readouterr()
    if there:
        assert main(["evaluate", str(wrong), str(validation)]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith(f"compared with {right}: {validation} is the validation of a label-free training")
        assert main(["evaluate", str(right), str(validation)]) == 0
        assert "compared with" not in capsys.readouterr().out
        return
    assert main(["evaluate", str(wrong), str(validation)]) == 2
    error = capsys.readouterr().err
    assert "label-free" in error and str(wrong) in error
    assert "Give difftumor_validation/gt_segmentations of the preprocessed dataset" in error


def test_missing_predictions_are_refused_left_out_or_count_as_empty(folders):
    truth, prediction = folders
    (prediction / "a.nii.gz").unlink()
    options = {"tumor_label": {"tumor": [TUMOR]}, "processes": 1}
    with pytest.raises(InputError, match=r"no prediction for a; .* skip leaves them out, empty counts them"):
        evaluate(truth, prediction, **options)
    skipped = evaluate(truth, prediction, missing="skip", **options)
    assert list(skipped["tumors"]["tumor"]["cases"]) == ["b", "c"] and skipped["settings"]["counted_as_empty"] == []
    counted = evaluate(truth, prediction, missing="empty", **options)
    assert counted["settings"]["counted_as_empty"] == ["a"]
    assert counted["tumors"]["tumor"]["summary"]["tumor_sensitivity"]["all"] == {
        "value": 0.0,
        "low": None,
        "high": None,
        "count": 2,
    }
    with pytest.raises(InputError, match="`missing` is 'zero', expected one of refuse, skip, empty"):
        evaluate(truth, prediction, missing="zero", **options)


def test_swapped_folders_are_recognized_by_what_nnunet_writes(folders):
    truth, prediction = folders
    (prediction / "plans.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"holds predictions of nnU-Net, and .* does not; give the folder of the ground"
    ):
        evaluate(prediction, truth, tumor_label={"tumor": [TUMOR]})


def test_labels_that_dataset_json_does_not_declare_are_named(folders):
    truth, prediction = folders
    write(prediction / "b.nii.gz", (9, (2, 2, 2), 4))
    with pytest.raises(
        InputError, match=r"predicted/b\.nii\.gz: has the values 9, which dataset\.json does not declare"
    ):
        evaluate(truth, prediction, processes=1)
    evaluate(truth, prediction, tumor_label=TUMOR, processes=1)


def test_every_file_that_is_asked_for_is_written(folders, tmp_path, capsys):
    """Groups, patients and all formats, through the command."""
    truth, prediction = folders
    (tmp_path / "cases.csv").write_text("case,patient,site\na,p1,north\nb,p1,south\n")
    files = [tmp_path / f"result.{suffix}" for suffix in ("json", "csv", "md", "tex")]
    words = [
        "evaluate",
        str(truth),
        str(prediction),
        "--case-table",
        str(tmp_path / "cases.csv"),
        "--match",
        "one-to-one",
    ]
    assert main([*words, "--min-iou", "0.3", *(word for file in files for word in ("-o", str(file)))]) == 0
    printed = capsys.readouterr().out
    assert "lesion-wise F1" in printed and "(not stated)" in printed and "north" in printed
    content = json.loads(files[0].read_text())
    assert content["schema_version"] == 2 and content["settings"]["match"]["rule"] == "one-to-one"
    assert list(content["tumors"]["tumor"]["groups"]["site"]) == ["(not stated)", "north", "south"]
    assert content["tumors"]["tumor"]["cases"]["a"]["patient"] == "p1"
    rows = list(csv.DictReader(files[1].read_text().splitlines()))
    assert [row["case"] for row in rows] == ["a", "b", "c"] and rows[0]["tumors"] == "2"
    assert "| DSC |" in files[2].read_text()
    latex = files[3].read_text()
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") == 1 and "\\%" in latex
    assert main([*words[:3], "-o", str(tmp_path / "result.xlsx")]) == 2
    assert "expected a name that ends in .json, .csv, .md, .tex" in capsys.readouterr().err


def test_one_case_has_no_interval_and_the_table_says_so(folders, capsys):
    truth, prediction = folders
    for name in "bc":
        (truth / f"{name}.nii.gz").unlink()
        (prediction / f"{name}.nii.gz").unlink()
    assert main(["evaluate", str(truth), str(prediction)]) == 0
    assert "One case has no interval: there is nothing to resample." in capsys.readouterr().out


def test_commands_compare_and_cross_validate_what_evaluate_wrote(folders, tmp_path, capsys):
    truth, prediction = folders
    for name in ("first", "second"):
        assert main(["evaluate", str(truth), str(prediction), "-o", str(tmp_path / f"{name}.json")]) == 0
    capsys.readouterr()
    out = tmp_path / "compared.json"
    assert main(["compare", str(tmp_path / "first.json"), str(tmp_path / "second.json"), "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "tumor: second against first" in printed and "Nothing may be concluded" in printed
    assert json.loads(out.read_text())["reference"] == "first"
    fold = tmp_path / "model" / "fold_0" / "validation"
    shutil.copytree(prediction, fold)
    (fold / "summary.json").write_text("{}")
    assert main(["crossval", str(tmp_path / "model"), "--ground-truth", str(truth), "--tumor-label", "2"]) == 0
    assert "mean +- sd" in capsys.readouterr().out


def test_label_maps_may_be_metaimage_and_nrrd(folders, tmp_path):
    expected = evaluate(*folders, tumor_label={"tumor": [TUMOR]})["tumors"]
    for folder, suffix in zip(folders, (".mha", ".nrrd"), strict=True):
        for path in folder.glob("[ab].nii.gz"):
            SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(folder / path.name.replace(".nii.gz", suffix)))
            path.unlink()
    assert evaluate(*folders, tumor_label={"tumor": [TUMOR]})["tumors"] == expected
    (folders[0] / "a.nrrd").write_bytes((folders[1] / "a.nrrd").read_bytes())
    with pytest.raises(InputError, match=r"a\.mha and a\.nrrd are the same case"):
        evaluate(*folders, tumor_label={"tumor": [TUMOR]})
