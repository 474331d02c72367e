"""A painter that sleeps 10 ms per batch instead of drawing: a server on a machine whose GPU is elsewhere."""

import time
from collections.abc import Sequence

import numpy as np

from nnunet_difftumor.synthesis.networks.sketch import Sketch, in_hu

FACTORY = "sleeping_renderer:make"
SLEEP_S = 0.010


class SleepingRenderer:
    """Tumors are constants."""

    def load(self, sketches: Sequence[Sketch]) -> None:
        """There is no device."""

    def draw_loaded(self, sketches: Sequence[Sketch], loaded: None) -> list[np.ndarray]:
        time.sleep(SLEEP_S)
        drawn = []
        for sketch in sketches:
            before = in_hu(sketch.hu_of(sketch.near))
            drawn.append(before + sketch.alpha * (np.float32(sketch.spec.background_hu - 30) - before))
        return drawn


def make(**_) -> SleepingRenderer:
    """The factory of a server; what the real one takes is passed over."""
    return SleepingRenderer()
