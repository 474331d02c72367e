"""The demo's steps: announced, timed and noted on disk, so that the same command resumes where it stopped."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import write_json

STATE_FILE = "state.json"


class Journal:
    """What was done in an output folder.

    Args:
        folder: of the demo; made if it does not exist.
        settings: JSON-ready; a folder holds the work of one set of settings.
        overwrite: removes what an earlier demo left in the folder.

    Raises:
        InputError: the folder holds other things, or the work of other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], *, overwrite: bool) -> None:
        self.folder, self._path = folder, folder / STATE_FILE
        if folder.exists() and not folder.is_dir():
            raise InputError(f"`out` {folder}: is a file; name a folder")
        if folder.is_dir() and any(folder.iterdir()) and not self._path.is_file():
            raise InputError(f"`out` {folder}: holds files that are not of a demo; name another folder")
        if overwrite and folder.is_dir():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.state: dict[str, Any] = {"settings": settings, "steps": {}}
        if self._path.is_file():
            self.state = json.loads(self._path.read_text())
            if self.state["settings"] != settings:
                changed = sorted(key for key in settings if self.state["settings"].get(key) != settings[key])
                raise InputError(
                    f"`out` {folder}: holds a demo with other settings ({', '.join(changed)}); name another folder, or "
                    "start again with `overwrite`"
                )
        self._save()

    def step(self, number: int, total: int, name: str, *, title: str, work: Callable[[], list[list[str]]]) -> None:
        """Does a step unless it was done before.

        Args:
            number, total: for the line that announces it.
            name: of the step in the state.
            title: what it does, in words.
            work: returns the commands that it ran.
        """
        done = self.state["steps"].get(name)
        if done:
            print(f"[{number}/{total}] {title}: done before ({done['seconds']:.0f} s)", flush=True)
            return
        print(f"[{number}/{total}] {title}", flush=True)
        start = time.monotonic()
        commands = work()
        seconds = round(time.monotonic() - start, 1)
        self.state["steps"][name] = {"seconds": seconds, "commands": commands}
        self._save()
        print(f"      {seconds:.0f} s", flush=True)

    def _save(self) -> None:
        write_json(self._path, self.state)
