"""batchgenerators' workers with batches in order, which end a training also when a worker dies handing one over."""

import weakref
from threading import Thread

from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter


class OrderedAugmenter(MultiThreadedAugmenter):
    """One queue per worker, asked in turn: the same batches in the same order, whatever the number of workers.

    The thread that takes batches from the workers sees that one is dead when it looks; but a worker that is killed
    while it hands a batch over ends the thread with an error, and the training would wait for its next batch for ever.
    """

    def _start(self) -> None:
        if self.was_initialized:
            return
        super()._start()
        # A weak reference: the workers end when nobody has this object any more.
        watched = (weakref.ref(self), self.pin_memory_thread)
        Thread(target=_abort_after, args=watched, name="abort after the results", daemon=True).start()


def _abort_after(owner: "weakref.ref[OrderedAugmenter]", results: Thread) -> None:
    results.join()
    augmenter = owner()
    # Another thread's turn when it was started again in the meantime.
    if augmenter is not None and augmenter.pin_memory_thread is results:
        augmenter.abort_event.set()
