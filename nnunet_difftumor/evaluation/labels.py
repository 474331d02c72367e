"""Which label values are tumors, and which are to be ignored, as an nnU-Net dataset.json names them."""

import os
from pathlib import Path

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.label_names import TUMOR_WORDS, is_tumor_name

IGNORE = "ignore"


def find_dataset_json(prediction: str | os.PathLike) -> Path:
    """Where nnU-Net puts the dataset.json of predicted label maps; the file may be missing.

    With the predictions; those that end a training, in `fold_X/validation`, have it in the model's folder.
    """
    folder = Path(os.path.abspath(prediction))
    ends_a_training = folder.name == "validation" and folder.parent.name.startswith("fold_")
    if ends_a_training and not (folder / "dataset.json").exists():
        folder = folder.parent.parent
    return folder / "dataset.json"


def tumor_labels(dataset_json: str | os.PathLike) -> dict[str, tuple[int, ...]]:
    """The labels whose name says tumor, cancer or lesion, but not cyst; regions (lists of values) are supported.

    Returns:
        Name of the label -> the values that make it up.

    Raises:
        InputError: the file is no dataset.json of nnU-Net, or no label has such a name.
    """
    labels = all_labels(dataset_json)
    found = {name: values for name, values in labels.items() if is_tumor_name(name)}
    if not found:
        raise InputError(
            f"{dataset_json}: none of the labels {', '.join(map(repr, labels))} is named as a tumor "
            f"({', '.join(TUMOR_WORDS)}); give `tumor_label` N"
        )
    return found


def ignore_label(dataset_json: str | os.PathLike) -> int | None:
    """The value of voxels that nobody has annotated (nnU-Net's label "ignore"); None if the dataset has none.

    Raises:
        InputError: the file is no dataset.json of nnU-Net.
    """
    values = all_labels(dataset_json).get(IGNORE)
    return None if values is None else values[0]


def all_labels(dataset_json: str | os.PathLike) -> dict[str, tuple[int, ...]]:
    """Name of each label -> the values that make it up.

    Raises:
        InputError: the file is no dataset.json of nnU-Net.
    """
    path = Path(dataset_json)
    try:
        return {
            name: tuple(int(value) for value in (values if isinstance(values, list) else [values]))
            for name, values in load_json(path)["labels"].items()
        }
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; give `dataset_json` FILE or `tumor_label` N") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a dataset.json of nnU-Net v2 ({type(error).__name__}: {error})") from error
