"""Where the datasets are that nnU-Net's variables lead to, and whether they are CT."""

from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError, shown
from nnunet_difftumor.nnunet_folders import PREPROCESSED, RAW, dataset_name, nnunet_folder


def dataset_folders(dataset_id: int, *, argument: str = "dataset_id") -> tuple[Path, Path]:
    """`nnUNet_raw/DatasetXXX_NAME` and `nnUNet_preprocessed/DatasetXXX_NAME`.

    Args:
        dataset_id: of a dataset in nnUNet_raw.
        argument: which one the id is, for errors.

    Raises:
        InputError: if nnU-Net's variables are not set, or there is no such dataset.
    """
    from nnunetv2.utilities.dataset_name_id_conversion import find_candidate_datasets

    raw, preprocessed = nnunet_folder(RAW), nnunet_folder(PREPROCESSED)
    # nnU-Net goes by the number in all three of its folders, and stops where it has two names.
    names = [str(name) for name in find_candidate_datasets(dataset_id)]
    if len(names) != 1:
        todo = "rename or remove the other" if names else f"`difftumor convert` makes one in {raw}"
        raise InputError(
            f"`{argument}` {dataset_id}: expected one {dataset_name(dataset_id)}NAME in nnU-Net's folders, found "
            f"{' and '.join(names) or 'none'}; {todo}"
        )
    name = names[0]
    if not (raw / name / "dataset.json").is_file():
        raise InputError(f"{raw / name / 'dataset.json'}: not found; `difftumor convert` makes a raw dataset with it")
    return raw / name, preprocessed / name


def check_channel(raw: Path, dataset_json: dict[str, Any]) -> None:
    """nnU-Net normalizes a channel as CT if it is called so; anything else would lose the HU.

    Raises:
        InputError: unless the dataset has one channel that is called CT.
    """
    names = list(dataset_json.get("channel_names", dataset_json.get("modality", {})).values())
    if len(names) != 1 or str(names[0]).casefold() != "ct":
        raise InputError(
            f'{raw / "dataset.json"}: channel_names are {shown(names)}, expected one channel named "CT"; synthetic '
            "tumors need CT in HU: if these are CT scans, correct the name"
        )
