"""`difftumor evaluate --challenge` on folders of NIfTI files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from boxes_of_labels import label_boxes, write_labels

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.challenges import lits_lesions
from nnunet_difftumor.evaluation.evaluate import evaluate

SHAPE, SPACING_MM = (30, 24, 16), (0.8, 0.8, 2.5)  # x, y, z
ORGAN, LESION = (1, (2, 2, 2), (26, 20, 12)), (2, (6, 6, 4), (6, 6, 4))


@pytest.fixture
def folders(tmp_path):
    """A lesion that is predicted one voxel beside, and a healthy case."""
    truth, prediction = tmp_path / "labels", tmp_path / "predicted"
    write_labels(truth / "a.nii.gz", label_boxes(SHAPE, ORGAN, LESION), SPACING_MM)
    write_labels(prediction / "a.nii.gz", label_boxes(SHAPE, ORGAN, (2, (7, 6, 4), (6, 6, 4))), SPACING_MM)
    for folder in (truth, prediction):
        write_labels(folder / "b.nii.gz", label_boxes(SHAPE, ORGAN), SPACING_MM)
    (prediction / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": [1, 2], "tumor": 2}}))
    return truth, prediction


def test_the_installed_command_adds_a_table_and_the_json_of_the_challenge(folders, tmp_path):
    output = tmp_path / "result.json"
    command = [Path(sys.executable).with_name("difftumor"), "evaluate", *folders, "--challenge", "lits", "-o", output]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    usual, of_challenge = done.stdout.split("\n\nLiTS, 2 cases, as defined by ")
    assert "tumor (values 2): 2 cases, 1 with tumors" in usual
    lines = {
        line.split()[0]: line.split()[1] for line in of_challenge.splitlines() if line.startswith(("lesion", "liver"))
    }
    assert lines["lesion_dice_per_case"] == f"{(5 / 6 + 1) / 2:.3f}" == "0.917"
    # The program's number for this lesion, as in test_lits_scores.py.
    assert (lines["lesion_recall"], lines["lesion_assd_mm"], lines["liver_voe"]) == ("1.000", "0.229", "0.000")

    content = json.loads(output.read_text())["challenge"]
    assert content["name"] == "lits" and content["labels"] == {"liver": 1, "tumor": 2}
    assert list(content["overall"]) == list(content["definition"])
    assert content["cases"]["a"]["lesion"]["detected"] == 1 and content["cases"]["b"]["lesion"]["dice"] == 1
    assert content["overall"]["lesion_assd_mm"] == pytest.approx(0.228571, abs=1e-6)


def test_without_a_challenge_nothing_changes(folders, capsys):
    assert "challenge" not in evaluate(*folders, processes=1)
    assert main(["evaluate", "-np", "1", *map(str, folders)]) == 0
    assert "as defined by" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "score"),
    [
        (["--challenge", "kits23"], "tumor_surface_dice"),
        (["--challenge", "msd-liver", "--challenge-tolerance-mm", "3"], "cancer_nsd"),
    ],
)
def test_other_challenges_at_the_command(folders, capsys, options, score):
    assert main(["evaluate", "-np", "1", *map(str, folders), *options]) == 0
    assert f"\n{score} " in capsys.readouterr().out


def test_scores_are_of_the_label_maps_as_they_are(folders):
    # Organ and matching are for the usual figures alone.
    plain, other = (
        evaluate(*folders, challenge="lits", processes=1, **options)["challenge"]
        for options in ({}, {"match": "iou", "min_iou": 0.9, "nsd_tolerance_mm": 9.0})
    )
    assert plain == other


def test_missing_predictions_count_as_empty_ones_if_asked_for(folders):
    (folders[1] / "b.nii.gz").unlink()
    result = evaluate(*folders, challenge="kits23", missing="empty", processes=1)["challenge"]
    assert result["cases"]["b"]["kidney_and_mass"]["dice"] == 0 and result["cases"]["b"]["tumor"]["dice"] == 1


@pytest.mark.parametrize("which", [0, 1])
def test_other_labels_are_refused_with_file_and_value(folders, capsys, which):
    write_labels(folders[which] / "b.nii.gz", label_boxes(SHAPE, ORGAN, (5, (4, 4, 4), (2, 2, 2))), SPACING_MM)
    assert main(["evaluate", "-np", "1", *map(str, folders), "--tumor-label", "2", "--challenge", "lits"]) == 2
    error = capsys.readouterr().err
    assert f"{folders[which] / 'b.nii.gz'}: has the values 5, but LiTS has 1 (liver), 2 (tumor)" in error
    assert "without --challenge" in error


def test_a_dataset_with_its_tumors_elsewhere_is_refused(folders):
    (folders[1] / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "tumor": 1, "liver": 2}}))
    with pytest.raises(InputError, match=r"LiTS has its tumor at 2, but dataset.json has tumor \[1\]"):
        evaluate(*folders, challenge="lits", processes=1)


def test_lits_needs_a_liver_in_every_case(folders):
    write_labels(folders[0] / "b.nii.gz", label_boxes(SHAPE), SPACING_MM)
    with pytest.raises(InputError, match=r"b.nii.gz: has no liver or tumor, which LiTS needs in every case"):
        evaluate(*folders, challenge="lits", processes=1)


def test_noise_is_refused_before_a_table_of_all_pairs_is_made(folders, monkeypatch):
    monkeypatch.setattr(lits_lesions, "_MOST_PAIRS", 0)
    with pytest.raises(InputError, match=r"a.nii.gz: has 1 true and 1 predicted lesions, expected at most 0 pairs"):
        evaluate(*folders, challenge="lits", processes=1)


def test_one_lesion_a_volume(folders, capsys):
    for folder in folders:
        write_labels(folder / "a.nii.gz", label_boxes(SHAPE, (1, (6, 6, 4), (6, 6, 4))), SPACING_MM)
        (folder / "b.nii.gz").unlink()
    assert main(["evaluate", "-np", "1", *map(str, folders), "--tumor-label", "1", "--challenge", "uls23"]) == 0
    printed = capsys.readouterr().out
    assert f"score_without_consistency{'0.900':>11}" in printed
    assert "The challenge's score has 0.1 times the consistency more" in printed
