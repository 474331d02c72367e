"""What lies in a folder, told so that two runs of one command can be compared."""

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

# Times of change, and what nnU-Net says while it plans.
_SKIPPED = ("hashes.json", ".log")


def contents(folder: Path) -> dict[str, Any]:
    """Of every file by its path in the folder: JSON, or a hash; of packed files of what is in them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(_SKIPPED))
    return {path.relative_to(folder).as_posix(): _content(path) for path in files}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of files that only one has, or that are not the same."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def hidden(folder: Path) -> list[str]:
    """Files and folders that are not for the user: temporary ones, and locks."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(".*"))


def _content(path: Path) -> Any:
    if path.suffix == ".json":
        return json.loads(path.read_text())
    content = path.read_bytes()
    return hashlib.sha256(gzip.decompress(content) if path.suffix == ".gz" else content).hexdigest()
