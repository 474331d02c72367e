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

pytestmark = pytest.mark.slow(file_seconds=90)

PLANS = "nnUNetPlansDiffTumor"


def command(name: str, *arguments: object, **variables: str) -> str:
    """Runs an installed command of nnU-Net, or ours; returns what it said."""
    script = Path(sys.executable).with_name(name)
    done = subprocess.run(
        [script, *map(str, arguments)], capture_output=True, text=True, env=os.environ | variables, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def trained(request, dataset, tmp_path, monkeypatch) -> Path:
    """The folder of a trained fold; there is an image in `images/` and nnU-Net looks for results where it lies."""
    monkeypatch.setenv("nnUNet_extTrainer", str(write_foreign_trainers(tmp_path)))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    command("nnUNetv2_train", *training(request.param), "--npz")
    images = tmp_path / "images"
    images.mkdir()
    scan = nib.load(dataset.raw / "imagesTr" / "phantom_tumor_001_0000.nii.gz")
    nib.save(scan.slicer[:40, :40, :30], images / "case_0000.nii.gz")
    return tmp_path / "results" / "Dataset501_Phantom" / f"{ON}{request.param}__{PLANS}__3d_fullres" / "fold_0"


def training(name: str) -> tuple[str, ...]:
    return ("501", "3d_fullres", "0", "-tr", ON + name, "-p", PLANS, "-device", "cpu")


def of_model(name: str) -> tuple[str, ...]:
    return ("-d", "501", "-p", PLANS, "-c", "3d_fullres", "-tr", ON + name)


def predicted(folder: Path, *model: object, of: str = "nnUNetv2_predict", **variables: str) -> np.ndarray:
    images = folder.parent / "images"
    how = ("-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1", "--disable_tta")
    command(of, "-i", images, "-o", folder, *model, *how, **variables)
    return np.asarray(nib.load(folder / "case.nii.gz").dataobj)


NAMES = ("nnUNetTrainerShortBN", "nnUNetTrainerShortDA5", "nnUNetTrainerForeignShort")
IN_CI = NAMES[0]


@pytest.mark.parametrize(
    "trained",
    [name if name == IN_CI else pytest.param(name, marks=pytest.mark.long) for name in NAMES],
    indirect=True,
)
def test_training_and_prediction_find_the_trainer_and_plain_nnunet_what_is_exported(trained, tmp_path):
    name = trained.parent.name.split("__")[0].removeprefix(ON)
    expected = predicted(tmp_path / "ours", *of_model(name))
    said = command("difftumor", "export", trained.parent, "-o", tmp_path / "exported")
    assert f"predicting needs the trainer {name}, which is in the module foreign_module" in said
    model, plainly = ("-m", tmp_path / "exported"), {"DIFFTUMOR_NO_AUTOLOAD": "1"}
    plain = predicted(tmp_path / "plain", *model, of="nnUNetv2_predict_from_modelfolder", **plainly)
    assert np.array_equal(plain, expected)


@pytest.mark.long
@pytest.mark.parametrize("trained", NAMES, indirect=True)
def test_every_other_command_of_nnunet_finds_the_trainer(trained, dataset, tmp_path):
    name = trained.parent.name.split("__")[0].removeprefix(ON)
    (trained / "checkpoint_final.pth").rename(trained / "checkpoint_latest.pth")
    resumed = command("nnUNetv2_train", *training(name), "--c")
    assert "This split has" in resumed or (trained / "checkpoint_final.pth").is_file()
    (trained / "validation" / "summary.json").unlink()
    command("nnUNetv2_train", *training(name), "--val", "--npz")
    assert (trained / "validation" / "summary.json").is_file()
    for path in (dataset.raw / "labelsTr").iterdir():
        # With every label, since nnU-Net finds no best model where one is in no case at all.
        image = nib.load(path)
        labels = np.asarray(image.dataobj).copy()
        labels[:8, 0, 0] = range(8)
        nib.save(nib.Nifti1Image(labels, image.affine, image.header), path)
    choice = ("501", "-p", PLANS, "-c", "3d_fullres", "-tr", ON + name, "-f", "0")
    assert f"-tr {ON}{name}" in command("nnUNetv2_find_best_configuration", *choice)

    expected = predicted(tmp_path / "ours", *of_model(name))
    # As a zip to where other people's trainers are, but not ours.
    command("nnUNetv2_export_model_to_zip", *of_model(name), "-f", "0", "-o", tmp_path / "model.zip")
    elsewhere = {"nnUNet_results": str(tmp_path / "elsewhere")}
    (tmp_path / "elsewhere").mkdir()
    command("nnUNetv2_install_pretrained_model_from_zip", tmp_path / "model.zip", **elsewhere)
    assert np.array_equal(predicted(tmp_path / "unzipped", *of_model(name), **elsewhere), expected)


def test_a_name_that_nnunet_does_not_know_ends_in_one_sentence(prepared_phantom, tmp_path):
    script = Path(sys.executable).with_name("nnUNetv2_train")
    words = [script, "501", "3d_fullres", "0", "-tr", ON + "nnUNetTrainerDA6", "-p", PLANS, "-device", "cpu"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "trainer 'nnUNetTrainerDA6': nnU-Net does not know it" in last and "nnUNetTrainerDA5" in last
