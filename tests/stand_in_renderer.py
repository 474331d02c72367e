"""A renderer for tests of the synthesis server: quick, without networks, and as faulty as a test asks for.

Files in the folder that DIFFTUMOR_TEST_CONTROL names switch faults on, in a server that runs as well as in its next
start.
"""

import os
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.networks.sketch import Sketch, in_hu

FACTORY = "stand_in_renderer:make"
CONTROL = "DIFFTUMOR_TEST_CONTROL"
FAULTS = (
    "crash",  # the process ends while it renders
    "crash_at_start",
    "hang",  # a batch is never finished
    "slow_start",
    "memory",  # no batch fits
    "memory_of_batches",  # batches of more than one do not fit, and while their memory is held nothing does
    "lost_gpu",  # once: an error of the driver, after which nothing works in this process
    "no_weights",  # a start finds no weights
    "full_disk",  # lesion files cannot be written, which the trainer of tests/faults looks for
    "clock",  # the time of day jumps at every look
)


def asked(fault: str) -> bool:
    assert fault in FAULTS
    return bool(os.environ.get(CONTROL)) and (Path(os.environ[CONTROL]) / fault).exists()


def jump_clock() -> None:
    """Lets the time of day jump by hours, back and forth."""
    true_time, looks = time.time, iter(range(10**9))
    time.time = lambda: true_time() + 7200 * (-1) ** next(looks)


def constant(sketch: Sketch, hu: float) -> np.ndarray:
    """A tumor that is the same everywhere, blended into the scan."""
    before = in_hu(sketch.hu_of(sketch.near))
    return before + sketch.alpha * (np.float32(hu) - before)


class StandInRenderer:
    """Every tumor is a constant, which its seed decides."""

    def __init__(self, sleep_s: float = 0.0) -> None:
        self.sleep_s = sleep_s
        self._lost = False
        self._held: Callable[[], object | None] = lambda: None

    def load(self, sketches: Sequence[Sketch]) -> None:
        """There is no device."""

    def draw(self, sketches: Sequence[Sketch]) -> list[np.ndarray]:
        return self.draw_loaded(sketches, None)

    def draw_loaded(self, sketches: Sequence[Sketch], loaded: None) -> list[np.ndarray]:
        if asked("crash"):
            os._exit(9)
        if asked("lost_gpu"):
            (Path(os.environ[CONTROL]) / "lost_gpu").unlink()
            self._lost = True
        if self._lost:
            import torch  # here, as it takes seconds and servers are started by the dozen

            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        while asked("hang"):
            time.sleep(0.05)
        if asked("memory"):
            raise InputError(f"the GPU's memory is too small for a batch of {len(sketches)}")
        if asked("memory_of_batches"):
            self._take_memory(len(sketches))
        time.sleep(self.sleep_s)
        return [constant(sketch, sketch.spec.background_hu - 30 - sketch.spec.seed % 40) for sketch in sketches]

    def _take_memory(self, tumors: int) -> None:
        if self._held() is not None:
            raise InputError("the GPU's memory is still held by the batch that did not fit")
        if tumors > 1:
            memory = np.empty(1)  # of this call, as tensors are
            self._held = weakref.ref(memory)
            raise InputError(f"the GPU's memory is too small for a batch of {tumors}")


def make(**_) -> StandInRenderer:
    """The factory; arguments for the real one are passed over."""
    if asked("slow_start"):
        time.sleep(1.5)
    if asked("crash_at_start"):
        os._exit(9)
    if asked("no_weights"):
        raise InputError("weights: liver_early.safetensors not found")
    if asked("clock"):
        jump_clock()
    return StandInRenderer(float(os.environ.get("DIFFTUMOR_TEST_SLEEP_S", 0)))
