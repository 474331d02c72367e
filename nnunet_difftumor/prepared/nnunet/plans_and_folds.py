"""nnU-Net's plans and folds, and our list of pools, as far as this package uses them: read, and checked key by key."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError, shown
from nnunet_difftumor.json_checks import is_integer, is_number, read_json
from nnunet_difftumor.names import check_plain_name

_AGAIN = "run `difftumor prepare` again, with `--overwrite` if that does not help"
# Far beyond what any GPU trains on.
_MOST_PATCH, _MOST_BATCH = 4096, 10_000
_LONGEST_NAME = 255
_ORDERS = (["0", "1"], ["0", "1", "2"])
_COUNT, _SPACING = f"a whole number from 1 to {_MOST_BATCH}", "two or three numbers above 0"


def read_plans_file(path: str | Path) -> dict[str, Any]:
    """nnU-Net's plans.

    Raises:
        InputError: naming the file and the key, for whatever is missing or wrong.
    """
    plans = _read(path, dict, "an object")
    entries = _Entries(Path(path), plans)
    for name in ("dataset_name", "plans_name", "image_reader_writer"):
        entries.check(name, lambda value: isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME, "text")
    # It becomes the name of a folder.
    check_plain_name(plans["dataset_name"], where=f"{path}: dataset_name")
    for name in ("transpose_forward", "transpose_backward"):
        entries.check(name, lambda value: isinstance(value, list) and sorted(map(str, value)) in _ORDERS, "[0, 1, 2]")
    entries.check("configurations", lambda value: isinstance(value, dict) and value, "an object with configurations")
    key = "foreground_intensity_properties_per_channel"
    entries.check(key, lambda value: isinstance(value, dict) and isinstance(value.get("0"), dict), "an object with 0")
    statistics = _Entries(Path(path), plans[key]["0"], f"{key}.0.")
    for name in ("mean", "std", "percentile_00_5", "percentile_99_5"):
        statistics.check(name, is_number, "a number")
    for name, configuration in plans["configurations"].items():
        where = f"configurations.{name}"
        if not isinstance(configuration, dict):
            raise InputError(f"{path}: {where} is {shown(configuration)}, expected an object; {_AGAIN}")
        _check_configuration(_Entries(Path(path), configuration, f"{where}."))
    return plans


def read_splits(path: str | Path) -> list[dict[str, Any]]:
    """Folds, each with names of cases by role.

    Raises:
        InputError: naming the file, the fold and the key, for whatever is missing or wrong.
    """
    folds = _read(path, list, "a list of folds")
    for number, fold in enumerate(folds):
        where = f"{path}: fold {number}"
        if not isinstance(fold, dict) or not {"train", "val"} <= fold.keys():
            raise InputError(f"{where} is {shown(fold)}, expected an object with train and val; correct it there")
        for role, cases in fold.items():
            if not isinstance(cases, list) or not all(map(_is_name, cases)):
                raise InputError(f"{where}: {role} is {shown(cases)}, expected a list of cases; correct it there")
    return folds


def read_pools(path: str | Path) -> list[str]:
    """Names of the healthy pools' datasets; none if there is no list.

    Raises:
        InputError: for what is no list of plain names, which become folders.
    """
    if not Path(path).is_file():
        return []
    return [check_plain_name(name, where=f"{path}: a pool") for name in _read(path, list, "a list of datasets")]


class _Entries:
    """Entries of an object that nnU-Net wrote."""

    def __init__(self, path: Path, content: dict[str, Any], prefix: str = "") -> None:
        self.path, self.content, self.prefix = path, content, prefix

    def check(self, name: str, good: Callable[[Any], Any], expected: str, *, needed: bool = True) -> None:
        if name not in self.content:
            if needed:
                raise InputError(f"{self.path}: {self.prefix}{name} is missing; {_AGAIN}")
        elif not good(self.content[name]):
            seen = shown(self.content[name])
            raise InputError(f"{self.path}: {self.prefix}{name} is {seen}, expected {expected}; {_AGAIN}")


def _check_configuration(entries: _Entries) -> None:
    """Of a configuration that may inherit from another, which lacks what is the same."""
    own = "inherits_from" not in entries.content
    entries.check("inherits_from", lambda value: isinstance(value, str), "text", needed=False)
    entries.check("data_identifier", _is_name, "the name of a folder", needed=own)
    entries.check("batch_size", lambda value: is_integer(value) and 1 <= value <= _MOST_BATCH, _COUNT, needed=own)
    entries.check("patch_size", lambda value: _are(value, _is_size), "two or three whole numbers", needed=own)
    entries.check("spacing", lambda value: _are(value, lambda mm: is_number(mm) and mm > 0), _SPACING, needed=own)
    entries.check("normalization_schemes", lambda value: isinstance(value, list) and value, "a list", needed=own)


def _are(values: Any, good: Callable[[Any], Any]) -> bool:
    return isinstance(values, list) and len(values) in (2, 3) and all(map(good, values))


def _is_size(value: Any) -> bool:
    return is_integer(value) and 1 <= value <= _MOST_PATCH


def _is_name(value: Any) -> bool:
    """Of a file or folder that lies in the folder that is meant."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and not _leads_elsewhere(value)


def _leads_elsewhere(name: str) -> bool:
    return name in (".", "..") or "\0" in name or any(part in name for part in {"/", os.sep, os.altsep or "/"})


def _read(path: str | Path, kind: type, expected: str) -> Any:
    first = "run `difftumor prepare` first"
    return read_json(path, kind, expected=expected, missing=first, fix=f"correct it there, or {_AGAIN}")
