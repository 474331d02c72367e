"""Where the datasets are that nnU-Net's variables lead to, and whether they are CT."""

import os
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError


def dataset_folders(dataset_id: int, *, option: str = "-d") -> tuple[Path, Path]:
    """`nnUNet_raw/DatasetXXX_NAME` and `nnUNet_preprocessed/DatasetXXX_NAME`.

    Args:
        dataset_id: of a dataset in nnUNet_raw.
        option: where the id came from, for errors.

    Raises:
        InputError: if nnU-Net's variables are not set, or there is no such dataset.
    """
    from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name

    values = {name: os.environ.get(name) for name in ("nnUNet_raw", "nnUNet_preprocessed")}
    for name, value in values.items():
        if not value:
            raise InputError(f"{name} is not set; export {name}=/a/folder, as nnU-Net asks for")
    try:
        name = convert_id_to_dataset_name(dataset_id)
    except RuntimeError as error:
        raise InputError(
            f"{option} {dataset_id}: expected one Dataset{dataset_id:03d}_NAME in {values['nnUNet_raw']} "
            f"(`difftumor convert` makes one); nnU-Net says: {error}"
        ) from error
    raw = Path(values["nnUNet_raw"]) / name
    if not (raw / "dataset.json").is_file():
        raise InputError(f"{raw / 'dataset.json'}: not found; `difftumor convert` makes a raw dataset with it")
    return raw, Path(values["nnUNet_preprocessed"]) / name


def check_channel(raw: Path, dataset_json: dict[str, Any]) -> None:
    """nnU-Net normalizes a channel as CT if it is called so; anything else would lose the HU.

    Raises:
        InputError: unless the dataset has one channel that is called CT.
    """
    names = list(dataset_json.get("channel_names", dataset_json.get("modality", {})).values())
    if len(names) != 1 or str(names[0]).casefold() != "ct":
        raise InputError(
            f'{raw / "dataset.json"}: channel_names are {names}, expected one channel named "CT"; synthetic tumors '
            "need CT in HU: if these are CT scans, correct the name"
        )
