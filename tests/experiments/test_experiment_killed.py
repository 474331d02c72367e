"""A whole experiment on the phantom at toy size: killed in the middle, run again, and equal to one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from nnunet_difftumor.demonstration.small_plan import write_small_plans

DRIVER = Path(__file__).with_name("forked_commands.py")
TRAINER = "nnUNetTrainerDiffTumorDemo"
ARMS = {
    "without": {"shares": {"real": 1, "synthetic": 0, "healthy": 0}},
    "realistic": {},
    "placebo": {"preset": "placebo"},
    "hu2023": {"preset": "hu2023"},
}


@pytest.fixture(scope="module")
def folder(prepared_phantom, tmp_path_factory) -> Path:
    """Plans are written into it; its test case is a phantom with tumors."""
    write_small_plans(
        prepared_phantom.preprocessed, epochs=1, iterations_per_epoch=1, patch_size=(16, 32, 32), features=(4, 8)
    )
    folder = tmp_path_factory.mktemp("experiment")
    for name, source in (("images", "imagesTr"), ("labels", "labelsTr")):
        (folder / name).mkdir()
        for path in (prepared_phantom.raw / source).glob("phantom_tumor_000*"):
            (folder / name / path.name).symlink_to(path)
    return folder


def write_plan(folder: Path, arms: int, seeds: int) -> Path:
    plan = {
        "name": "toy",
        "dataset": 501,
        "plans": "nnUNetPlansDiffTumorDemo",
        "device": "cpu",
        "step_size": 1.0,
        "seeds": list(range(seeds)),
        "epochs": 2,
        "iterations_per_epoch": 3,
        "baseline": "without",
        "arms": {name: {"trainer": TRAINER, "settings": ARMS[name]} for name in list(ARMS)[:arms]},
        "test": {"images": "images", "labels": "labels"},
        "evaluate": {"tumor_label": [2]},
    }
    path = folder / f"{arms}_arms.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


def start(plan: Path, out: Path) -> subprocess.Popen:
    words = [sys.executable, DRIVER, plan, "-o", out]
    return subprocess.Popen(
        list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(plan: Path, out: Path) -> str:
    process = start(plan, out)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    return printed


def kill_when(process: subprocess.Popen, there) -> None:
    """Kills it and all that it started once something is true."""
    while not there():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def first_weights(out: Path, arm: str, seed: int) -> torch.Tensor:
    (path,) = (out / "runs" / f"{arm}_seed_{seed}_fold_0").rglob("checkpoint_untrained.pth")
    weights = torch.load(path, weights_only=False)["network_weights"]
    return torch.cat([value.flatten() for value in weights.values()])


def check_killed(folder: Path, arms: int, seeds: int) -> None:
    plan = write_plan(folder, arms, seeds)
    reference, out = folder / f"whole_{arms}", folder / f"killed_{arms}"
    assert "kept" not in finish(plan, reference)
    middle = arms * seeds // 2
    kill_when(
        start(plan, out),
        lambda: len(list(out.glob("runs/*/evaluation.json"))) == middle and len(list(out.rglob("*_latest.pth"))) == 1,
    )
    assert len(list(out.glob("runs/*/evaluation.json"))) == middle
    kept = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/evaluation.json")}
    printed = finish(plan, out)
    assert f"{middle} of {arms * seeds} runs are finished, and kept" in printed
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())

    results = [json.loads((one / "result.json").read_text()) for one in (reference, out)]
    for key in ("tumors", "placebo", "plan_sha256"):
        assert results[0][key] == results[1][key], key
    facts = results[1]["runs"]
    assert len(facts) == arms * seeds and all(one["trained"]["iterations"] == 6 for one in facts.values())
    for seed in range(seeds):
        first = first_weights(out, "without", seed)
        assert all(torch.equal(first, first_weights(out, name, seed)) for name in list(ARMS)[1:arms])
    assert not torch.equal(first_weights(out, "without", 0), first_weights(out, "without", 1))
    if arms > 2:
        assert [one["of"] for one in results[1]["placebo"]] == ["realistic"] * seeds
        assert all(one["equal"] and one["samples"] for one in results[1]["placebo"])
        assert "trained with the same masks as realistic" in printed


@pytest.mark.slow(file_seconds=60)
def test_experiment_that_was_killed_ends_as_one_that_was_not(folder):
    check_killed(folder, 2, 2)


@pytest.mark.long
def test_four_arms_and_three_seeds_killed_in_the_middle(folder):
    check_killed(folder, 4, 3)
