"""Outputs that are never half-written, and that two processes never write together.

A temporary name in the same folder, then a rename. Whoever writes holds a lock, so that what a killed process has left
can be told from what another one is writing, and is removed by the next one.
"""

import glob
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: what killed processes leave stays
    fcntl = None  # type: ignore[assignment]

_PROBE_BYTES = 1 << 20


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary path with the suffixes of `path`, and renames it to `path` if the block ends without an error.

    Args:
        path: the file to make; its folder is created. An existing file is replaced only at the end.

    Yields:
        A path in the same folder to write to, an empty file. After an error it is removed and `path` is untouched. A
        killed process leaves at most a file whose name starts with ".tmp-", which the next one for `path` removes.
    """
    with _temporary(path) as temporary, _locked_file(temporary):
        with blaming_the_disk(path):
            yield temporary
        _flush(temporary)
        os.replace(temporary, path)


@contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a new folder, and renames it to `path` if the block ends without an error; `path` must not exist.

    Yields:
        A folder beside `path` to fill, as `atomic_path` gives a file.
    """
    with scratch_folder(path) as temporary:
        yield temporary
        temporary.rename(path)


@contextmanager
def scratch_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a new folder beside `path`, on the same disk, that is removed at the end: for what `path` is made of."""
    with _temporary(path) as temporary:
        temporary.mkdir()
        with _locked(temporary, os.O_RDONLY):
            yield temporary


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Writes strict JSON (no NaN), indented, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json_text(content))


def write_json_once(path: str | os.PathLike, content: Any) -> None:
    """As `write_json`, but a file that is there stays, also where another process has made it just now."""
    path = Path(path)
    with _temporary(path) as temporary, _locked_file(temporary):
        temporary.write_text(json_text(content))
        _flush(temporary)
        try:
            os.link(temporary, path)  # unlike a rename, never takes the place of a file
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            if not path.exists():
                os.replace(temporary, path)


class DiskError(OSError):
    """A disk that cannot be written, full for instance, whatever the library that found out calls it."""


@contextmanager
def blaming_the_disk(path: str | os.PathLike) -> Iterator[None]:
    """Libraries that write by themselves (torch, blosc2, safetensors) do not say that the disk is full.

    Args:
        path: what is written, in a folder that is there.

    Raises:
        DiskError: instead of an error of theirs, if nothing more can be written there.
    """
    path = Path(path)
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        try:
            # What was written before the error is still there.
            with tempfile.TemporaryFile(dir=path.parent) as file:
                file.write(bytes(_PROBE_BYTES))
        except OSError as of_disk:
            raise DiskError(of_disk.errno, of_disk.strerror, str(path)) from error
        raise


@contextmanager
def only_writer(target: str | os.PathLike) -> Iterator[None]:
    """For one process at a time; the lock is `.NAME.lock` beside the target, or in it if its folder cannot be written.

    Args:
        target: folder that is written. Folders in which it lies are created, and removed if nothing came of it.

    Raises:
        InputError: if another process is at it.
    """
    from filelock import FileLock, Timeout

    target = Path(os.path.abspath(target))
    new = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    place = target if target.is_dir() and not os.access(target.parent, os.W_OK) else target.parent
    lock = FileLock(place / f".{target.name}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"{target}: another process is writing there; wait for it, or name another folder") from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
    try:
        with _named(target):
            yield
    finally:
        # While it is held: who opened it before does not take it for a lock any more.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        for folder in new:
            with suppress(OSError):  # there is something in it
                folder.rmdir()


def check_folder(path: str | os.PathLike, expected: str, *, argument: str = "") -> None:
    """Refuses a path where no folder is.

    Args:
        path: of the folder.
        expected: what should be there, for the message.
        argument: that names it, for the message.

    Raises:
        InputError: there is nothing, or a file.
    """
    if not os.path.isdir(path):
        seen = "is no folder" if os.path.lexists(path) else "no such folder"
        raise InputError(f"{f'`{argument}` ' if argument else ''}{path}: {seen}; {expected}")


def free_bytes(path: str | os.PathLike) -> int:
    """That may be written on the disk where a path lies, or would lie."""
    place = Path(os.path.abspath(path))
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def in_words_of_bytes(count: int) -> str:
    """A number of bytes for people: 512 bytes, 1.5 MB."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def json_text(content: Any) -> str:
    """Strict JSON (no NaN), indented, as all files here have it."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


@contextmanager
def _temporary(path: str | os.PathLike) -> Iterator[Path]:
    """A name for what becomes `path`, removed at the end; those that dead processes have left are removed first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    temporary = path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")
    try:
        with _named(path):
            yield temporary
    finally:
        _remove(temporary)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of writing alone do not say where."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _locked_file(path: Path) -> AbstractContextManager[None]:
    return _locked(path, os.O_CREAT | os.O_RDWR)


@contextmanager
def _locked(path: Path, flags: int) -> Iterator[None]:
    """Holds a lock on what is opened with these flags, where there are locks."""
    if fcntl is None:
        yield
        return
    file = os.open(path, flags, 0o666)
    try:
        with suppress(OSError):  # file systems without locks: nothing is taken for stale there either
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(file)


def _flush(path: Path) -> None:
    # Windows wants a handle that may write.
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _remove_stale(path: Path) -> None:
    """Removes temporary files of `path` whose writers are dead: their locks are free."""
    if fcntl is None:
        return
    for old in path.parent.glob(f".tmp-????????-{glob.escape(path.name)}"):
        with suppress(OSError):
            file = os.open(old, os.O_RDONLY)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(old)
            finally:
                os.close(file)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
