"""What lies in a folder, told so that two runs of one command can be compared."""

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

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
        content = json.loads(path.read_text())
        return _told(path, content) if path.parent.name == "cases" else content
    if path.suffix == ".b2nd":  # packed in any order
        return _sha256(np.ascontiguousarray(blosc2.open(str(path), mode="r")[:]).tobytes())
    content = path.read_bytes()
    return _sha256(gzip.decompress(content) if path.suffix == ".gz" else content)


def _told(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """The record of a preprocessed case: whether its hashes are those of the files, instead of the hashes."""
    dataset = path.parent.parent.parent
    arrays = {
        name: digest == _sha256(next(dataset.glob(f"nnUNetPlans*/{name}")).read_bytes())
        for name, (_, digest) in record["arrays"].items()
    }
    return record | {"arrays": arrays}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def state(*folders: Path) -> dict[str, tuple[int, str]]:
    """Time of change of everything in folders, and of the folders; hashes of files."""
    paths = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    return {
        str(path): (path.lstat().st_mtime_ns, _sha256(path.read_bytes()) if path.is_file() else "")
        for path in sorted(paths)
    }
