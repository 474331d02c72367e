"""A raw dataset while it is being made: a hidden folder that outlives an interruption, with a record of every case."""

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from nnunet_difftumor.files import write_json
from nnunet_difftumor.json_checks import load_json

FILE_ENDING = ".nii.gz"


class UnfinishedDataset:
    """The hidden folder `.unfinished-DatasetXXX_Name` beside the place of the dataset; made by `unfinished_dataset`.

    Attributes:
        folder: with imagesTr and labelsTr; becomes the dataset at the end.
    """

    def __init__(self, target: Path) -> None:
        self.folder = _folder_of(target)
        self._target = target

    def image(self, case: str) -> Path:
        return self.folder / "imagesTr" / f"{case}_0000{FILE_ENDING}"

    def labels(self, case: str) -> Path:
        return self.folder / "labelsTr" / f"{case}{FILE_ENDING}"

    def kept_facts(self, case: str, files: Collection[Path]) -> dict | None:
        """What `record` stored of a case that is there already, made from the same files as they are now."""
        record = _read_json(self._record(case))
        complete = record is not None and self.image(case).is_file() and self.labels(case).is_file()
        return record["facts"] if complete and record["files"] == state_of(files) else None

    def record(self, case: str, files: Collection[Path], facts: Mapping[str, Any]) -> None:
        """Says that the case's two files are complete."""
        write_json(self._record(case), {"files": state_of(files), "facts": facts})

    def finish(self, cases: Collection[str]) -> None:
        """Puts the dataset into its place; an older one there is removed last. Other cases' files are left out."""
        wanted = {self.image(case) for case in cases} | {self.labels(case) for case in cases}
        for part in ("imagesTr", "labelsTr"):
            for path in (self.folder / part).iterdir():
                if path not in wanted:
                    path.unlink()
        old = _replaced(self._target)
        if self._target.exists():
            shutil.rmtree(old, ignore_errors=True)
            self._target.rename(old)
        try:
            self.folder.rename(self._target)
        except OSError:
            if old.exists():
                old.rename(self._target)
            raise
        # Only now: killed before, the run is resumed.
        remove_traces(self._target)

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _record(self, case: str) -> Path:
        return self.folder / "records" / f"{case}.json"


def remove_traces(target: Path) -> None:
    """Removes what only making it needed from a dataset that is in its place."""
    shutil.rmtree(target / "records", ignore_errors=True)
    (target / "request.json").unlink(missing_ok=True)
    shutil.rmtree(_replaced(target), ignore_errors=True)


def unfinished_dataset(target: Path, request: Mapping[str, Any]) -> UnfinishedDataset:
    """The unfinished dataset of an interrupted run with the same request, or a new one; for whoever has the lock.

    Args:
        target: the place of the finished dataset.
        request: JSON; what decides the content of all cases. An unfinished dataset of another request is removed.
    """
    unfinished = UnfinishedDataset(target)
    request = json.loads(json.dumps(request))
    if unfinished.folder.exists() and not is_resumed(target, request):
        unfinished.discard()
    for part in ("imagesTr", "labelsTr", "records"):
        (unfinished.folder / part).mkdir(parents=True, exist_ok=True)
    write_json(unfinished.folder / "request.json", request)
    return unfinished


def is_resumed(target: Path, request: Mapping[str, Any]) -> bool:
    """Whether an interrupted run with the same request has left an unfinished dataset. Nothing is changed."""
    return _read_json(_folder_of(target) / "request.json") == json.loads(json.dumps(request))


def _folder_of(target: Path) -> Path:
    return target.with_name(f".unfinished-{target.name}")


def _replaced(target: Path) -> Path:
    return target.with_name(f".unfinished-{target.name}-replaced")


def state_of(files: Collection[Path]) -> list[list]:
    """Path, size and time of last change of each file; None for both where there is no such file."""
    states = []
    for path in files:
        stat = path.stat() if path.exists() else None
        states.append([str(path), stat and stat.st_size, stat and stat.st_mtime_ns])
    return states


def _read_json(path: Path) -> Any:
    try:
        return load_json(path)
    except (FileNotFoundError, ValueError):
        return None
