"""Finds a prepared dataset by its number, and reads what nnU-Net's planning left there."""

from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.nnunet_folders import PREPROCESSED, find_dataset
from nnunet_difftumor.prepared.config import PLANS_NAME
from nnunet_difftumor.prepared.nnunet.dataset_json import read_dataset_json
from nnunet_difftumor.prepared.nnunet.plans_and_folds import read_plans_file


def prepared_folder(dataset_id: int) -> Path:
    """`nnUNet_preprocessed/DatasetXXX_NAME`; nothing in it is looked at.

    Raises:
        InputError: if nnUNet_preprocessed is not set, or does not hold one dataset of that number.
    """
    return find_dataset(PREPROCESSED, dataset_id, then=f"run `difftumor prepare -d {dataset_id}` first")


def read_plans(folder: Path, configuration: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plans and dataset.json of a prepared dataset.

    Args:
        folder: of the preprocessed dataset.
        configuration: that the plans must have.

    Raises:
        InputError: if one of them is missing, or there is no such configuration.
    """
    for name in (f"{PLANS_NAME}.json", "dataset.json"):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: not found; run `difftumor prepare` first")
    plans = read_plans_file(folder / f"{PLANS_NAME}.json")
    if configuration not in plans["configurations"]:
        known = ", ".join(plans["configurations"])
        raise InputError(f"`configuration` is {configuration!r}, expected one in {PLANS_NAME}.json: {known}")
    return plans, read_dataset_json(folder / "dataset.json")
