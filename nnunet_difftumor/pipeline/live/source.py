"""Live tumors for a training sample: placed in the loader, drawn by the synthesis server meanwhile."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np

from nnunet_difftumor.pipeline.live.client import Refusal
from nnunet_difftumor.pipeline.sources import Outcome, Scenes, paste_handcrafted
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.prepared.overlay_case import OverlayCase
from nnunet_difftumor.prepared.statistics import StatisticsStore
from nnunet_difftumor.synthesis.networks.diffusion import as_diffusion
from nnunet_difftumor.synthesis.networks.view import NetworkView
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.patch import Patch, RenderedTumor, Renderer
from nnunet_difftumor.synthesis.placement.sampler import Placement
from nnunet_difftumor.synthesis.scene import patch_of
from nnunet_difftumor.synthesis.size_bands import stage_of
from nnunet_difftumor.synthesis.spec import TumorSpec


class Painter(Protocol):
    """Whom a `LiveSource` asks."""

    def ask(self, case: str, patch: Patch, spec: TumorSpec) -> int:
        """Asks for a tumor without waiting; returns a number for `answers`."""

    def answers(self, numbers: Sequence[int]) -> list[RenderedTumor | Refusal]:
        """Waits for them."""


class LiveSource:
    """Places tumors, asks for their inside, and pastes what comes back.

    Places and shapes are those of `HandcraftedSource` for the same random numbers.

    Args:
        config: organs, distributions and curriculum.
        statistics: of the organs.
        views: what the model of each (organ, stage) sees.
        painter: usually the client of a server.
    """

    def __init__(
        self,
        config: DiffTumorConfig,
        statistics: StatisticsStore,
        *,
        views: Mapping[tuple[str, str], NetworkView],
        painter: Painter,
    ) -> None:
        self._scenes, self._views, self._painter = Scenes(config, statistics), views, painter

    def begin(self, case: OverlayCase, rng: np.random.Generator, epoch: int = 0) -> Callable[[], Outcome]:
        organ, placed, look_alikes, refused = self._scenes.draw(case, rng, epoch)
        asked = []
        for placement in placed:
            spec = as_diffusion(placement.spec)
            view = self._views[organ.name, stage_of(spec.size_class)]
            patch = patch_of(case, spec, organ, box=view.region(case, spec))
            asked.append((self._painter.ask(case.identifier, patch, spec), patch))
        return partial(self._finish, case, organ, asked, look_alikes, refused)

    def _finish(
        self,
        case: OverlayCase,
        organ: Organ | None,
        asked: Sequence[tuple[int, Patch]],
        look_alikes: Sequence[Placement],
        refused: list[str],
    ) -> Outcome:
        outcome = Outcome(refused=refused, source="live")
        start = time.perf_counter()
        answers = self._painter.answers([number for number, _ in asked])
        outcome.waited_ms = (time.perf_counter() - start) * 1e3
        for found, (_, patch) in zip(answers, asked, strict=True):
            if isinstance(found, Refusal):
                outcome.refused.append(f"live: {found.reason}")
                continue
            tumor = _onto(case, patch, found)
            case.paste(tumor)
            outcome.tumors.append(tumor)
        if outcome.tumors:
            outcome.tumor_label = organ.tumor_label
            outcome.look_alikes = [paste_handcrafted(case, placement, organ) for placement in look_alikes]
        return outcome


def _onto(case: OverlayCase, patch: Patch, tumor: RenderedTumor) -> RenderedTumor:
    """The tumor with what the case has beside it by now: all of a scene are drawn into the case as it was."""
    before = patch.part(tumor.box)
    hu = np.where(tumor.hu != before.hu, tumor.hu, case.hu(tumor.box))
    labels = np.where(tumor.labels != before.labels, tumor.labels, case.labels(tumor.box))
    return replace(tumor, hu=hu, labels=labels)


class PainterInProcess:
    """Draws in the process that asks, one tumor at a time: for replays and previews, which have no server.

    Args:
        open_renderer: called when the first tumor is asked for.
    """

    def __init__(self, open_renderer: Callable[[], Renderer]) -> None:
        self._open, self._renderer = open_renderer, None
        self._asked: dict[int, tuple[Patch, TumorSpec]] = {}
        self._numbers = 0

    def ask(self, case: str, patch: Patch, spec: TumorSpec) -> int:
        self._numbers += 1
        self._asked[self._numbers] = (patch, spec)
        return self._numbers

    def answers(self, numbers: Sequence[int]) -> list[RenderedTumor | Refusal]:
        self._renderer = self._renderer or self._open()
        asked = [self._asked.pop(number) for number in numbers]
        rendered = [self._renderer.render([patch], [spec])[0] for patch, spec in asked]
        return [tumor if tumor.mask.any() else Refusal("nothing of the tumor has room") for tumor in rendered]
