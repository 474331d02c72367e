"""Checks of JSON that users edit: every error names the file, the key, what was seen and what was expected."""

import dataclasses
import difflib
import json
import os
import stat
import sys
from collections.abc import Callable, Mapping
from typing import Any

from nnunet_difftumor.errors import InputError, shortened, shown

# Of a JSON file: the largest that programs write here has some MB.
_MOST_BYTES = 256 << 20


def load_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no JSON, no regular file (reading a pipe would never end), or more than anybody writes.
    """
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), encoding="utf-8") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("no regular file")
        if status.st_size > _MOST_BYTES:
            raise ValueError(f"{status.st_size} bytes, expected at most {_MOST_BYTES}")
        try:
            return json.load(file)
        except RecursionError:
            raise ValueError("lists in lists without end") from None


def read_json(path: str | os.PathLike, kind: type, *, expected: str, missing: str, fix: str) -> Any:
    """Reads a JSON file that holds a list or an object.

    Args:
        path: the file.
        kind: list or dict.
        expected: that in words.
        missing, fix: what to do if there is no file, and if it is not what is expected.

    Raises:
        InputError: naming the file.
    """
    try:
        content = load_json(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: not found; {missing}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is not valid JSON ({error}); {fix}") from error
    if not isinstance(content, kind):
        raise InputError(f"{path}: is {shown(content)}, expected {expected}; {fix}")
    return content


class Checker:
    """Checks the values of a record.

    Args:
        record: names with values.
        where: its origin, for messages.
    """

    def __init__(self, record: Mapping[str, Any], where: str) -> None:
        self.record, self.where = record, where

    def value(self, key: str, good: Callable[[Any], Any], expected: str) -> None:
        """Raises an InputError if the record has the key with a value that is not good."""
        if key in self.record and not good(self.record[key]):
            seen = shortened(json.dumps(self.record[key], default=str))
            raise InputError(f"{self.where}: {key} is {seen}, expected {expected}")


def check_keys(record: Any, cls: type, where: str) -> None:
    """Refuses what is no object, unknown keys and missing ones; `cls` is the dataclass that the record becomes.

    Raises:
        InputError: with the known key that is nearest to an unknown one.
    """
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected an object, got {shown(record)}")
    known = [entry.name for entry in dataclasses.fields(cls)]
    for key in record:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"
            raise InputError(f"{where}: unknown key {shown(key)}; {hint}")
    required = [
        entry.name for entry in dataclasses.fields(cls) if entry.default is entry.default_factory is dataclasses.MISSING
    ]
    missing = [key for key in required if key not in record]
    if missing:
        raise InputError(f"{where}: {', '.join(missing)} is missing; add it there")


def is_number(value: Any) -> bool:
    """Whether it is a finite number; true and false are not."""
    # Integers may be beyond every float, which `math.isfinite` does not take.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < sys.float_info.max


def is_integer(value: Any) -> bool:
    """Whether it is a whole number; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_share(value: Any) -> bool:
    """Whether it is a number from 0 to 1."""
    return is_number(value) and 0 <= value <= 1
