"""label_map.json of a case: which values in its label map mean which label, where they are not those of the others."""

from collections.abc import Collection, Mapping
from pathlib import Path

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.json_checks import load_json

LABEL_MAP_FILE = "label_map.json"


def values_in_folder(folder: Path, values_by_name: Mapping[str, Collection[int]]) -> Mapping[str, Collection[int]]:
    """The values of a case: those of its label_map.json, if it has one, else those of all.

    Args:
        folder: of the case.
        values_by_name: of all cases.

    Raises:
        InputError: the file is no JSON, or names other labels or values that cannot be.
    """
    path = folder / LABEL_MAP_FILE
    if not path.exists():
        return values_by_name
    try:
        content = load_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f'{path}: expected label names with values, like {{"liver": 5, "kidney": [2, 3]}}')
    unknown = sorted(set(content) - set(values_by_name))
    if unknown:
        raise InputError(f"{path}: {', '.join(unknown)} is not among the labels {', '.join(values_by_name)}")
    values = {label: value if isinstance(value, list) else [value] for label, value in content.items()}
    check_values(values, path)
    return values


def check_values(values_by_name: Mapping[str, Collection[int]], where: object) -> None:
    """Refuses values that are no labels, or that two labels have.

    Raises:
        InputError: naming `where`.
    """
    owner = {}
    for label, values in values_by_name.items():
        for value in values:
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 32767:
                raise InputError(f"{where}: {label}={value!r}; expected whole numbers from 1 to 32767")
            if owner.setdefault(value, label) != label:
                raise InputError(f"{where}: the value {value} is given to both {owner[value]} and {label}")
