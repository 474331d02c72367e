"""A dataset that was prepared before there was a record of what it is from: what nnU-Net's own command says, and does
once the advice was followed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow(file_seconds=60)


def run(*command: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "nnUNet_n_proc_DA": "1"})


def train() -> subprocess.CompletedProcess:
    """Runs the module behind `nnUNetv2_train`."""
    options = ("-tr", "nnUNetTrainerDiffTumorTiny", "-p", "nnUNetPlansDiffTumor", "-device", "cpu")
    return run(sys.executable, "-m", "nnunetv2.run.run_training", "501", "3d_fullres", "0", *options)


def test_a_training_names_prepare_which_then_mends_the_dataset(dataset, prepared_phantom):
    shutil.rmtree(dataset.folder / "difftumor_made_from")
    settings, folds = ((dataset.folder / name).read_bytes() for name in ("difftumor.json", "splits_final.json"))

    refused = train()
    assert refused.returncode != 0 and "Synthetic share" not in refused.stdout
    said = refused.stderr.strip().splitlines()[-1]
    assert "the training does not begin: " in said and "by an older version" in said
    assert "run `difftumor prepare -d 501`" in said
    assert not (dataset.folder / "difftumor_made_from" / "dataset.json").exists()

    mended = run(Path(sys.executable).with_name("difftumor"), "prepare", "-d", "501", "-np", "1")
    assert mended.returncode == 0, mended.stderr
    assert (dataset.folder / "difftumor_made_from" / "dataset.json").is_file()
    kept = [(dataset.folder / name).read_bytes() for name in ("difftumor.json", "splits_final.json")]
    assert kept == [settings, folds]

    trained = train()
    assert trained.returncode == 0, trained.stderr
    assert "Synthetic share: " in trained.stdout and "Training done." in trained.stdout
    shutil.rmtree(prepared_phantom.results / "nnUNetTrainerDiffTumorTiny__nnUNetPlansDiffTumor__3d_fullres")
