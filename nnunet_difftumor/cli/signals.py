"""Ctrl-C and SIGTERM end a command alike: temporary files go, what is done is kept.

Both raise KeyboardInterrupt. Libraries may make another error of it, which `received` tells, or lose it in a callback:
then it is raised again.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from nnunet_difftumor.pools_of_others import others_at_work

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_SENT_AGAIN_AFTER_S = 0.01
# From slow drives torch takes long.
_LONGEST_IMPORT_S = 20.0
_received: list[int] = []
# Process ids of the commands that run in this process; of one after which it exits it is never taken away.
_commands: list[int] = []
_last_words: list[str] = []
# Of the threads that are forking, the signals that they blocked before; and what came meanwhile.
_held: dict[int, set[signal.Signals]] = {}
_waiting: list[int] = []
# The process that forks.
_forks: list[int] = []
# When a signal came first that waits for the end of an import.
_interrupted_imports: list[float] = []


@contextmanager
def ending_on_signals(*, exits: bool = False, last_words: str = "") -> Iterator[None]:
    """Lets both signals raise KeyboardInterrupt within it; one that is ignored, as behind `nohup`, stays ignored.

    Args:
        exits: whether the process ends afterwards. All is done then, and Ctrl-C ends it without a word: what libraries
            do at exit would answer with tracebacks. While pools of others are at work, it ends the process at once.
        last_words: what is said then.
    """
    _received.clear()
    _interrupted_imports.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _commands.append(os.getpid())
    if exits:
        _last_words.append(last_words)
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    hook = sys.unraisablehook
    sys.unraisablehook = _raise_again
    for number, handler in before.items():
        if handler in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _end)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        if not exits:
            _commands.pop()
        for number, handler in before.items():
            if signal.getsignal(number) is _end:
                signal.signal(number, signal.SIG_DFL if exits else handler)


def received() -> int | None:
    """The number of the last signal that ended, or is to end, the command."""
    return _received[-1] if _received else None


def _end(number: int, frame: FrameType | None) -> None:
    if os.getpid() not in _commands:  # a worker that has just begun, and whose pool waits for it to end
        os._exit(128 + number)
    if threading.get_ident() in _held:  # what is raised in the middle of a fork would be lost
        _waiting.append(number)
        return
    if _is_in_an_import(frame) and time.monotonic() < _first_in_an_import() + _LONGEST_IMPORT_S:
        _send_again(number)
        return
    _received.append(number)
    if _last_words and others_at_work():
        with suppress(OSError, RuntimeError):  # the stream is gone, or in use right now
            print(_last_words[-1], file=sys.stderr, flush=True)
            sys.stdout.flush()
        os._exit(128 + number)
    raise KeyboardInterrupt


def _raise_again(lost: Any) -> None:
    """In place of a traceback of an interruption that came in a callback, where it has no effect."""
    if issubclass(lost.exc_type, KeyboardInterrupt) and _received:
        _send_again(_received[-1])
    else:
        sys.__unraisablehook__(lost)


def _send_again(number: int) -> None:
    timer = threading.Timer(_SENT_AGAIN_AFTER_S, lambda: os.kill(os.getpid(), number))
    timer.daemon = True
    timer.start()


def _is_in_an_import(frame: FrameType | None) -> bool:
    """Libraries in C may abort, or make another error of what is raised while they are imported, as torch does."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _first_in_an_import() -> float:
    """When the signal came that waits for the end of an import."""
    if not _interrupted_imports:
        _interrupted_imports.append(time.monotonic())
    return _interrupted_imports[0]


def _hold() -> None:
    if _commands:
        # Known first: the second call may be interrupted after it has blocked them.
        _held[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        _forks[:] = [os.getpid()]
        signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)


def _release() -> None:
    thread = threading.get_ident()
    if thread in _held:
        signal.pthread_sigmask(signal.SIG_SETMASK, _held[thread])
        del _held[thread]
    if _waiting:
        os.kill(os.getpid(), _waiting.pop())


def _be_a_worker_after_fork() -> None:
    if not _commands:
        return
    if _received or _waiting:
        # A pool that was interrupted while it started replaces its workers for ever, and the exit waits for them.
        os._exit(1)
    _be_a_worker()
    if _forks and os.getppid() != _forks[0]:  # which has ended meanwhile
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _NUMBERS)


def _be_a_worker() -> None:
    """In a process of a pool: the command says what becomes of the work, and nothing outlives it.

    A terminal sends Ctrl-C to workers too, which would answer with tracebacks, and may take a lock with them that
    others then wait for. Pools end their workers by SIGTERM, and wait: one that has just begun must not lose it. A
    pool that is interrupted while it starts forgets the workers that it has.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _prctl is not None:
        _prctl(_SET_SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)


def _is_spawned_worker() -> bool:
    """Python's pools import the command's main module, and with it this one, in the workers that they spawn."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


_SET_SIGNAL_AT_PARENTS_DEATH = 1  # of prctl, Linux only
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_be_a_worker_after_fork)
if _is_spawned_worker():
    _be_a_worker()
