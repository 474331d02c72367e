"""Trainings that are killed and resumed, and trainings in two processes."""

import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stored_volumes import write_stored

from nnunet_difftumor.generative.training.run_folder import RunFolder, read_curve, stored_step
from nnunet_difftumor.generative.weights import load_autoencoder, load_diffusion

pytestmark = pytest.mark.slow(file_seconds=60)
HOST = Path(__file__).with_name("training_host.py")
AUTOENCODER = [
    "patch_size=[8, 8, 16]",
    "downsampling=[2, 2, 2]",
    "codes=64",
    "norm_groups=4",
    "hidden_channels=2",
    "discriminator_channels=2",
    "discriminator_start=20",
    "learning_rate=0.001",
]
DIFFUSION = [
    "patch_size=[8, 8, 16]",
    "channels=4",
    "multipliers=[1]",
    "heads=2",
    "head_dim=4",
    "norm_groups=2",
    "accumulation=2",
    "ema_start=10",
]
OFTEN = ["batch_size=1", "checkpoint_every=3", "validate_every=7", "log_every=1", "validation_crops=2"]


class Host:
    """training_host.py, and the folders that its trainings use."""

    def __init__(self, folder: Path):
        self.folder = folder
        preprocessed = folder / "preprocessed"
        write_stored(preprocessed / "Dataset700_Small" / "generative", diameters_mm={"a": (6.0, 9.0), "b": (5.0,)})
        folders = {"nnUNet_preprocessed": str(preprocessed), "nnUNet_results": str(folder / "results")}
        self.process = subprocess.Popen(
            [sys.executable, str(HOST)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **folders, "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout.readline() == "ready\n"

    def run(self, *calls: dict, kill: dict | None = None) -> list[int]:
        request = {"calls": calls, "kill": kill, "log": str(self.folder / "log.txt")}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def log(self) -> str:
        return (self.folder / "log.txt").read_text()


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    host = Host(tmp_path_factory.mktemp("training"))
    yield host
    host.process.stdin.close()
    host.process.wait()


@pytest.fixture(scope="module")
def autoencoder(host) -> Path:
    """Weights of an autoencoder that the diffusion models of these tests share."""
    output = host.folder / "shared"
    call = autoencoder_call(output, steps=3)
    assert host.run(call) == [0], host.log()
    return output / "autoencoder.safetensors"


def autoencoder_call(output: Path, *, steps: int, assignments=(), **more) -> dict:
    chosen = [*AUTOENCODER, *OFTEN, *assignments]
    arguments = {"preset": "tiny", "assignments": chosen, "output": str(output), "steps": steps}
    return {"function": "train_autoencoder", "arguments": arguments, **more}


def diffusion_call(output: Path, *, autoencoder: Path, steps: int, assignments=(), **more) -> dict:
    call = autoencoder_call(output, steps=steps, **more)
    chosen = [*DIFFUSION, *OFTEN, *assignments]
    call["arguments"] |= {"assignments": chosen, "organ": "liver", "stage": "early", "autoencoder": str(autoencoder)}
    return call | {"function": "train_diffusion"}


@pytest.mark.parametrize(("kind", "kills"), [("autoencoder", 20), ("diffusion", 8)])
def test_killed_training_ends_with_the_curve_of_an_uninterrupted_one(kind, kills, host, autoencoder):
    name = "autoencoder" if kind == "autoencoder" else "liver_early"

    def call(folder: str, steps: int) -> dict:
        if kind == "autoencoder":
            return autoencoder_call(host.folder / folder, steps=steps)
        return diffusion_call(host.folder / folder, autoencoder=autoencoder, steps=steps)

    seed = random.SystemRandom().randrange(2**32)
    print(f"seed of the kills: {seed}")
    rng = np.random.default_rng(seed)
    killed = RunFolder(host.folder / f"killed {kind}", name)
    curve = killed.folder / "curve.jsonl"
    steps = 4 * kills
    for number in range(kills):
        # Some while the run is set up; the others from 1 to 4 steps on, at any moment of a step or of a checkpoint.
        after = int(rng.integers(0, 5))
        seconds = float(rng.uniform(0, 0.03 if after else 0.5))
        kill = {"curve": str(curve), "after_steps": after, "seconds": seconds}
        before = max((line["step"] for line in read_curve(curve)), default=0)
        assert host.run(call(killed.weights_folder.name, steps), kill=kill) == [-9], host.log()
        reached = max((line["step"] for line in read_curve(curve)), default=0)
        if killed.last.is_file():
            assert stored_step(killed.last) >= min(reached, before + after) - 3, f"kill {number}"
    assert host.run(call(killed.weights_folder.name, steps)) == [0], host.log()

    whole = RunFolder(host.folder / f"whole {kind}", name)
    assert host.run(call(whole.weights_folder.name, steps)) == [0], host.log()
    assert read_curve(curve) == read_curve(whole.folder / "curve.jsonl")
    assert len(read_curve(curve)) > steps
    for weights in ("weights", "best_weights"):
        assert getattr(killed, weights).read_bytes() == getattr(whole, weights).read_bytes()
    assert not list(killed.weights_folder.rglob(".tmp-*"))
    if kind == "autoencoder":
        load_autoencoder(killed.weights)
    else:
        load_diffusion(killed.weights, autoencoder=autoencoder)


def two_processes(call: dict, states: list[Path]) -> list[dict]:
    """The calls of both ranks, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    return [
        call | {"state": str(states[rank]), "environment": common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}}
        for rank in (0, 1)
    ]


def first_gradient(run: RunFolder) -> torch.Tensor:
    """Of a checkpoint after one step: Adam's first moments, which are then a tenth of the gradient."""
    states = torch.load(run.last, weights_only=True)["optimizer_states"][0]["state"]
    return torch.cat([state["exp_avg"].flatten() for state in states.values()])


@pytest.mark.parametrize("kind", ["autoencoder", "diffusion"])
def test_two_processes_end_with_the_same_weights_and_train_as_one_with_the_joined_batch(kind, host, autoencoder):
    def call(folder: str, steps: int, batch: int) -> dict:
        chosen = [f"batch_size={batch}"]
        if kind == "autoencoder":
            chosen.append("discriminator_start=1")
            return autoencoder_call(host.folder / folder, steps=steps, assignments=chosen)
        chosen.append("accumulation=1")
        return diffusion_call(host.folder / folder, autoencoder=autoencoder, steps=steps, assignments=chosen)

    states = [host.folder / f"{kind}_{rank}.pt" for rank in (0, 1)]
    joined = host.folder / f"{kind}_joined.pt"
    assert host.run(*two_processes(call(f"two {kind}", 1, 2), states)) == [0, 0], host.log()
    assert host.run(call(f"one {kind}", 1, 4) | {"state": str(joined)}) == [0], host.log()
    one, *two = (torch.load(path, weights_only=True) for path in (joined, *states))
    for name in ("embeddings", "counts", "sums") if kind == "autoencoder" else ():
        name = f"autoencoder.codebook.{name}"
        torch.testing.assert_close(two[0][name], one[name], rtol=1e-5, atol=0)
    name = "autoencoder" if kind == "autoencoder" else "liver_early"
    gradients = [first_gradient(RunFolder(host.folder / f"{folder} {kind}", name)) for folder in ("one", "two")]
    assert (gradients[0] - gradients[1]).norm() < 1e-5 * gradients[0].norm()

    # On with the run, now with the discriminators: both ranks resume from one checkpoint.
    assert host.run(*two_processes(call(f"two {kind}", 4, 2), states)) == [0, 0], host.log()
    first, second = (torch.load(path, weights_only=True) for path in states)
    for name, value in first.items():
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(value, second[name]), name
    assert any(not torch.equal(first[name], two[0][name]) for name in first)
