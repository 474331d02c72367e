"""Folds of a model folder as nnU-Net writes it: figures by fold, over folds and of all cases."""

import json
import statistics

import numpy as np
import pytest
import SimpleITK

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.crossval import crossval, table

FOLDER = "nnUNetTrainer__nnUNetPlans__3d_fullres"


def cube(edge: int, start: int = 4) -> np.ndarray:
    labels = np.zeros((16, 20, 20), np.uint8)
    labels[start : start + edge, start : start + edge, start : start + edge] = 2
    return labels


def write(path, labels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(labels), str(path))


@pytest.fixture
def model(tmp_path, monkeypatch):
    """Three folds of two cases: a tumor that is predicted to a part of its height, and a healthy scan."""
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    truth = tmp_path / "preprocessed" / "Dataset007_Some" / "gt_segmentations"
    model = tmp_path / "results" / "Dataset007_Some" / FOLDER
    for fold, height in enumerate((8, 6, 4)):
        validation = model / f"fold_{fold}" / "validation"
        predicted = cube(8)
        predicted[4 + height :] = 0
        write(truth / f"ill_{fold}.nii.gz", cube(8))
        write(validation / f"ill_{fold}.nii.gz", predicted)
        write(truth / f"well_{fold}.nii.gz", cube(0))
        write(validation / f"well_{fold}.nii.gz", cube(2 if fold == 2 else 0))
        (validation / "summary.json").write_text("{}")
    (model / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1, "tumor": 2}}))
    return model


def test_mean_and_spread_over_folds_and_all_cases(model, tmp_path):
    content = crossval(model, output=tmp_path / "crossval.json", processes=1, report=lambda line: None)
    assert json.loads((tmp_path / "crossval.json").read_text()) == content
    tumor = content["tumors"]["tumor"]
    dice = [1.0, 2 * 6 / 14, 2 * 4 / 12]
    assert [fold["dsc"]["value"] for fold in tumor["folds"].values()] == pytest.approx(dice)
    assert tumor["mean"]["DSC"] == pytest.approx(statistics.fmean(dice))
    assert tumor["sd"]["DSC"] == pytest.approx(statistics.stdev(dice))
    assert tumor["cases"] == 6 and tumor["pooled"]["dsc"]["count"] == 3
    assert tumor["pooled"]["patient_specificity"]["value"] == pytest.approx(2 / 3)
    printed = table(content)
    assert "fold 2" in printed and f"{statistics.fmean(dice):.3f}+-{statistics.stdev(dice):.3f}" in printed
    one = crossval(model, folds=[1], processes=1, report=lambda line: None)["tumors"]["tumor"]
    assert list(one["folds"]) == ["1"] and one["sd"]["DSC"] is None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("unfinished", r"fold_1/validation: has no summary.json, so that the validation of fold 1 is not finished"),
        ("other splits", r"folds 0 and 1 both predicted ill_0"),
        ("no truth", r"gt_segmentations: not found; name the folder of the true label maps with `ground_truth`"),
    ],
)
def test_folds_that_do_not_belong_together_or_are_unfinished(model, tmp_path, damage, said):
    if damage == "unfinished":
        (model / "fold_1" / "validation" / "summary.json").unlink()
    elif damage == "other splits":
        write(model / "fold_1" / "validation" / "ill_0.nii.gz", cube(8))
    else:
        truth = tmp_path / "preprocessed" / "Dataset007_Some" / "gt_segmentations"
        truth.rename(truth.with_name("elsewhere"))
    with pytest.raises(InputError, match=said):
        crossval(model, processes=1, report=lambda line: None)


def test_folders_without_folds_and_folds_that_there_are_not(model):
    with pytest.raises(InputError, match="holds no fold_0"):
        crossval(model.parent, processes=1)
    with pytest.raises(InputError, match=r"`folds`: 7 not found .* there: 0, 1, 2"):
        crossval(model, folds=[7], processes=1)
