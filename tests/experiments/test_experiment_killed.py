"""A whole experiment on the phantom at toy size: killed in the middle, run again, and equal to one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from scipy.ndimage import find_objects

from nnunet_difftumor.demonstration.small_plan import write_small_plans

DRIVER = Path(__file__).with_name("forked_commands.py")
TRAINER = "nnUNetTrainerDiffTumorDemo"
TUMOR, MARGIN = 2, 8  # label value; voxels
ARMS = {
    "without": {"shares": {"real": 1, "synthetic": 0, "healthy": 0}},
    "realistic": {},
    "placebo": {"preset": "placebo"},
    "hu2023": {"preset": "hu2023"},
}


@pytest.fixture(scope="module")
def folder(prepared_phantom, tmp_path_factory) -> Path:
    """Plans are written into it; its test case is what is around the tumors of a phantom."""
    # With two stages, deep supervision of nnU-Net has a single output, of weight 0: the loss would be NaN.
    write_small_plans(
        prepared_phantom.preprocessed, epochs=1, iterations_per_epoch=1, patch_size=(16, 32, 32), features=(4, 8, 8)
    )
    folder, raw = tmp_path_factory.mktemp("experiment"), prepared_phantom.raw
    (truth,) = (raw / "labelsTr").glob("phantom_tumor_000*")
    (box,) = find_objects((np.asarray(nib.load(truth).dataobj) == TUMOR).astype(np.uint8))
    around = tuple(slice(max(0, side.start - MARGIN), side.stop + MARGIN) for side in box)
    for name, source in (("images", "imagesTr"), ("labels", "labelsTr")):
        (folder / name).mkdir()
        for path in (raw / source).glob("phantom_tumor_000*"):
            nib.load(path).slicer[around].to_filename(folder / name / path.name)
    return folder


def write_plan(folder: Path, arms: list[str], seeds: list[int]) -> Path:
    plan = {
        "name": "toy",
        "dataset": 501,
        "plans": "nnUNetPlansDiffTumorDemo",
        "device": "cpu",
        "step_size": 1.0,
        "seeds": seeds,
        "epochs": 2,
        "iterations_per_epoch": 3,
        "baseline": "without",
        "arms": {name: {"trainer": TRAINER, "settings": ARMS[name]} for name in arms},
        "test": {"images": "images", "labels": "labels"},
        "evaluate": {"tumor_label": [TUMOR]},
    }
    path = folder / f"{len(arms)}_arms.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


class Experiments:
    """Runs experiments in processes that have imported nnU-Net already."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._printed = Path()

    def start(self, plan: Path, out: Path) -> int:
        self._printed = out.with_name(f"{out.name}_printed.txt")
        self._server.stdin.write(json.dumps([str(self._printed), [str(plan), "-o", str(out)]]) + "\n")
        return self._number()

    def finish(self, plan: Path, out: Path) -> str:
        self.start(plan, out)
        assert self._number() == 0, self._printed.read_text()
        return self._printed.read_text()

    def kill_when(self, there: Callable[[], bool], plan: Path, out: Path) -> None:
        """Kills one and all that it started once something is true."""
        group, until = self.start(plan, out), time.monotonic() + 120
        while not there():
            assert time.monotonic() < until, self._printed.read_text()
            time.sleep(0.01)
        os.killpg(group, signal.SIGKILL)
        assert self._number() == -signal.SIGKILL

    def end(self) -> None:
        self._server.stdin.close()
        self._server.wait()

    def _number(self) -> int:
        return int(self._server.stdout.readline())


@pytest.fixture(scope="module")
def experiments(folder) -> Iterator[Experiments]:
    server = Experiments()
    yield server
    server.end()


def weights(out: Path, run: str, which: str) -> torch.Tensor:
    (path,) = (out / "runs" / f"{run}_fold_0").rglob(f"checkpoint_{which}.pth")
    found = torch.load(path, weights_only=False)["network_weights"]
    return torch.cat([value.flatten() for value in found.values()])


def evaluated(out: Path) -> list[Path]:
    return sorted(out.glob("runs/*/evaluation.json"))


@pytest.mark.slow(file_seconds=90)
def test_four_arms_and_three_seeds_killed_in_the_middle_end_as_if_they_were_not(experiments, folder):
    seeds, out = [0, 1, 2], folder / "killed"
    plan = write_plan(folder, list(ARMS), seeds)
    # In the first training of the second seed.
    experiments.kill_when(lambda: len(evaluated(out)) == 4 and len(list(out.rglob("*_latest.pth"))) == 1, plan, out)
    kept = {path: path.stat().st_mtime_ns for path in evaluated(out)}
    assert len(kept) == 4
    printed = experiments.finish(plan, out)
    assert "4 of 12 runs are finished, and kept" in printed and len(evaluated(out)) == 12
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())

    result = json.loads((out / "result.json").read_text())
    facts = result["runs"]
    assert all(one["trained"]["iterations"] == 6 for one in facts.values())
    assert len({one["first_weights_sha256"] for one in facts.values()}) == len(seeds)
    for seed in seeds:
        first = weights(out, f"without_seed_{seed}", "untrained")
        trained = [weights(out, f"{name}_seed_{seed}", "final") for name in ARMS]
        assert all(torch.equal(first, weights(out, f"{name}_seed_{seed}", "untrained")) for name in ARMS)
        assert all(one.isfinite().all() and not torch.equal(first, one) for one in trained)
        assert not any(torch.equal(trained[0], one) for one in trained[1:])
    assert [one["of"] for one in result["placebo"]] == ["realistic"] * len(seeds)
    assert all(one["equal"] and one["samples"] for one in result["placebo"])
    assert "trained with the same masks as realistic" in printed

    # The run that was killed, and one that began after it, bit for bit as where nothing was killed.
    undisturbed = folder / "undisturbed"
    assert "kept" not in experiments.finish(write_plan(folder, ["without", "realistic"], [1]), undisturbed)
    for run in ("without_seed_1", "realistic_seed_1"):
        assert torch.equal(weights(out, run, "final"), weights(undisturbed, run, "final"))
        tumors = [
            json.loads((one / "runs" / f"{run}_fold_0" / "evaluation.json").read_text())["tumors"]
            for one in (out, undisturbed)
        ]
        assert tumors[0] == tumors[1]
