"""The training commands from the console: interruption, resuming, weights that load."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from stored_volumes import write_stored

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.generative.training.run_folder import RunFolder, read_curve, stored_step
from nnunet_difftumor.generative.weights import load_diffusion
from nnunet_difftumor.synthesis.networks.weights import DiffusionWeights

AUTOENCODER = ["patch_size=[8, 8, 16]", "codes=64", "hidden_channels=4", "norm_groups=4", "discriminator_channels=2"]
DIFFUSION = ["patch_size=[8, 8, 16]", "channels=8", "multipliers=[1]", "heads=2", "head_dim=4"]
OFTEN = ["batch_size=1", "validation_crops=1", "log_every=1", "checkpoint_every=1000", "workers=1"]


def options(settings: list[str]) -> list[str]:
    return [word for setting in [*settings, *OFTEN] for word in ("--set", setting)]


@pytest.mark.slow
def test_interrupted_command_resumes_and_its_weights_draw_tumors(tmp_path, monkeypatch, capsys):
    write_stored(tmp_path / "pre" / "Dataset700_Small" / "generative", diameters_mm={"a": (6.0,), "b": (5.0,)})
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "pre"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    common = ["-d", "700", "--preset", "tiny", "--device", "cpu"]
    words = ["train-autoencoder", *common, *options(AUTOENCODER)]
    run = RunFolder(tmp_path / "results" / "Dataset700_Small" / "generative", "autoencoder")

    process = subprocess.Popen(
        [sys.executable, "-m", "nnunet_difftumor.cli.main", *words, "--steps", "100000"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    while len(read_curve(run.folder / "curve.jsonl")) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    # As Ctrl-C in a terminal does: to the workers too.
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate()[0]
    assert process.returncode == 130
    # No checkpoint was due: this one is the interruption's.
    reached = stored_step(run.last)
    assert f"stopped after step {reached} of 100000; the same command resumes there" in output
    # No terminal: a line instead of a bar.
    assert re.search(r"^step 1 of 100000: loss \S+, \S+ s a step, about .* left$", output, re.MULTILINE)

    assert main([*words, "--steps", str(reached + 2)]) == 0
    assert f"resumes after step {reached} of {reached + 2} steps" in capsys.readouterr().out
    assert [line["step"] for line in read_curve(run.folder / "curve.jsonl")][-2:] == [reached + 2] * 2
    assert list((run.folder / "tensorboard").glob("events*"))
    assert list((run.folder / "pictures").glob("*.png"))

    draw = ["train-diffusion", *common, "--organ", "liver", "--stage", "early", *options(DIFFUSION)]
    assert main([*draw, "--steps", "2"]) == 0
    # Along z, y, x; in the settings along z, x, y.
    assert main([*draw, "--steps", "2", "--patch-size", "8", "16", "8"]) == 0
    assert main([*draw, "--steps", "2", "--patch-size", "8", "8", "16"]) == 2
    assert "patch_size was [8, 8, 16], now [8, 16, 8]" in capsys.readouterr().err
    weights = run.weights_folder / "liver_early.safetensors"
    model, description = load_diffusion(weights, autoencoder=run.weights)
    assert description.diffusion.sampler == "ddpm"
    assert model.schedule.steps == 4
    found = DiffusionWeights(run.weights_folder, "liver")
    found.check(["early"])
    coder_note, model_note = found.notes(["early"])
    assert coder_note.startswith(f"weights autoencoder.safetensors: trained for {reached + 2} steps only, expected at")
    assert model_note.startswith("weights liver_early.safetensors: trained for 2 steps only, expected at least 2000")
    assert main([*draw, "--steps", "2", "--organ", "lver"]) == 2
    assert "organ 'lver': " in (error := capsys.readouterr().err) and error.endswith("has liver; is liver meant?\n")
    assert main([*draw, "--steps", "2", "--organ", "../liver"]) == 2
    assert "organ is '../liver', expected a plain name" in capsys.readouterr().err
    source = json.loads(weights.with_suffix(".json").read_text())["source"]
    assert source["trained_on"]["lesions"] == 2
    assert main([*draw, "--steps", "3", "--set", "loss"]) == 2
    assert "--set loss: expected key=value" in capsys.readouterr().err
    assert main([*draw, "--steps", "0"]) == 2
    assert "--steps: steps is 0, expected a whole number of at least 1" in capsys.readouterr().err
    assert main([*draw, "--steps", "3", "--set", "loss=l2"]) == 2
    assert "loss was 'l1', now 'l2'" in capsys.readouterr().err
