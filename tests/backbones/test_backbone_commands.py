"""Backbones through nnU-Net's own commands: found by name, trained, validated, used for prediction; refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from networks import needs_monai

pytestmark = pytest.mark.slow(file_seconds=90)
TRAINERS = Path(__file__).parent / "trainers"
PLANS = "nnUNetPlansDiffTumor"


def nnunet(module: str, *arguments: str | Path, call: str = "") -> subprocess.CompletedProcess:
    """Runs the module behind one of nnU-Net's console scripts."""
    start = ["-c", f"from {module} import {call} as run; run()"] if call else ["-m", module]
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        env=os.environ | {"nnUNet_extTrainer": str(TRAINERS)},
        capture_output=True,
        text=True,
    )


def train(trainer: str) -> subprocess.CompletedProcess:
    return nnunet("nnunetv2.run.run_training", "501", "3d_fullres", "0", "-tr", trainer, "-p", PLANS, "-device", "cpu")


def predict(trainer: str, images: Path, output: Path) -> subprocess.CompletedProcess:
    return nnunet(
        "nnunetv2.inference.predict_from_raw_data",
        *("-i", images, "-o", output, "-d", "501", "-p", PLANS, "-c", "3d_fullres", "-tr", trainer),
        *("-f", "0", "-device", "cpu", "-npp", "0", "-nps", "0"),
        call="predict_entry_point",
    )


@pytest.mark.long
def test_stu_net_trains_validates_and_predicts_as_nnunets_own(prepared_phantom, tmp_path):
    trainer = "nnUNetTrainerShortSTUNet"
    trained = train(trainer)
    assert trained.returncode == 0, trained.stderr
    assert "Training done." in trained.stdout and "Mean Validation Dice" in trained.stdout
    fold = prepared_phantom.results / f"{trainer}__{PLANS}__3d_fullres" / "fold_0"
    case = next((fold / "validation").glob("*.nii.gz")).name

    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(prepared_phantom.raw / "imagesTr" / case.replace(".nii.gz", "_0000.nii.gz"), images)
    predicted = predict(trainer, images, tmp_path / "predicted")
    assert predicted.returncode == 0, predicted.stderr
    first, second = (
        np.asarray(nib.load(path).dataobj) for path in (tmp_path / "predicted" / case, fold / "validation" / case)
    )
    assert first.any() and np.mean(first == second) > 0.999


@needs_monai
def test_swin_unetr_trains_and_predicts_as_nnunets_own(prepared_phantom, tmp_path):
    trainer = "nnUNetTrainerShortSwinUNETR"
    trained = train(trainer)
    assert trained.returncode == 0, trained.stderr
    assert "Training done." in trained.stdout

    image = nib.load(prepared_phantom.raw / "imagesTr" / "phantom_tumor_001_0000.nii.gz").slicer[20:90, 10:60, 10:44]
    (tmp_path / "images").mkdir()
    image.to_filename(tmp_path / "images" / "part_0000.nii.gz")
    predicted = predict(trainer, tmp_path / "images", tmp_path / "predicted")
    assert predicted.returncode == 0, predicted.stderr
    labels = nib.load(tmp_path / "predicted" / "part.nii.gz")
    assert labels.shape == image.shape and np.allclose(labels.affine, image.affine)
    assert set(np.unique(labels.dataobj)) <= set(range(8))


@needs_monai
def test_a_patch_that_does_not_fit_stops_the_command_with_what_to_do(prepared_phantom):
    done = train("nnUNetTrainerSwinUNETRBase")
    assert done.returncode != 0
    assert "`difftumor prepare -d 501 --patch-size 64 64 64`" in done.stderr
    assert not list(prepared_phantom.results.glob("nnUNetTrainerSwinUNETRBase__*"))
