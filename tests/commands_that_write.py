"""Commands that write, with inputs small enough to run them hundreds of times."""

import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tiny_networks
import torch
from stored_volumes import write_stored

from nnunet_difftumor.dataset_conversion import phantom

DIFFTUMOR = Path(sys.executable).with_name("difftumor")
# Training steps that take no time.
_AUTOENCODER = ["patch_size=[8, 8, 16]", "codes=64", "hidden_channels=4", "norm_groups=4", "discriminator_channels=2"]
_DIFFUSION = ["patch_size=[8, 8, 16]", "channels=8", "multipliers=[1]", "heads=2", "head_dim=4"]
_SHORT = ["batch_size=1", "validation_crops=1", "log_every=1", "checkpoint_every=1", "workers=1", "steps=2"]
MODEL = "nnUNetTrainerDiffTumor__nnUNetPlansDiffTumor__3d_fullres"


@dataclass(frozen=True)
class Command:
    """A command line.

    Attributes:
        words: after `difftumor`.
        variables: of the environment, beside those that are set.
    """

    words: list[str]
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        # Python itself would leave half a .pyc behind, on a full disk too.
        return os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | self.variables


def make_inputs(folder: Path) -> Path:
    """A phantom, its organs, a folder of three such scans, a raw dataset, weights, training volumes, and a trained
    model.
    """
    hu, labels = phantom.phantom_case([0, 0, 1], spacing_mm=(6.0, 5.0, 5.0))
    affine = np.diag([-5.0, -5.0, 6.0, 1.0])
    for place in (folder, *(folder / "scans" / name for name in "abc")):
        place.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(hu.T, affine), place / "ct.nii.gz")
        nib.save(nib.Nifti1Image(labels.T.astype(np.uint8), affine), place / "labels.nii.gz")
    tiny_networks.write_weights(folder / "weights", "liver_early")
    _write_model(folder / MODEL)
    (folder / "predicted").mkdir()
    values = np.random.default_rng(0).integers(0, 3, (12, 12, 12)).astype(np.uint8)
    nib.save(nib.Nifti1Image(values, np.diag([-2.0, -2.0, 3.0, 1.0])), folder / "predicted" / "case.nii.gz")
    write_stored(folder / "volumes" / "Dataset700_Small" / "generative", diameters_mm={"a": (6.0,), "b": (5.0,)})
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("nnUNet_raw", str(folder / "raw"))
        (folder / "raw").mkdir()
        phantom.convert(702, name="Small", cases=2, tumor_cases=1, spacing_mm=(6.0, 5.0, 5.0))
    return folder


def _write_model(folder: Path) -> None:
    """What `export` reads of a model; 20 MB in each of two folds."""
    for fold in range(2):
        (folder / f"fold_{fold}").mkdir(parents=True)
        weights = {f"layer_{number}": torch.full((500_000,), float(number + fold)) for number in range(10)}
        content = {"trainer_name": "nnUNetTrainerDiffTumor", "network_weights": weights, "init_args": {}}
        torch.save(content, folder / f"fold_{fold}" / "checkpoint_final.pth")
    for name in ("plans", "dataset", "dataset_fingerprint"):
        (folder / f"{name}.json").write_text(json.dumps({"name": name}))


def commands(inputs: Path, output: Path) -> dict[str, Command]:
    """Of verbs that write, by name; each writes `output`, or into it. Some need the prepared phantoms."""
    ct, labels, weights = (str(inputs / name) for name in ("ct.nii.gz", "labels.nii.gz", "weights"))
    organ = ["--organ-mask", labels, "--organ-label", "1"]
    of_folder = ["--organ-mask", "labels.nii.gz", "--organ-label", "1", "--organ", "liver"]
    phantoms = ["--cases", "3", "--tumor-cases", "0", "--spacing", "6", "5", "5"]
    small = ["--spacing", "6", "5", "5", "--patch-size", "16", "16", "16", "-np", "1"]
    training = ["-d", "700", "--preset", "tiny", "--device", "cpu"]
    truth = str(inputs / "raw" / "Dataset702_Small" / "labelsTr")
    found = {
        "synthesize": ["synthesize", ct, *organ, "--organ", "liver", "--count", "3", "-o", str(output)],
        "synthesize folder": ["synthesize", str(inputs / "scans"), *of_folder, "--count", "1", "-o", str(output)],
        "reconstruct": ["reconstruct", ct, *organ, "--weights", weights, "-o", str(output)],
        "import-weights": [
            *("import-weights", f"{weights}/autoencoder.safetensors", f"{weights}/liver_early.safetensors"),
            *("-o", str(output)),
        ],
        "preview": ["preview", "-d", "501", "-o", str(output)],
        "check": ["check", "-d", "501", "-np", "1", "-o", str(output / "findings.json")],
        "bank": ["synthesize", "--bank", "-d", "501", "--per-case", "6", "-o", str(output)],
        "convert": ["convert", "phantom", "-d", "701", "--name", "Phantom", *phantoms],
        "prepare": ["prepare", "-d", "702", *small],
        "preprocess-generative": ["preprocess-generative", "-d", "702", "-np", "2"],
        "export": ["export", str(inputs / MODEL), "-o", str(output)],
        "evaluate": [
            *("evaluate", truth, truth, "--tumor-label", "2"),
            *("-o", str(output / "figures.json")),
        ],
        "postprocess": [
            *("postprocess", str(inputs / "predicted"), "--organ-label", "1", "--tumor-label", "2"),
            *("-o", str(output)),
        ],
        "demo": ["demo", "--out", str(output)],
        "train-autoencoder": ["train-autoencoder", *training, *_settings(_AUTOENCODER), "-o", str(output)],
        "train-diffusion": [
            *("train-diffusion", *training, *_settings(_DIFFUSION), "--organ", "liver", "--stage", "early"),
            *("--autoencoder", f"{weights}/autoencoder.safetensors", "-o", str(output)),
        ],
        "replay": ["replay", str(inputs / "run" / "fold_0"), "--sample", "0", "-o", str(output)],
    }
    small_dataset = {"nnUNet_raw": str(inputs / "raw"), "nnUNet_preprocessed": str(output)}
    variables = {
        "convert": {"nnUNet_raw": str(output)},
        "prepare": small_dataset,
        "preprocess-generative": small_dataset,
        "train-autoencoder": {"nnUNet_preprocessed": str(inputs / "volumes")},
        "train-diffusion": {"nnUNet_preprocessed": str(inputs / "volumes")},
    }
    return {name: Command(words, variables.get(name, {})) for name, words in found.items()}


def make_run(folder: Path, preprocessed: Path) -> None:
    """What `replay` reads of a training on a prepared dataset."""
    for name in ("plans", "dataset"):
        source = {"plans": "nnUNetPlansDiffTumor"}.get(name, name)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(preprocessed / f"{source}.json", folder / f"{name}.json")
    (folder / "fold_0" / "synthesis_log").mkdir(parents=True)
    shutil.copy(preprocessed / "difftumor.json", folder / "fold_0")
    record = {
        **{"version": "0", "trainer": "nnUNetTrainerDiffTumorTiny", "configuration": "3d_fullres", "fold": 0},
        **{"batch_size": 2, "oversample_foreground_percent": 0.33, "weights": []},
    }
    (folder / "fold_0" / "synthesis_log" / "run_rank_0.json").write_text(json.dumps(record))


def _settings(values: list[str]) -> list[str]:
    return [word for value in [*values, *_SHORT] for word in ("--set", value)]
