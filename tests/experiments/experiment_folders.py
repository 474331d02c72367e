"""A prepared dataset and test cases of empty files, for what reads no scan: plans, dry runs, collecting."""

import json
import shutil
from pathlib import Path

import yaml

from nnunet_difftumor.prepared.config import FILE_NAME, DiffTumorConfig
from nnunet_difftumor.synthesis.organ import Organ

DATASET = "Dataset007_Planned"
LABELS = {"liver": 1, "liver_tumor": 2, "kidney": 3, "kidney_tumor": 4, "pancreas": 5, "pancreas_tumor": 6}


def make_dataset(preprocessed: Path, prepared: Path, *, real_cases: int = 300, folds: int = 5) -> Path:
    """The files of a prepared dataset that say what it holds.

    Args:
        preprocessed: nnUNet_preprocessed.
        prepared: a dataset whose plans are taken.
        real_cases: in training, of every fold.
        folds: how many.
    """
    folder = preprocessed / DATASET
    folder.mkdir(parents=True)
    shutil.copyfile(prepared / "nnUNetPlansDiffTumor.json", folder / "nnUNetPlansDiffTumor.json")
    train = [f"real_{i:03d}" for i in range(real_cases)]
    roles = {"val": ["held_out"], "synthesis_bases": ["healthy"], "label_free_val": ["healthy"]}
    (folder / "splits_final.json").write_text(json.dumps([{"train": train, **roles}] * folds))
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, **LABELS}}))
    organs = tuple(
        Organ(name, (LABELS[name],), LABELS[f"{name}_tumor"], (LABELS[f"{name}_tumor"],))
        for name in ("liver", "kidney", "pancreas")
    )
    DiffTumorConfig(organs=organs).save(folder / FILE_NAME)
    return folder


def make_test_cases(folder: Path, cases: int = 2) -> tuple[Path, Path]:
    """Folders of images and labels, of empty files."""
    for name, end in (("images", "_0000"), ("labels", "")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(cases):
            (folder / name / f"test_{number}{end}.nii.gz").touch()
    return folder / "images", folder / "labels"


def plan_record(**changes) -> dict:
    """A plan of two arms."""
    record = {
        "name": "toy",
        "dataset": 7,
        "baseline": "without",
        "seeds": [0, 1],
        "epochs": 2,
        "iterations_per_epoch": 5,
        "arms": {
            "without": {
                "trainer": "nnUNetTrainerDiffTumor",
                "settings": {"shares": {"real": 1, "synthetic": 0, "healthy": 0}},
            },
            "realistic": {"trainer": "nnUNetTrainerDiffTumor"},
        },
        "test": {"images": "images", "labels": "labels"},
    }
    return {key: value for key, value in (record | changes).items() if value is not None}


def write_plan(path: Path, record: dict) -> Path:
    path.write_text(yaml.safe_dump(record))
    return path
