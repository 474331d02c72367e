"""The folder of a run: the prepared dataset by links, and files of the run's own where it trains otherwise.

nnU-Net finds a dataset by nnUNet_preprocessed alone. Scans, which have gigabytes, are there once.
"""

import os
from collections.abc import Mapping
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.experiments.runs import Run
from nnunet_difftumor.experiments.settings import config_of, splits_of
from nnunet_difftumor.files import atomic_folder, json_text, write_json
from nnunet_difftumor.installation import trainer_folders
from nnunet_difftumor.json_checks import read_json
from nnunet_difftumor.nnunet_folders import PREPROCESSED, RAW, RESULTS
from nnunet_difftumor.prepared.config import FILE_NAME
from nnunet_difftumor.prepared.nnunet.plans_and_folds import read_plans_file, read_splits
from nnunet_difftumor.prepared.nnunet.training_length import TrainingLength

SPLITS = "splits_final.json"


def own_files(run: Run) -> dict[str, Any]:
    """What of the dataset is the run's own, by name: settings, folds, and plans with the length of the training.

    Raises:
        InputError: naming the arm or the file.
    """
    plan, dataset = run.plan, run.dataset_folder
    splits = splits_of(
        read_splits(dataset / SPLITS),
        run.of_arm,
        fold=run.fold,
        seed=run.seed,
        where=f"plan {plan.name}: arms.{run.arm}",
    )
    length = TrainingLength(plan.epochs, plan.iterations_per_epoch)
    return {
        FILE_NAME: config_of(plan, run.arm, run.seed, dataset_folder=dataset).to_dict(),
        SPLITS: splits,
        f"{plan.plans}.json": read_plans(run) | length.to_plans(),
    }


def read_plans(run: Run) -> dict[str, Any]:
    """nnU-Net's plans of the dataset.

    Raises:
        InputError: they are not there, or have no such configuration.
    """
    path = run.dataset_folder / f"{run.plan.plans}.json"
    plans = read_plans_file(path)
    if run.plan.configuration not in plans["configurations"]:
        known = ", ".join(plans["configurations"])
        raise InputError(
            f"plan {run.plan.name}: configuration is {run.plan.configuration!r}, expected one in {path}: {known}"
        )
    patch = plans["configurations"][run.plan.configuration].get("patch_size", ())
    if len(patch) == 2:
        raise InputError(
            f"plan {run.plan.name}: configuration is {run.plan.configuration!r}, whose patches are flat; "
            "synthetic tumors need a 3D one, such as 3d_fullres"
        )
    return plans


def make_run_folder(run: Run) -> None:
    """Makes the dataset of a run, unless it is there.

    Raises:
        InputError: the file system has no links.
    """
    if run.preprocessed.is_dir():
        return
    own = own_files(run)
    with atomic_folder(run.preprocessed) as folder:
        for path in sorted(run.dataset_folder.iterdir()):
            if path.name in own or path.name.startswith("."):
                continue
            try:
                os.symlink(path.absolute(), folder / path.name, target_is_directory=path.is_dir())
            except OSError as error:
                raise InputError(
                    f"{run.preprocessed}: links cannot be made there ({error.strerror}); name an output folder on a "
                    "file system with links, on Windows with developer mode"
                ) from error
        for name, content in own.items():
            (folder / name).write_text(json_text(content))


def variables_of(run: Run) -> Mapping[str, str]:
    """What the run's commands need beyond the caller's environment."""
    raw = {RAW: os.environ[RAW]} if os.environ.get(RAW) else {}
    return {
        **raw,
        PREPROCESSED: str(run.preprocessed.parent),
        RESULTS: str(run.folder / "nnUNet_results"),
        "nnUNet_extTrainer": trainer_folders(),
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait are slow where cores are few
    }


def note(run: Run, **facts: Any) -> None:
    """Adds to what is known of the run."""
    write_json(run.folder / "run.json", {**noted(run), **facts})


def noted(run: Run) -> dict[str, Any]:
    """What is known of the run; nothing before it began."""
    path = run.folder / "run.json"
    if not path.is_file():
        return {}
    again = f"delete {run.folder}, and run the experiment again"
    return read_json(path, dict, expected="facts of a run", missing=again, fix=again)
