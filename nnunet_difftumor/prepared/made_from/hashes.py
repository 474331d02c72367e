"""SHA-256 of files, remembered by their size and time of change."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from nnunet_difftumor.files import write_json
from nnunet_difftumor.json_checks import load_json


class FileHashes:
    """Hashes of files; one that has neither another size nor another time of change is not read again.

    Args:
        store: JSON file in which hashes are remembered; one that is missing or damaged only costs time.
        root: folder whose files are remembered by their path in it, so that a copy of it knows them too.
    """

    def __init__(self, store: Path, *, root: Path) -> None:
        self._store, self._root, self._changed = store, os.path.abspath(root), False
        self._known: dict[str, list] = {}
        with suppress(OSError, ValueError):
            known = load_json(store)
            self._known = known if isinstance(known, dict) else {}

    def sha256(self, path: Path) -> str:
        """Of the file's content.

        Raises:
            OSError: if it cannot be read.
        """
        if not self.knows(path):
            with open(path, "rb") as file:
                self.remember(path, hashlib.file_digest(file, "sha256").hexdigest())
        return self._known[self._key(path)][2]

    def remember(self, path: Path, digest: str) -> None:
        """The hash of a file as it is now, for whoever has seen its content."""
        state = path.stat()
        self._known[self._key(path)], self._changed = [state.st_size, state.st_mtime_ns, digest], True

    def knows(self, path: Path) -> bool:
        """Whether the hash of a file that is there needs no reading."""
        state, entry = path.stat(), self._known.get(self._key(path))
        return isinstance(entry, list) and entry[:2] == [state.st_size, state.st_mtime_ns]

    def save(self) -> None:
        """Remembers what was read, and forgets files that are gone.

        A folder that cannot be written to costs the next call time, and nothing else.
        """
        there = {key: entry for key, entry in self._known.items() if os.path.exists(os.path.join(self._root, key))}
        if self._changed or len(there) < len(self._known):
            with suppress(OSError):
                write_json(self._store, there)
                self._known, self._changed = there, False

    def _key(self, path: Path) -> str:
        whole = os.path.abspath(path)
        return os.path.relpath(whole, self._root) if whole.startswith(self._root + os.sep) else whole
