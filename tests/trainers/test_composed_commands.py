"""A composed trainer through nnU-Net's own commands, found by its name in every one of them."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from foreign_trainers import write_foreign_trainers

from nnunet_difftumor.trainers import ON

pytestmark = pytest.mark.slow(file_seconds=150)

PLANS = "nnUNetPlansDiffTumor"


def command(name: str, *arguments: object, **variables: str) -> str:
    """Runs an installed command of nnU-Net, or ours; returns what it said."""
    script = Path(sys.executable).with_name(name)
    done = subprocess.run(
        [script, *map(str, arguments)], capture_output=True, text=True, env=os.environ | variables, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "nnUNetTrainerShortBN",
        pytest.param("nnUNetTrainerShortDA5", marks=pytest.mark.long),
        pytest.param("nnUNetTrainerForeignShort", marks=pytest.mark.long),
    ],
)
def test_every_command_of_nnunet_finds_the_trainer(dataset, tmp_path, monkeypatch, name):
    monkeypatch.setenv("nnUNet_extTrainer", str(write_foreign_trainers(tmp_path)))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    trainer = ON + name
    of_model = ("-d", "501", "-p", PLANS, "-c", "3d_fullres", "-tr", trainer)
    train = ("501", "3d_fullres", "0", "-tr", trainer, "-p", PLANS, "-device", "cpu")
    command("nnUNetv2_train", *train, "--npz")
    fold = tmp_path / "results" / "Dataset501_Phantom" / f"{trainer}__{PLANS}__3d_fullres" / "fold_0"
    (fold / "checkpoint_final.pth").rename(fold / "checkpoint_latest.pth")
    assert "This split has" in command("nnUNetv2_train", *train, "--c") or (fold / "checkpoint_final.pth").is_file()
    (fold / "validation" / "summary.json").unlink()
    command("nnUNetv2_train", *train, "--val", "--npz")
    assert (fold / "validation" / "summary.json").is_file()
    for path in (dataset.raw / "labelsTr").iterdir():
        # With every label, since nnU-Net finds no best model where one is in no case at all.
        image = nib.load(path)
        labels = np.asarray(image.dataobj).copy()
        labels[:8, 0, 0] = range(8)
        nib.save(nib.Nifti1Image(labels, image.affine, image.header), path)
    best = command(
        "nnUNetv2_find_best_configuration", "501", "-p", PLANS, "-c", "3d_fullres", "-tr", trainer, "-f", "0"
    )
    assert f"-tr {trainer}" in best

    images = tmp_path / "images"
    images.mkdir()
    scan = nib.load(dataset.raw / "imagesTr" / "phantom_tumor_001_0000.nii.gz")
    nib.save(scan.slicer[:40, :40, :30], images / "case_0000.nii.gz")
    how = ("-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1", "--disable_tta")
    command("nnUNetv2_predict", "-i", images, "-o", tmp_path / "ours", *of_model, *how)

    # As a zip to where other people's trainers are, but not ours.
    command("nnUNetv2_export_model_to_zip", *of_model, "-f", "0", "-o", tmp_path / "model.zip")
    elsewhere = {"nnUNet_results": str(tmp_path / "elsewhere")}
    (tmp_path / "elsewhere").mkdir()
    command("nnUNetv2_install_pretrained_model_from_zip", tmp_path / "model.zip", **elsewhere)
    command("nnUNetv2_predict", "-i", images, "-o", tmp_path / "unzipped", *of_model, *how, **elsewhere)

    said = command("difftumor", "export", fold.parent, "-o", tmp_path / "exported")
    assert f"predicting needs the trainer {name}, which is in the module foreign_module" in said
    model = ("-m", tmp_path / "exported", "-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1", "--disable_tta")
    plain = {"DIFFTUMOR_NO_AUTOLOAD": "1"}
    command("nnUNetv2_predict_from_modelfolder", "-i", images, "-o", tmp_path / "plain", *model, **plain)
    made = [np.asarray(nib.load(tmp_path / name / "case.nii.gz").dataobj) for name in ("ours", "unzipped", "plain")]
    assert np.array_equal(made[0], made[1]) and np.array_equal(made[0], made[2])


def test_a_name_that_nnunet_does_not_know_ends_in_one_sentence(prepared_phantom, tmp_path):
    script = Path(sys.executable).with_name("nnUNetv2_train")
    words = [script, "501", "3d_fullres", "0", "-tr", ON + "nnUNetTrainerDA6", "-p", PLANS, "-device", "cpu"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "trainer 'nnUNetTrainerDA6': nnU-Net does not know it" in last and "nnUNetTrainerDA5" in last
