"""Probabilities beside predictions: nnU-Net's channels, a command with --npz, and files that are something else."""

import json

import numpy as np
import pytest
import SimpleITK
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.evaluate import evaluate
from nnunet_difftumor.evaluation.probabilities import ProbabilityChannels

CLASSES = {"background": 0, "liver": 1, "tumor": 2}
REGIONS = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}
SHAPE = (10, 24, 28)


def write_dataset(folder, labels, *, more=None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, **(more or {})}))


def ball(centre, radius) -> np.ndarray:
    grid = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    return sum((a - c) ** 2 for a, c in zip(grid, centre, strict=True)) <= radius**2


def write_map(path, labels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(labels.astype(np.uint8)), str(path))


def write_case(truth_folder, folder, name, *, true, tumor: np.ndarray) -> np.ndarray:
    """A case whose tumor has these probabilities, as a network of three classes gives them; returns them."""
    rest = 1 - tumor
    probabilities = np.stack((rest * 0.3, rest * 0.7, tumor)).astype(np.float32)
    write_map(truth_folder / f"{name}.nii.gz", np.where(true, 2, 1))
    write_map(folder / f"{name}.nii.gz", probabilities.argmax(0))
    np.savez_compressed(folder / f"{name}.npz", probabilities=probabilities)
    return probabilities


@pytest.fixture
def folders(tmp_path):
    truth, folder = tmp_path / "labels", tmp_path / "predicted"
    write_dataset(folder, CLASSES)
    first, second = ball((5, 6, 6), 3), ball((5, 17, 20), 3)
    write_case(truth, folder, "a", true=first, tumor=np.where(first, 0.9, np.where(second, 0.3, 0.0)))
    write_case(truth, folder, "b", true=second, tumor=np.where(second, 0.35, 0.0))
    write_case(truth, folder, "c", true=np.zeros(SHAPE, bool), tumor=np.where(first, 0.6, 0.0))
    return truth, folder


@pytest.mark.parametrize("labels", [CLASSES, REGIONS, REGIONS | {"ignore": 4}, CLASSES | {"ignore": 3}])
def test_channels_are_those_of_nnunets_label_manager(tmp_path, labels):
    write_dataset(tmp_path, labels)
    channels = ProbabilityChannels(tmp_path / "dataset.json")
    manager = LabelManager(labels, [1, 3, 2] if "kidney" in labels else None)
    assert channels.count == manager.num_segmentation_heads
    wanted = channels.of([2], tumor="tumor")
    if manager.has_regions:
        assert [manager.foreground_regions[i] for i in wanted] == [2]
        assert channels.of([3, 2], tumor="masses") == [manager.foreground_regions.index((2, 3))]
        with pytest.raises(InputError, match="no channel for cyst"):
            channels.of([3], tumor="cyst")
    else:
        assert wanted == [2] and manager.all_labels[2] == 2


def test_curves_come_with_probabilities_and_findings_below_a_half_count_in_them(folders):
    found = evaluate(*folders, probabilities=True, report=lambda line: None)["tumors"]["tumor"]
    summary = found["summary"]
    # The label map misses the tumor of b, whose probability is the highest of the tumor's class but not of all.
    assert summary["tumor_sensitivity"]["all"]["value"] == 1 / 2
    assert summary["average_precision"]["value"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert summary["patient_auc"]["value"] == 1 / 2  # .9 and .35 against .6
    assert [case["score"] for case in found["cases"].values()] == [0.9, 0.35, 0.6]
    assert found["cases"]["b"]["tumors"][0]["confidence"] == 0.35


def test_results_do_not_depend_on_the_number_of_processes(folders, tmp_path):
    # Files, as a process that is spawned reads them.
    results = [evaluate(*folders, probabilities=True, processes=count, report=lambda line: None) for count in (1, 2)]
    assert results[0] == results[1]


def test_predictions_outside_the_organ_have_no_probability(folders, tmp_path):
    truth, folder = folders
    organs = tmp_path / "organs"
    for name in "abc":
        write_map(organs / f"{name}.nii.gz", ball((5, 17, 20), 5).astype(np.uint8))
    found = evaluate(truth, folder, probabilities=True, organ_masks=organs, report=lambda line: None)
    cases = found["tumors"]["tumor"]["cases"]
    assert [case["score"] for case in cases.values()] == [0.3, 0.35, 0.0]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("missing", r"b\.npz: no such file; predict with `--save_probabilities`"),
        ("cut", r"b\.npz: not the probabilities of nnU-Net"),
        ("transposed", r"b\.npz: holds float32 of shape \(3, 28, 24, 10\), expected .* shape \(3, 10, 24, 28\)"),
        ("two channels", r"b\.npz: holds float32 of shape \(2, 10, 24, 28\)"),
        ("objects", r"b\.npz: holds object"),
        ("logits", r"b\.npz: has values from .* to 8, expected probabilities from 0 to 1"),
        ("of another case", r"b\.npz: only 0% of the predicted tumor has a probability above 0.2"),
        ("nothing", r"b\.npz: not the probabilities of nnU-Net \(KeyError"),
    ],
)
def test_files_that_are_no_probabilities_of_the_case_are_named(folders, damage, said):
    truth, folder = folders
    path = folder / "b.npz"
    probabilities = write_case(truth, folder, "b", true=ball((5, 17, 20), 3), tumor=ball((5, 17, 20), 3) * 0.8)
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-300])
    elif damage == "nothing":
        np.savez(path, softmax=probabilities)
    else:
        np.savez_compressed(
            path,
            probabilities={
                "transposed": probabilities.transpose(0, 3, 2, 1),
                "two channels": probabilities[:2],
                "objects": np.full((3, *SHAPE), None),
                "logits": probabilities * 10,
                "of another case": probabilities[[2, 1, 0]],
            }[damage],
        )
    with pytest.raises(InputError, match=said):
        evaluate(truth, folder, probabilities=True, processes=1, report=lambda line: None)
