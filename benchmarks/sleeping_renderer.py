"""A renderer that sleeps 10 ms per batch instead of drawing: a server on a machine whose GPU is elsewhere."""

import time
from collections.abc import Sequence

import numpy as np

from nnunet_difftumor.synthesis.patch import Patch, RenderedTumor, site_of
from nnunet_difftumor.synthesis.spec import TumorSpec

FACTORY = "sleeping_renderer:make"
SLEEP_S = 0.010


class SleepingRenderer:
    """Tumors are constants; shape, blend and label are those of every renderer."""

    name = "diffusion"

    def render(self, patches: Sequence[Patch], specs: Sequence[TumorSpec]) -> list[RenderedTumor]:
        time.sleep(SLEEP_S)
        sites = [site_of(patch, spec) for patch, spec in zip(patches, specs, strict=True)]
        return [site.blended(np.full(site.alpha.shape, site.spec.background_hu - 30, np.float32)) for site in sites]


def make(**_) -> SleepingRenderer:
    """The factory of a server; what the real one takes is passed over."""
    return SleepingRenderer()
