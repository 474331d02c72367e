"""`prepare --recipe` and the papers' trainers, against the papers' numbers, and through nnU-Net's commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.rot90 import Rot90Transform
from trainer_of import trainer_of

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.dataset_conversion.phantom import phantom_case
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.pipeline.seeding import seeded_generators
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.prepared.nnunet.preprocessed_dataset import PreprocessedDataset
from nnunet_difftumor.prepared.recipes import RECIPES
from nnunet_difftumor.synthesis.look.sample_shares import PUBLIC_CODE, SampleShares
from nnunet_difftumor.trainers import papers
from nnunet_difftumor.trainers.tiny import shrink_plans

pytestmark = pytest.mark.slow(file_seconds=150)
DATASET = "Dataset640_Recipes"
TRAINERS = {recipe: getattr(papers, RECIPES[recipe].trainer) for recipe in RECIPES}


@pytest.fixture(scope="module")
def raw(nnunet_folders, tmp_path_factory) -> Path:
    """Three boxes of 96 mm around the liver of phantoms, one of them with a tumor."""
    folder = tmp_path_factory.mktemp("boxes")
    for number, lesions in enumerate((0, 0, 3)):
        hu, labels = phantom_case([5, 0, number], spacing_mm=(3.0, 3.0, 3.0), lesions=lesions)
        places = np.argwhere(labels == (2 if lesions else 1))
        first = [int(np.clip(place - 16, 0, size - 32)) for place, size in zip(places.mean(0), hu.shape, strict=True)]
        box = tuple(slice(start, start + 32) for start in first)
        (folder / f"case_{number}").mkdir()
        affine = np.diag([-3.0, -3.0, 3.0, 1.0])
        for name, values in (("ct", hu[box]), ("labels", labels[box].astype(np.uint8))):
            nib.save(nib.Nifti1Image(values.T, affine), folder / f"case_{number}" / f"{name}.nii.gz")
    words = ["convert", "folder", "-i", str(folder), "-d", "640", "--name", "Recipes", "--ignore-other-labels"]
    assert main([*words, "--labels", "liver=1", "liver_tumor=2"]) == 0
    return nnunet_folders / "raw" / DATASET


@pytest.fixture(scope="module", params=list(RECIPES))
def prepared(request, raw, nnunet_folders) -> tuple[str, Path, str]:
    """A recipe, the dataset that is prepared by it, and what `prepare` said."""
    script = Path(sys.executable).with_name("difftumor")
    words = [script, "prepare", "-d", "640", "--recipe", request.param, "--overwrite", "-np", "1"]
    done = subprocess.run([*words, "--planner", "ExperimentPlanner"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return request.param, nnunet_folders / "preprocessed" / DATASET, done.stdout


def test_plans_and_settings_are_the_papers(prepared):
    recipe, folder, said = prepared
    plans = json.loads((folder / "nnUNetPlansDiffTumor.json").read_text())
    configuration = plans["configurations"]["3d_fullres"]
    spacing = {"difftumor": [1.0, 1.0, 1.0], "scaling": [1.5, 1.5, 1.5], "hu2023": [1.0, 1.0, 1.0]}[recipe]
    assert configuration["spacing"] == spacing
    assert configuration["patch_size"] == [96, 96, 96] and configuration["batch_size"] == 2
    statistics = plans["foreground_intensity_properties_per_channel"]["0"]
    window = statistics["percentile_00_5"], statistics["percentile_99_5"]
    assert window == ((-21, 189) if recipe == "hu2023" else (-175, 250))
    values = np.concatenate(
        [
            np.ravel(dataset.load_case(case)[0][:])
            for dataset in [PreprocessedDataset(str(folder / configuration["data_identifier"]))]
            for case in dataset.identifiers
        ]
    )
    if recipe == "hu2023":
        # Zero mean and unit deviation of what nnU-Net measured in the foreground.
        low, high = ((limit - statistics["mean"]) / statistics["std"] for limit in window)
        assert values.min() == pytest.approx(low, abs=1e-4) and values.max() <= high + 1e-4
    else:
        assert (statistics["mean"], statistics["std"]) == (-175, 425)
        assert values.min() == pytest.approx(0, abs=1e-6) and values.max() <= 1
    config = DiffTumorConfig.load(folder / "difftumor.json")
    shares = {"difftumor": PUBLIC_CODE, "scaling": SampleShares(0.25, 0.75, 0), "hu2023": SampleShares(0.1, 0.9, 0)}
    assert config.preset == ("hu2023" if recipe == "hu2023" else "difftumor") and config.shares == shares[recipe]
    step = {"difftumor": "0.25", "scaling": "0.5", "hu2023": "0.25"}[recipe]
    assert f"-tr {RECIPES[recipe].trainer} " in said and said.strip().endswith(f"-step_size {step}")


def test_trainers_are_the_papers(prepared, monkeypatch):
    recipe, folder, _ = prepared
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    trainer = trainer_of(folder, TRAINERS[recipe], edit_plans=small)
    assert trainer.num_epochs == {"difftumor": 2000, "scaling": 1000, "hu2023": 4000}[recipe]
    transforms = trainer.get_dataloaders()[0].data_loader.transforms
    if recipe == "scaling":
        assert isinstance(trainer.optimizer, torch.optim.SGD) and trainer.num_iterations_per_epoch == 250
        assert trainer.optimizer.param_groups[0]["lr"] == 0.01
        assert trainer.inference_allowed_mirroring_axes == (0, 1, 2)
        return
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    assert trainer.inference_allowed_mirroring_axes is None
    rates = []
    for epoch in (0, 49, 99, 100 + (trainer.num_epochs - 100) // 2, trainer.num_epochs - 1):
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates[:3] == pytest.approx([2e-6, 1e-4, 2e-4]) and rates[3] == pytest.approx(1e-4)
    assert 0 < rates[4] < 1e-9
    turn, shift = transforms.transforms[:2]
    assert (turn.apply_probability, shift.apply_probability) == (0.1, 0.2)
    assert isinstance(turn.transform, Rot90Transform) and turn.transform.allowed_axes == {1, 2}
    assert shift.transform.offset == 0.1
    shifted = [shift.transform(image=torch.zeros(1, 2, 2, 2))["image"] for _ in range(200)]
    added = np.array([float(image.max()) for image in shifted])
    assert all(float(image.min()) == float(image.max()) for image in shifted)
    assert -0.1 <= added.min() < -0.08 and 0.08 < added.max() <= 0.1


def small(plans: dict) -> None:
    shrink_plans(plans, "3d_fullres", patch_size=(96, 96, 96), features=(2, 4, 4))


def test_the_paper_augmentation_turns_and_shifts_as_often_as_it_says():
    transforms = papers.WarmUpCosineTraining.get_training_transforms((8, 8, 8), (0, 0), None, None, False)
    image = torch.arange(512, dtype=torch.float32).reshape(1, 8, 8, 8)
    labels = torch.arange(512, dtype=torch.int16).reshape(1, 8, 8, 8)
    turned = shifted = 0
    with seeded_generators((0,)):
        samples = [transforms(image=image.clone(), segmentation=labels.clone()) for _ in range(2000)]
    for sample in samples:
        away = sample["image"] - sample["segmentation"]
        # Image and labels turn together, in the plane of the slices.
        assert float(away.max() - away.min()) < 1e-3
        assert torch.equal(sample["segmentation"][0, 0].sort()[0].ravel().sort()[0], labels[0, 0].ravel())
        shifted += float(away.abs().max()) > 1e-6
        turned += not torch.equal(sample["segmentation"], labels)
    assert abs(turned / 2000 - 0.1) < 0.02 and abs(shifted / 2000 - 0.2) < 0.03


_SHORT = """
import torch
from nnunet_difftumor.trainers import papers
from nnunet_difftumor.trainers.tiny import shrink_plans


class {name}(papers.{trainer}):
    epochs = 2

    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        shrink_plans(plans, configuration, patch_size=(96, 96, 96), features=(2, 4, 4))
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 1

    def perform_actual_validation(self, save_probabilities=False):
        from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module
        stock = module.nnUNetPredictor

        def told(*args, **kwargs):
            print("tile step", kwargs["tile_step_size"])
            return stock(*args, **kwargs)

        module.nnUNetPredictor = told
        super().perform_actual_validation(save_probabilities)
"""


@pytest.mark.parametrize(
    "prepared",
    ["difftumor", *(pytest.param(recipe, marks=pytest.mark.long) for recipe in ("scaling", "hu2023"))],
    indirect=True,
)
def test_a_tiny_training_by_the_command(prepared, tmp_path):
    recipe, _, _ = prepared
    name = f"nnUNetTrainerShort_{recipe}"
    (tmp_path / "short.py").write_text(_SHORT.format(name=name, trainer=RECIPES[recipe].trainer))
    words = ("640", "3d_fullres", "0", "-tr", name, "-p", "nnUNetPlansDiffTumor", "-device", "cpu")
    script = Path(sys.executable).with_name("nnUNetv2_train")
    variables = {"nnUNet_extTrainer": str(tmp_path), "nnUNet_results": str(tmp_path / "results")}
    done = subprocess.run([script, *words], capture_output=True, text=True, env=os.environ | variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Samples: real") == 2
    assert f"tile step {RECIPES[recipe].tile_step}" in done.stdout
    log = "".join(path.read_text() for path in tmp_path.rglob("training_log_*.txt"))
    asked = {"difftumor": "real 0.333, synthetic 0.333, healthy 0.333", "scaling": "real 0.25, synthetic 0.75"}
    assert f"shares of samples asked: {asked.get(recipe, 'real 0, synthetic 0.9, healthy 0.1')}" in log


def test_plans_of_another_recipe_are_refused(prepared_phantom):
    for recipe, trainer in TRAINERS.items():
        with pytest.raises(InputError, match=f"were prepared without a recipe.*prepare --recipe {recipe} --overwrite"):
            trainer_of(prepared_phantom.preprocessed, trainer, edit_plans=small)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipe", "difftumor", "--spacing", "1", "1", "1"], "--spacing: the recipe difftumor decides it"),
        (["--recipe", "scaling", "--preset", "realistic"], "--preset: the recipe scaling decides it"),
        (["--recipe", "hu2023", "--patch-size", "64", "64", "64"], "--patch-size: the recipe hu2023 decides it"),
    ],
)
def test_what_the_recipe_decides_is_not_asked_for(words, said, capsys):
    assert main(["prepare", "-d", "501", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_recipe_for_a_dataset_with_other_plans(prepared_phantom, capsys):
    assert main(["prepare", "-d", "501", "--recipe", "difftumor", "-np", "1"]) == 2
    assert "difftumor.json" in capsys.readouterr().err
