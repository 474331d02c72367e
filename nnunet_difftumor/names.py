"""Names that come from files and become paths: only plain ones do, and only inside the folder that is meant."""

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError, shown

# Letters of any script, so that an organ can be named in any language; file systems take 255 bytes.
_PLAIN = re.compile(r"\w[\w-]{0,63}")
# difflib's ratio of two names that differ by a slip: lver and liver have 0.89, kindey and kidney 0.83.
_ALIKE = 0.75


def check_plain_name(name: Any, *, where: str) -> str:
    """Refuses what is no plain name: 1 to 64 letters, digits, `_` and `-`, the first one no `-`.

    Args:
        name: from a file.
        where: the file and the key, for the message.

    Returns:
        The name.

    Raises:
        InputError: for anything else, which could lead out of a folder or name no file at all.
    """
    if not is_plain_name(name):
        raise InputError(
            f"{where} is {shown(name)}, expected a plain name of 1 to 64 letters, digits, _ and -, since it becomes "
            "the name of a file; correct it, and be wary of whoever wrote it"
        )
    return name


def is_plain_name(name: Any) -> bool:
    """Whether `check_plain_name` takes it."""
    return isinstance(name, str) and _PLAIN.fullmatch(name) is not None


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The one of the known names that `name` looks like with a letter wrong, missing or too many; None if none does."""
    by_lower = {other.lower(): other for other in known}
    found = get_close_matches(name.lower(), by_lower, n=1, cutoff=_ALIKE)
    return by_lower[found[0]] if found and found[0] != name.lower() else None


def path_inside(folder: str | os.PathLike, name: str) -> Path:
    """`folder / name`, made sure to be in the folder.

    Raises:
        InputError: if the name leads out of the folder.
    """
    path = Path(folder) / name
    whole, inner = os.path.abspath(folder), os.path.abspath(path)
    if inner == whole or os.path.commonpath([whole, inner]) != whole:
        raise InputError(f"{folder}: the file name {name!r} leads out of this folder; nothing was written")
    return path
