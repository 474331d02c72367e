"""Worker processes: pools that end with the process that started them, and leave Ctrl-C to it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait


@contextmanager
def worker_processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool; after an error what workers have is waited for, and the rest dropped; on Ctrl-C workers end at once.

    Workers are spawned, as nnU-Net does: its libraries have threads, which a fork would not survive. Those of
    `concurrent.futures` alone would outlive a killed parent for ever, and write what they were at.
    """
    context = multiprocessing.get_context("spawn")
    there, here = context.Pipe(duplex=False)
    with there, here, ProcessPoolExecutor(count, context, initializer=_begin, initargs=(there,)) as pool:
        try:
            yield pool
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                here.close()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _begin(closed_to_end: Connection) -> None:
    # A terminal sends Ctrl-C to all processes; the parent says what becomes of the work.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_when_told, args=(closed_to_end,), daemon=True).start()


def _end_when_told(closed_to_end: Connection) -> None:
    """Ends the process, whatever it does, when its parent has gone or closes its end of the pipe."""
    parent = parent_process()
    assert parent is not None
    wait([closed_to_end, parent.sentinel])
    os._exit(1)
