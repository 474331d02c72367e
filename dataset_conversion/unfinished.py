"""A raw dataset while it is being made: a hidden folder that outlives an interruption, with a record of every case."""

import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
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
        return record["facts"] if complete and record["files"] == _state_of(files) else None

    def record(self, case: str, files: Collection[Path], facts: Mapping[str, Any]) -> None:
        """Says that the case's two files are complete."""
        write_json(self._record(case), {"files": _state_of(files), "facts": facts})

    def finish(self, cases: Collection[str]) -> None:
        """Puts the dataset into its place; an older one there is removed last. Other cases' files are left out."""
        wanted = {self.image(case) for case in cases} | {self.labels(case) for case in cases}
        for part in ("imagesTr", "labelsTr"):
            for path in (self.folder / part).iterdir():
                if path not in wanted:
                    path.unlink()
        old = self.folder.with_name(f"{self.folder.name}-replaced")
        if self._target.exists():
            self._target.rename(old)
        try:
            self.folder.rename(self._target)
        except OSError:
            if old.exists():
                old.rename(self._target)
            raise
        # Only now: killed before, the run is gone on with.
        shutil.rmtree(self._target / "records")
        (self._target / "request.json").unlink()
        shutil.rmtree(old, ignore_errors=True)

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _record(self, case: str) -> Path:
        return self.folder / "records" / f"{case}.json"


@contextmanager
def unfinished_dataset(target: Path, request: Mapping[str, Any]) -> Iterator[UnfinishedDataset]:
    """The unfinished dataset of an interrupted run with the same request, or a new one; for one process at a time.

    Args:
        target: the place of the finished dataset.
        request: JSON; what decides the content of all cases. An unfinished dataset of another request is removed.

    Raises:
        InputError: another process is making this dataset.
    """
    from filelock import FileLock, Timeout

    unfinished = UnfinishedDataset(target)
    folder = unfinished.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"{target}: another process is making it; wait for it, or choose another id") from error
    try:
        request = json.loads(json.dumps(request))
        if folder.exists() and _read_json(folder / "request.json") != request:
            unfinished.discard()
        for part in ("imagesTr", "labelsTr", "records"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        write_json(folder / "request.json", request)
        yield unfinished
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _folder_of(target: Path) -> Path:
    return target.with_name(f".unfinished-{target.name}")


def _state_of(files: Collection[Path]) -> list[list]:
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
