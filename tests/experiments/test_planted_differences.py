"""Collecting finds the arm that is better by a known amount, and not the one that is as good as the baseline."""

import json
from pathlib import Path

import numpy as np
import pytest
from evaluation_results import scan, write_result
from experiment_folders import plan_record

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.experiments.collecting.collect import collect
from nnunet_difftumor.experiments.collecting.tables import text
from nnunet_difftumor.experiments.planning.checks import checked_plan
from nnunet_difftumor.experiments.run_folder import note
from nnunet_difftumor.experiments.runs import Run, runs_of

PATIENTS, TUMORS = 40, 3
BETTER = 0.3
CHANCE = {"without": 0.4, "better": 0.4 + BETTER, "equal": 0.4}
TRAINER = {"trainer": "nnUNetTrainerDiffTumor"}


def runs_with(folder: Path, *, seeds: int = 3, patients: int = PATIENTS, **changes) -> list[Run]:
    """Runs whose evaluations are drawn: every tumor is found with the chance of its arm, alike in every seed but for
    the tumors that a training happens to miss."""
    record = plan_record(seeds=list(range(seeds)), arms=dict.fromkeys(CHANCE, TRAINER), **changes)
    runs = runs_of(checked_plan(record, where="plan.yaml", folder=folder), folder, folder)
    for run in runs:
        run.folder.mkdir(parents=True)
        write_result(run.evaluation, drawn_cases(run.arm, run.seed, range(patients)))
    return runs


def drawn_cases(arm: str, seed: int, patients: range) -> dict:
    cases = {}
    for patient in patients:
        rng = np.random.default_rng((list(CHANCE).index(arm), seed, patient))
        diameters = np.random.default_rng(patient).uniform(6, 30, TUMORS)
        found = rng.random(TUMORS) < CHANCE[arm]
        false = [8.0] * int(rng.poisson(1.0))
        tumors = [(float(d), bool(hit)) for d, hit in zip(diameters, found, strict=True)]
        cases[f"case_{patient:03d}"] = scan(tumors, false=false, dsc=0.2 + 0.5 * float(found.mean()))
    return cases


def test_the_better_arm_is_found_and_the_equal_one_is_not(tmp_path):
    """With five seeds; with three, one training in which luck was bad can hide it."""
    result = collect(runs_with(tmp_path, seeds=5), tmp_path)
    found = result["tumors"]["tumor"]
    assert (found["cases"], found["patients"], found["seeds"]) == (PATIENTS, PATIENTS, [0, 1, 2, 3, 4])
    better, equal = (found["differences"][arm] for arm in ("better", "equal"))
    detected = better["figures"]["detected"]
    assert detected["difference"]["low"] < BETTER < detected["difference"]["high"]
    assert detected["difference"]["low"] > 0 and detected["p_holm"] < 0.01
    assert "better detects more early tumors" in better["conclusion"] and "5 seeds" in better["conclusion"]
    assert "No difference between equal and without was shown" in equal["conclusion"]
    assert all(figure["p_holm"] > 0.05 for figure in equal["figures"].values() if figure["p"] is not None)
    assert all(figure["p"] is None for name, figure in better["figures"].items() if name.endswith(("tiny", "medium")))
    assert json.loads((tmp_path / "result.json").read_text()) == result
    page = (tmp_path / "result.md").read_text()
    assert better["conclusion"] in page and better["conclusion"] in text(result) and "| tiny tumors detected |" in page


def test_five_folds_are_pooled_as_if_they_were_one_test_set(tmp_path):
    """Every fold has validated other patients; figures, patients and seeds are those of one fold with all of them."""
    pooled, whole = tmp_path / "pooled", tmp_path / "whole"
    runs, single = runs_with(pooled, test=None, folds=[0, 1, 2, 3, 4]), runs_with(whole)
    for run in single:
        cases = {
            name: case
            for fold in range(5)
            for name, case in drawn_cases(run.arm, run.seed, range(8 * fold, 8 * fold + 8)).items()
        }
        write_result(run.evaluation, cases)
    for run in runs:
        first = 8 * int(run.fold)
        write_result(run.evaluation, drawn_cases(run.arm, run.seed, range(first, first + 8)))
    found, expected = (collect(some, folder)["tumors"] for some, folder in ((runs, pooled), (single, whole)))
    assert found == expected and found["tumor"]["patients"] == PATIENTS


def test_folds_that_validated_the_same_case_are_refused(tmp_path):
    runs = runs_with(tmp_path, test=None, folds=[0, 1])
    with pytest.raises(InputError, match="case_000 is in the validation of fold 0 and of fold 1"):
        collect(runs, tmp_path)


def test_figures_of_an_arm_are_means_over_its_seeds(tmp_path):
    runs = runs_with(tmp_path)
    found = collect(runs, tmp_path)["tumors"]["tumor"]["arms"]["better"]["detected"]
    of_seeds = []
    for run in runs:
        if run.arm == "better":
            cases = json.loads(run.evaluation.read_text())["tumors"]["tumor"]["cases"].values()
            of_seeds.append(np.mean([t["detected"] for case in cases for t in case["tumors"]]))
    assert list(found["seeds"].values()) == pytest.approx(of_seeds)
    assert found["value"] == pytest.approx(np.mean(of_seeds))
    assert (found["least"], found["greatest"]) == pytest.approx((min(of_seeds), max(of_seeds)))
    assert found["low"] < found["value"] < found["high"] and found["count"] == PATIENTS * TUMORS


@pytest.mark.parametrize(
    ("seeds", "patients", "said"), [(1, PATIENTS, "One seed: there is no interval"), (2, 1, "One patient: there is no")]
)
def test_one_seed_or_one_patient_has_no_interval_and_says_so(tmp_path, seeds, patients, said):
    result = collect(runs_with(tmp_path, seeds=seeds, patients=patients), tmp_path)
    found = result["tumors"]["tumor"]["differences"]["better"]
    for figure in found["figures"].values():
        assert figure["difference"]["low"] is None and figure["p"] is None
    assert said in text(result) and said in (tmp_path / "result.md").read_text()
    assert found["conclusion"].startswith("Nothing may be concluded about better against without")


def test_published_figures_stand_beside_ours(tmp_path):
    published = [
        {"arm": "better", "figure": "detected", "value": 0.9, "source": "A paper, Table 1"},
        {"arm": "better", "figure": "detected", "value": 0.1, "source": "Another", "tumor": "liver_tumor"},
    ]
    result = collect(runs_with(tmp_path, published=published), tmp_path)
    (row,) = result["tumors"]["tumor"]["published"]
    ours = result["tumors"]["tumor"]["arms"]["better"]["detected"]["value"]
    assert row["ours"] == ours and row["difference"] == pytest.approx(ours - 0.9)
    assert "A paper, Table 1" in text(result) and f"{ours - 0.9:+.3f}" in (tmp_path / "result.md").read_text()


def test_arms_evaluated_on_other_cases_are_refused(tmp_path):
    runs = runs_with(tmp_path)
    write_result(runs[-1].evaluation, {"case_000": scan([(9.0, True)])})
    with pytest.raises(InputError, match="in one only; evaluate the same cases"):
        collect(runs, tmp_path)


def test_arms_that_start_from_other_first_weights_are_named(tmp_path):
    runs = runs_with(tmp_path)
    for run in runs:
        run.model.mkdir(parents=True)
        run.checkpoint.touch()
        note(run, first_weights_sha256=f"{run.seed} {'other' if run.arm == 'better' else ''}")
    (said,) = collect(runs, tmp_path)["notes"]
    assert said.startswith("better did not start from the first weights of without")


def test_a_finished_run_without_its_checkpoint_is_named(tmp_path):
    runs = runs_with(tmp_path)
    for run in runs[1:]:
        run.model.mkdir(parents=True)
        run.checkpoint.touch()
    (note,) = collect(runs, tmp_path)["notes"]
    assert note.startswith("without_seed_0_fold_0: its checkpoint is gone") and "Delete" in note
