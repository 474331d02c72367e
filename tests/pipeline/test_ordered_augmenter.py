"""Batches in order from any number of workers, and an end instead of an endless wait when one cannot be taken."""

import gc
import threading

import pytest
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter

from nnunet_difftumor.pipeline.ordered_augmenter import OrderedAugmenter

pytestmark = pytest.mark.timeout(60)


class Numbers:
    """Worker w of n makes w, w + n, w + 2 n, ...; one of them ends the thread that receives it."""

    def __init__(self, workers: int, *, broken: int | None = None):
        self.workers, self.broken, self.made = workers, broken, 0

    def set_thread_id(self, thread_id: int) -> None:
        self.thread_id = thread_id

    def __next__(self) -> dict:
        number = self.thread_id + self.made * self.workers
        self.made += 1
        return {"number": HandedOver() if number == self.broken else number}


class HandedOver:
    """What arrives from a worker that was killed meanwhile."""

    def __reduce__(self):
        return _reset, ()


def _reset():
    raise ConnectionResetError(104, "Connection reset by peer")


def results_of(count: int, augmenter: MultiThreadedAugmenter) -> list[int]:
    return [next(augmenter)["number"] for _ in range(count)]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_batches_come_in_order(workers):
    augmenter = OrderedAugmenter(Numbers(workers), None, workers)
    assert results_of(9, augmenter) == list(range(9))
    augmenter._finish()
    assert results_of(4, augmenter) == list(range(4))  # started again
    augmenter._finish()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("broken", [0, 3, 4])
def test_a_batch_that_cannot_be_taken_ends_the_training(broken):
    augmenter = OrderedAugmenter(Numbers(2, broken=broken), None, 2)
    with pytest.raises(RuntimeError, match="background workers are no longer alive"):
        results_of(9, augmenter)
    assert not augmenter._processes


def test_its_workers_end_when_nobody_has_it_any_more():
    augmenter = OrderedAugmenter(Numbers(2), None, 2)
    next(augmenter)
    processes = augmenter._processes
    del augmenter
    gc.collect()
    for process in processes:
        process.join(timeout=10)
    assert not any(process.is_alive() for process in processes)
    for thread in threading.enumerate():
        if thread.name == "abort after the results":
            thread.join(timeout=10)
            assert not thread.is_alive()
