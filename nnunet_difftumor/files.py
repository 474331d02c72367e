"""Outputs that are never half-written: a temporary name in the same folder, then a rename."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary path with the suffixes of `path`, and renames it to `path` if the block ends without an error.

    Args:
        path: the file to make; its folder is created. An existing file is replaced only at the end.

    Yields:
        A path in the same folder to write to. After an error it is removed and `path` is untouched. A killed process
        leaves at most a file whose name starts with ".tmp-".
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        # To be flushed, Windows wants a handle that may write.
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Writes strict JSON (no NaN), indented, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
