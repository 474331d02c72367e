"""Input folders whose sub-folders are the cases."""

import re
from pathlib import Path

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import check_folder


def case_folders(input_folder: Path, *, ct_name: str) -> list[Path]:
    """The sub-folders in the order of their names, without hidden ones.

    Args:
        input_folder: holds a folder for each case.
        ct_name: of the CT in each, for the message.

    Raises:
        InputError: there are none.
    """
    check_folder(input_folder, "expected one with a sub-folder for each case")
    folders = sorted(path for path in input_folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise InputError(f"{input_folder}: has no sub-folders; expected one for each case, with {ct_name}")
    return folders


def dataset_name_after(input_folder: Path) -> str:
    """The folder's name, with "_" for what dataset names cannot have."""
    return re.sub(r"[^A-Za-z0-9]+", "_", input_folder.name).strip("_")
