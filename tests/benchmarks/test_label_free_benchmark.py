"""The label-free benchmark fits its trainings into the minutes that it is given, and reads what runs have found."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from label_free import PACE, epoch_s, fitting_length
from label_free_result import figures, shares, table


@pytest.mark.parametrize(
    ("spare_s", "iteration_s", "expected"),
    [
        (100.0, 0.25, {"epochs": 5, "iterations_per_epoch": 80}),  # 400 iterations
        (30.0, 0.25, {"epochs": 2, "iterations_per_epoch": 60}),  # 120: shorter epochs, since there are two
        (9.0, 0.25, None),
        (-5.0, 0.25, None),
    ],
)
def test_trainings_are_as_long_as_fits(spare_s, iteration_s, expected):
    length = fitting_length(spare_s, iteration_s, most_per_epoch=80)
    assert length == expected
    if length:
        assert length["epochs"] * length["iterations_per_epoch"] * iteration_s <= spare_s
        assert length["iterations_per_epoch"] >= PACE["iterations_per_epoch"]


def test_the_last_epoch_of_a_log_counts(tmp_path):
    log = tmp_path / "training_log.txt"
    log.write_text("2026: Epoch time: 90.5 s\n2026: Epoch time: 12.25 s\n")
    assert epoch_s(log) == 12.25


def test_figures_of_a_run_and_intervals_over_tumors(tmp_path):
    share = {
        "all": {"value": 0.5, "count": 8},
        "early": {"value": 0.4, "count": 5},
        "tiny": {"value": None, "count": 0},
    }
    summary = {
        "dsc": {"value": 0.25},
        "nsd": {"value": 0.125},
        "tumor_sensitivity": share,
        "false_positives_per_scan": {"all": {"value": 7.0}},
    }
    (tmp_path / "evaluation.json").write_text(json.dumps({"tumors": {"liver_tumor": {"summary": summary}}}))
    found = figures(tmp_path, "liver_tumor") | {"seconds_of_training": 90.0}
    assert found["detected"] == {"all": [4, 8], "early": [2, 5]} and found["false_positives"] == {"all": 7.0}
    runs = {"realistic_seed_0_fold_all": found, "realistic_seed_1_fold_all": found}
    # Clopper and Pearson, of 4 of 8 and 2 of 5.
    assert shares(runs, "realistic") == {"all": [0.157, 0.843], "early": [0.053, 0.853]}
    row = "realistic 0 0.250 0.125 4 of 8 2 of 5 7 2"
    assert " ".join(table(runs).splitlines()[1].split()) == row
