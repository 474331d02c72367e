"""Workers that end with their trainer: those of nnU-Net stay for ever when the trainer is killed."""

import multiprocessing
import os
import threading
import time

_LOOK_S = 1.0


class EndsWithTrainer:
    """Mixed into a data loader: the worker process that takes it ends within seconds after its parent."""

    def set_thread_id(self, thread_id: int) -> None:  # batchgenerators calls it once in every worker
        super().set_thread_id(thread_id)
        if multiprocessing.parent_process() is not None:
            threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # After a fork the pipe by which `is_alive` knows is also held by siblings; a fork server is a parent of its own.
    parent, number = multiprocessing.parent_process(), os.getppid()
    while parent.is_alive() and os.getppid() == number:
        time.sleep(_LOOK_S)
    os._exit(1)
