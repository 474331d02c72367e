"""Parts of `difftumor demo`: the journal, commands, scores, plans."""

import sys

import numpy as np
import pytest

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.ct import scan_from_array, write_ct, write_labels
from nnunet_difftumor.demonstration.commands import CommandFailedError, Commands, _shown, nnunet_variables, shell_script
from nnunet_difftumor.demonstration.journal import Journal
from nnunet_difftumor.demonstration.pictures import draw_predictions
from nnunet_difftumor.demonstration.scores import dice_by_label, not_raised, table
from nnunet_difftumor.demonstration.small_plan import coarse_spacing_mm
from nnunet_difftumor.demonstration.steps import _TRAIN_LINES
from nnunet_difftumor.errors import InputError


def metrics(dice: float, n_ref: int) -> dict:
    return {"Dice": dice, "n_ref": n_ref}


def test_dice_counts_only_cases_and_labels_that_are_in_the_truth():
    summary = {
        "metric_per_case": [
            {"metrics": {"1": metrics(0.9, 10), "2": metrics(0.5, 3), "3": metrics(0.0, 0)}},
            {"metrics": {"1": metrics(0.7, 10), "2": metrics(float("nan"), 0), "3": metrics(float("nan"), 0)}},
        ]
    }
    dice = dice_by_label(summary, {"liver": 1, "tumor": 2, "other_tumor": 3})
    assert dice == pytest.approx({"liver": 0.8, "tumor": 0.5, "foreground": 0.65})


def scores(*, foreground: tuple[float, float], **tumors: tuple[float, float]) -> dict:
    """Dice before and after training; "cyst" stands for a tumor label that no test case has."""
    networks = ("untrained", "trained")
    return {
        "dice": {
            network: {"foreground": foreground[i]} | {name: dice[i] for name, dice in tumors.items()}
            for i, network in enumerate(networks)
        },
        "tumors": {network: {name: {} for name in (*tumors, "cyst")} for network in networks},
    }


@pytest.mark.parametrize(
    ("measured", "names"),
    [
        (scores(foreground=(0.1, 0.6), tumor=(0.0, 0.3)), []),
        (scores(foreground=(0.1, 0.6), tumor=(0.001, 0.0)), ["tumor"]),
        (scores(foreground=(0.1, 0.6), tumor=(0.0, 0.0)), ["tumor"]),
        (scores(foreground=(0.1, 0.6), tumor=(0.0, 0.3), other_tumor=(0.2, 0.1)), ["other_tumor"]),
        (scores(foreground=(0.4, 0.3), tumor=(0.0, 0.3)), ["foreground"]),
        (scores(foreground=(0.1, 0.6)), []),
    ],
)
def test_training_must_raise_the_dice_of_the_foreground_and_of_every_tumor_in_the_test_cases(measured, names):
    assert list(not_raised(measured)) == names


def test_demo_fails_if_the_organ_was_learned_and_the_tumor_was_not(tmp_path, monkeypatch, capsys):
    measured = scores(foreground=(0.043, 0.468), liver_tumor=(0.001, 0.0))
    monkeypatch.setattr("nnunet_difftumor.demonstration.demo.demo", lambda *args, **kwargs: {"scores": measured})
    assert main(["demo", "--out", str(tmp_path / "out")]) == 1
    assert "FAILED, training did not raise the Dice of liver_tumor (0.001 to 0.000)" in capsys.readouterr().out


@pytest.mark.parametrize("caution", [[], ["TRAINED ON THE CASES"]])
def test_table_says_whether_the_test_cases_were_trained_on(caution):
    dice = {
        network: {"liver": value, "foreground": value} for network, value in (("untrained", 0.125), ("trained", 0.75))
    }
    tumors = {
        network: {
            "tumor": {
                "summary": {
                    "tumor_sensitivity": {"all": {"value": found / 4, "count": 4}},
                    "false_positives_per_scan": {"all": {"value": wrong, "count": 1}},
                }
            }
        }
        for network, found, wrong in (("untrained", 4, 6.0), ("trained", 3, 128.5))
    }
    text = table(dice, tumors, cases=["a"], caution=caution)
    assert ("TRAINED ON" in text) == bool(caution)
    assert ("held-out" in text) != bool(caution)
    assert "0.125     0.750" in text
    # Both networks' figures, also where training made them worse.
    assert "    4 of 4    3 of 4" in text and "       6.0     128.5" in text


def test_spacing_is_3_mm_unless_most_scans_are_coarser():
    cases = {
        name: {"spacing_mm": spacing} for name, spacing in (("a", (5, 0.7, 0.8)), ("b", (5, 3, 3)), ("c", (1, 4, 1)))
    }
    assert coarse_spacing_mm(cases) == (5, 3, 3)


def journal(folder, seed=0, overwrite=False) -> Journal:
    return Journal(folder, {"seed": seed}, overwrite=overwrite)


def test_a_finished_step_is_not_done_again_but_an_interrupted_one_is(tmp_path):
    done = []

    def work(name, error=None):
        done.append(name)
        if error:
            raise error
        return [["command", name]]

    first = journal(tmp_path / "out")
    first.step(1, 2, "a", title="A", work=lambda: work("a"))
    with pytest.raises(KeyboardInterrupt):
        first.step(2, 2, "b", title="B", work=lambda: work("b", KeyboardInterrupt()))
    second = journal(tmp_path / "out")
    second.step(1, 2, "a", title="A", work=lambda: work("a"))
    second.step(2, 2, "b", title="B", work=lambda: work("b"))
    assert done == ["a", "b", "b"]
    assert second.state["steps"]["a"]["commands"] == [["command", "a"]]


def test_a_folder_keeps_the_work_of_one_set_of_settings(tmp_path):
    journal(tmp_path / "out", seed=0)
    with pytest.raises(InputError, match=r"other settings \(seed\).*`overwrite`"):
        journal(tmp_path / "out", seed=1)
    journal(tmp_path / "out", seed=1, overwrite=True)
    assert journal(tmp_path / "out", seed=1).state["steps"] == {}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_other_files_is_never_touched(tmp_path, overwrite):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="not of a demo"):
        journal(tmp_path, overwrite=overwrite)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def commands(folder) -> Commands:
    return Commands(nnunet_variables(folder), folder / "logs")


def test_commands_get_nnunets_variables_and_their_whole_output_is_logged(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{sys.exec_prefix}/bin:/usr/bin:/bin")
    script = tmp_path / "say"
    script.write_text('#!/bin/sh\necho "raw: $nnUNet_raw"\necho "Epoch 1 of $1"\n')
    script.chmod(0o755)
    runner = commands(tmp_path)
    runner.run("say", 2, show=r"^(Epoch \d+)")
    printed = capfd.readouterr().out
    assert "$ say 2" in printed and "Epoch 1\n" in printed and "raw:" not in printed
    assert (tmp_path / "logs" / "01_say.log").read_text() == f"raw: {tmp_path}/nnUNet_raw\nEpoch 1 of 2\n"
    assert runner.done == [["say", "2"]]


def test_a_log_can_be_followed_while_its_command_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    script = tmp_path / "follow"
    script.write_text(
        '#!/bin/sh\necho begun\nfor i in $(seq 200); do grep -q begun "$1" && exit 0; sleep 0.05; done\nexit 1\n'
    )
    script.chmod(0o755)
    commands(tmp_path).run("follow", tmp_path / "logs" / "01_follow.log")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("2026-01-01 10:00:00.1: Epoch 3", "Epoch 3"),
        ("2026-01-01 10:00:00.1: Pseudo dice [np.float32(0.5), np.float32(nan)]", "Pseudo dice [0.5, nan]"),
        (
            "2026-01-01 10:00:00.1: Synthetic share: 0.5 achieved, 0.4 asked (...)",
            "Synthetic share: 0.5 achieved, 0.4 asked",
        ),
        ("2026-01-01 10:00:00.1: Current learning rate: 0.01", ""),
    ],
)
def test_of_training_only_its_progress_is_shown(line, shown):
    assert _shown(line, _TRAIN_LINES) == shown


def test_a_failing_command_says_what_it_printed(tmp_path):
    runner = commands(tmp_path)
    with pytest.raises(CommandFailedError, match="expected a folder of label maps") as caught:
        runner.run("difftumor", "evaluate", tmp_path / "missing", tmp_path, "--tumor-label", 1)
    assert caught.value.status == 2
    assert runner.done == []


def test_shell_script_quotes_what_needs_it():
    script = shell_script({"A": "x y"}, [["difftumor", "demo", "--out", "my folder"]])
    assert script.splitlines() == ["set -e", "export A='x y'", "difftumor demo --out 'my folder'"]


def test_prediction_picture_shows_the_contours(tmp_path):
    import matplotlib.pyplot as plt

    hu = np.full((5, 24, 32), -100.0, np.float32)
    labels = np.zeros(hu.shape, np.uint8)
    labels[1:4, 5:20, 5:25] = 1
    labels[2, 9:15, 9:15] = 2
    scan = scan_from_array(hu, affine=np.diag([-2.0, -2.0, 3.0, 1.0]))
    write_ct(tmp_path / "ct.nii.gz", hu, scan, description=None)
    write_labels(tmp_path / "truth.nii.gz", labels, scan)
    write_labels(tmp_path / "none.nii.gz", labels * 0, scan)
    red = {}
    for name in ("truth", "none"):
        draw_predictions(
            tmp_path / f"{name}.png",
            [("case", tmp_path / "ct.nii.gz", {name: tmp_path / f"{name}.nii.gz"})],
            labels={"liver": 1, "tumor": 2},
            tumor_labels=[2],
        )
        picture = plt.imread(tmp_path / f"{name}.png")[34:]  # without the legend
        red[name] = np.count_nonzero((picture[..., 0] > 0.8) & (picture[..., 1] < 0.4))
    assert red["none"] == 0 < red["truth"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "no such folder"),
        (["--epochs", "0"], "--epochs is 0"),
        (["--iterations-per-epoch", "-1"], "--iterations-per-epoch is -1"),
    ],
)
def test_wrong_input_is_named_and_nothing_is_written(tmp_path, capsys, arguments, message):
    assert main(["demo", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
