"""Pools of workers that libraries run: what becomes of their words, and of an interruption."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

# Files for what workers of others say, of the pools that are at work.
_at_work: list[Path] = []


@contextmanager
def pools_of_others(log: Path) -> Iterator[None]:
    """Within it libraries run pools of their own, which a command does not wait for when it is interrupted.

    A worker that is ended while it hands over its result makes Python's pools wait for ever. What workers say on stderr
    goes to the end of a file, since their tracebacks are not for the user; what this process says does not.
    """
    own = os.dup(2)
    with open(own, "w", buffering=1, errors="backslashreplace") as stream, open(log, "a") as file:
        os.dup2(file.fileno(), 2)
        _at_work.append(log)
        try:
            with redirect_stderr(stream) if _is_standard(sys.stderr) else nullcontext():
                yield
        finally:
            _at_work.pop()
            os.dup2(own, 2)


def others_at_work() -> bool:
    """Whether `pools_of_others` is entered."""
    return bool(_at_work)


def _is_standard(stream: Any) -> bool:
    """Not so where it was captured."""
    try:
        return stream.fileno() == 2
    except (AttributeError, OSError, ValueError):
        return False
