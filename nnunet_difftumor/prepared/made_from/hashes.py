"""SHA-256 of files, remembered by their size and time of change."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from nnunet_difftumor.files import write_json


class FileHashes:
    """Hashes of files; one that has neither another size nor another time of change is not read again.

    Args:
        store: JSON file in which hashes are remembered; one that is missing or damaged only costs time.
    """

    def __init__(self, store: Path) -> None:
        self._store, self._changed = store, False
        self._known: dict[str, list] = {}
        with suppress(OSError, ValueError):
            known = json.loads(store.read_text())
            self._known = known if isinstance(known, dict) else {}

    def sha256(self, path: Path) -> str:
        """Of the file's content.

        Raises:
            OSError: if it cannot be read.
        """
        state, key = path.stat(), str(path)
        entry = self._known.get(key)
        if isinstance(entry, list) and entry[:2] == [state.st_size, state.st_mtime_ns]:
            return entry[2]
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._known[key], self._changed = [state.st_size, state.st_mtime_ns, digest], True
        return digest

    def knows(self, path: Path) -> bool:
        """Whether the hash of a file that is there needs no reading."""
        state = path.stat()
        entry = self._known.get(str(path))
        return isinstance(entry, list) and entry[:2] == [state.st_size, state.st_mtime_ns]

    def save(self) -> None:
        """Remembers what was read; a folder that cannot be written to costs the next call time, and nothing else."""
        if self._changed:
            with suppress(OSError):
                write_json(self._store, {key: self._known[key] for key in self._known if Path(key).exists()})
                self._changed = False
