"""nnU-Net's three folders, as its variables name them, and the datasets in them. Nothing of nnU-Net is imported."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunet_difftumor.errors import InputError

RAW, PREPROCESSED, RESULTS = FOLDER_VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
# Where results lie that belong to no training: weights that were imported.
WEIGHTS_FOLDER = "difftumor_weights"


def nnunet_folder(variable: str, *, instead: str = "") -> Path:
    """The folder that one of nnU-Net's variables names; whether it exists is not looked at.

    Args:
        variable: one of `FOLDER_VARIABLES`.
        instead: for the message: what else can be done than setting it.

    Raises:
        InputError: if the variable is not set.
    """
    value = os.environ.get(variable)
    if not value:
        raise InputError(
            f"{variable} is not set; export {variable}=/a/folder, as nnU-Net asks for"
            + (f", or {instead}" if instead else "")
        )
    return Path(value)


@contextmanager
def environment_with(**values: str) -> Iterator[None]:
    """Sets variables of the environment for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def dataset_name(dataset_id: int) -> str:
    """How the names of a dataset's folders begin: Dataset003_ for 3."""
    return f"Dataset{dataset_id:03d}_"


def find_dataset(
    variable: str, dataset_id: int, *, inside: str = "", argument: str = "dataset_id", then: str = ""
) -> Path:
    """`DatasetXXX_NAME` in one of nnU-Net's folders, or what is in it.

    Args:
        variable: one of `FOLDER_VARIABLES`.
        dataset_id: of the dataset.
        inside: name of a file or folder that it must have, which is returned then.
        argument: which one the id is, for the message.
        then: what to do if there is none, for the message.

    Raises:
        InputError: if the variable is not set, or the folder does not hold one dataset of that number.
    """
    root, below = nnunet_folder(variable), f"/{inside}" if inside else ""
    found = sorted(root.glob(f"{dataset_name(dataset_id)}*{below}"))
    if len(found) != 1:
        seen = " and ".join(str(path.relative_to(root)) for path in found)
        raise InputError(
            f"`{argument}` {dataset_id}: expected one {dataset_name(dataset_id)}NAME{below} in {root}, found "
            f"{seen or 'none'}" + (f"; {then}" if then else "")
        )
    return found[0]
