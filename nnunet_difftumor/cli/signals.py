"""Ctrl-C and SIGTERM end a command alike: temporary files go, what is done is kept.

Both raise KeyboardInterrupt. Libraries may make another error of it, which `received` tells, or lose it in a callback:
then it is raised again.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_RAISED_AGAIN_AFTER_S = 0.01
_received: list[int] = []


@contextmanager
def ending_on_signals(*, exits: bool = False) -> Iterator[None]:
    """Lets both signals raise KeyboardInterrupt within it; one that is ignored, as behind `nohup`, stays ignored.

    Args:
        exits: whether the process ends afterwards. All is done then, and Ctrl-C ends it without a word: what libraries
            do at exit would answer with tracebacks.
    """
    _received.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
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
        for number, handler in before.items():
            if signal.getsignal(number) is _end:
                signal.signal(number, signal.SIG_DFL if exits else handler)


def received() -> int | None:
    """The number of the last signal that ended, or is to end, the command."""
    return _received[-1] if _received else None


def _end(number: int, _: Any) -> None:
    _received.append(number)
    raise KeyboardInterrupt


def _raise_again(lost: Any) -> None:
    """In place of a traceback of an interruption that came in a callback, where it has no effect."""
    if issubclass(lost.exc_type, KeyboardInterrupt) and _received:
        number = _received[-1]
        timer = threading.Timer(_RAISED_AGAIN_AFTER_S, lambda: os.kill(os.getpid(), number))
        timer.daemon = True
        timer.start()
    else:
        sys.__unraisablehook__(lost)


def _hold() -> None:
    if _ends():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _release() -> None:
    if _ends():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _forget_in_child() -> None:
    """Pools end their workers by SIGTERM, and wait: one that has just begun, and has `_end` yet, would lose it."""
    if _ends():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _ends() -> bool:
    return signal.getsignal(signal.SIGTERM) is _end


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_forget_in_child)
