"""Reads npz files, which anything may have happened to: damage is an InputError, and nothing in them is executed."""

from collections.abc import Set
from pathlib import Path

import numpy as np

from nnunet_difftumor.errors import InputError

# Of all arrays of a file: what a tumor of 200 mm has at 0.5 mm.
_MOST_BYTES = 1 << 30


def read_arrays(
    path: str | Path, *, keys: Set[str], optional: Set[str] = frozenset(), what: str
) -> dict[str, np.ndarray]:
    """Reads the named arrays of an npz file.

    Args:
        path: the file.
        keys: names of the arrays, all needed.
        optional: names of arrays that files of earlier versions do not have.
        what: the kind of file, for the message.

    Raises:
        InputError: if the file is missing, damaged, something else, or lacks an array.
    """
    try:
        with open(path, "rb") as file:
            stored = np.load(file, allow_pickle=False)
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise ValueError("it is no npz archive")
            nbytes = sum(member.file_size for member in stored.zip.infolist())
            if nbytes > _MOST_BYTES:
                raise ValueError(f"{nbytes} bytes, compressed")
            missing = sorted(keys - set(stored.files))
            if missing:
                raise ValueError(f"{', '.join(missing)} missing")
            return {key: stored[key] for key in sorted(keys | (optional & set(stored.files)))}
    # Damaged bytes make zipfile, zlib and numpy raise errors of a dozen kinds.
    except Exception as error:
        raise InputError(f"{path}: cannot be read as {what} ({error}); delete it and make it again") from error
