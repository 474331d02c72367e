"""Live tumors for a training sample: placed and shaped in the loader, drawn by the synthesis server meanwhile."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from nnunet_difftumor.pipeline.live.client import Drawn, Refusal
from nnunet_difftumor.pipeline.live.ring import LesionRing, PatchVolume
from nnunet_difftumor.pipeline.sources import Outcome, Scenes, paste_handcrafted
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.prepared.overlay_case import OverlayCase
from nnunet_difftumor.prepared.statistics import StatisticsStore
from nnunet_difftumor.synthesis.networks.diffusion import as_diffusion
from nnunet_difftumor.synthesis.networks.sketch import Sketch
from nnunet_difftumor.synthesis.networks.view import NetworkView
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.patch import Patch, RenderedTumor, Site, site_of
from nnunet_difftumor.synthesis.placement.sampler import Placement
from nnunet_difftumor.synthesis.scene import patch_of
from nnunet_difftumor.synthesis.shape.survey import region_of
from nnunet_difftumor.synthesis.size_bands import stage_of
from nnunet_difftumor.synthesis.visibility import check_reach, too_faint
from nnunet_difftumor.synthesis.volume import Box

# Scenes of which all tumors are too faint are drawn again, this often in all.
_SCENES = 3


class Painter(Protocol):
    """Whom a `LiveSource` asks."""

    def ask(self, case: str, sketch: Sketch) -> int:
        """Asks for a tumor without waiting; returns a number for `answers`."""

    def answers(self, numbers: Sequence[int]) -> list[Drawn | Refusal]:
        """Waits for them."""

    def note_ring_failure(self) -> None:
        """Hears that a lesion file could not be written."""


@dataclass(frozen=True, eq=False)
class _Asked:
    """A tumor that is being drawn, or a reason why not; and whether the crop has to show it."""

    patch: Patch
    site: Site
    number: int | None
    steered: bool


@dataclass(frozen=True, eq=False)
class _Scene:
    """Tumors of a sample that were asked for, the look-alikes beside them, and why others were refused."""

    organ: Organ | None
    asked: Sequence[_Asked]
    look_alikes: Sequence[Placement]
    refused: list[str]


class LiveSource:
    """Places tumors, asks for their inside, and pastes what comes back.

    Places and shapes are those of `HandcraftedSource` for the same random numbers. Of several tumors one is chosen, on
    which the crop is steered, and those that this crop cannot reach are not asked for.

    Args:
        config: organs, distributions and curriculum.
        statistics: of the organs.
        views: what the model of each (organ, stage) sees.
        painter: usually the client of a server.
        rounded: whether sketches have HU in sixteenths, which halves them.
        ring: keeps the lesions for which the painter names a place; None: there is none.
    """

    def __init__(
        self,
        config: DiffTumorConfig,
        statistics: StatisticsStore,
        *,
        views: Mapping[tuple[str, str], NetworkView],
        painter: Painter,
        rounded: bool = False,
        ring: LesionRing | None = None,
    ) -> None:
        self._scenes, self._views, self._painter = Scenes(config, statistics), views, painter
        self._rounded, self._ring = rounded, ring
        self._least_contrast_to_noise = config.minimum_contrast_to_noise

    def begin(
        self,
        case: OverlayCase,
        rng: np.random.Generator,
        epoch: int = 0,
        *,
        patch_size: Sequence[int] | None = None,
    ) -> Callable[[], Outcome]:
        scene = self._drawn(case, rng, epoch, patch_size)
        return partial(self._finish, case, scene, again=partial(self._drawn, case, rng, epoch, patch_size))

    def _drawn(
        self, case: OverlayCase, rng: np.random.Generator, epoch: int, patch_size: Sequence[int] | None
    ) -> _Scene:
        """Draws a scene, and asks for its tumors."""
        organ, placed, look_alikes, refused = self._scenes.draw(case, rng, epoch)
        # Any tumor with the same chance: small ones are not crowded out by large ones.
        steered = int(rng.integers(len(placed))) if placed else 0
        boxes = [region_of(found.spec, case.shape, case.spacing_mm) for found in placed]
        asked = [
            self._ask(case, found, organ, steered=number == steered)
            for number, (found, box) in enumerate(zip(placed, boxes, strict=True))
            if patch_size is None or _reachable(box, boxes[steered], patch_size, case.shape)
        ]
        return _Scene(organ, asked, look_alikes, refused)

    def _ask(self, case: OverlayCase, placement: Placement, organ: Organ, *, steered: bool) -> _Asked:
        spec = as_diffusion(placement.spec)
        view = self._views[organ.name, stage_of(spec.size_class)]
        patch = patch_of(case, spec, organ, box=view.region(case, spec))
        site, number = site_of(patch, spec), None
        if site.mask.any():
            sketch = view.sketch(site, patch)
            number = self._painter.ask(case.identifier, sketch.rounded() if self._rounded else sketch)
        return _Asked(patch, site, number, steered)

    def _finish(self, case: OverlayCase, scene: _Scene, *, again: Callable[[], _Scene]) -> Outcome:
        """Adds what was asked for. If all that came is too faint, other scenes are asked for, and waited for."""
        outcome = Outcome(source="live")
        for attempt in range(_SCENES):
            scene = again() if attempt else scene
            if not self._added(case, scene, outcome):
                break
        return outcome

    def _added(self, case: OverlayCase, scene: _Scene, outcome: Outcome) -> bool:
        """Adds a scene's tumors to case and outcome; returns whether there are none because all are too faint."""
        outcome.refused += scene.refused
        start, faint = time.perf_counter(), 0
        answers = iter(self._painter.answers([one.number for one in scene.asked if one.number is not None]))
        outcome.waited_ms += (time.perf_counter() - start) * 1e3
        for one in scene.asked:
            found = Refusal("nothing of the tumor has room") if one.number is None else next(answers)
            if isinstance(found, Refusal):
                outcome.refused.append(f"live: {found.reason}")
                continue
            tumor = one.site.finished(found.hu)
            check_reach(tumor, PatchVolume(one.patch))
            if (reason := too_faint(tumor, self._least_contrast_to_noise)) is not None:
                faint += 1
                outcome.refused.append(f"live: {reason}")
                continue
            self._keep(case.identifier, found.place, one.patch, tumor)
            tumor = _onto(case, one.patch, tumor)
            case.paste(tumor)
            outcome.tumors.append(tumor)
            if one.steered:
                outcome.steered = tumor
        if outcome.tumors:
            organ = scene.organ
            outcome.tumor_label = organ.tumor_label
            outcome.look_alikes = [paste_handcrafted(case, placement, organ) for placement in scene.look_alikes]
        return bool(faint) and not outcome.tumors

    def _keep(self, case: str, place: int | None, patch: Patch, tumor: RenderedTumor) -> None:
        if self._ring is None or place is None:
            return
        try:
            self._ring.write(case, place, patch, tumor)
        except OSError:  # a full disk, for example: training does not need the ring
            self._painter.note_ring_failure()


def _reachable(box: Box, steered: Box, patch_size: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether a crop around a voxel of one box can show some of another.

    nnU-Net centres its crop on the voxel, and moves it as far as the scan's border, or what it adds there, demands.
    """
    for part, around, size, voxels in zip(box, steered, patch_size, shape, strict=True):
        first = min(around.start - size // 2, voxels - size)
        last = max(around.stop - 1 - size // 2, 0) + size
        if part.stop <= first or part.start >= last:
            return False
    return True


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

    def __init__(self, open_renderer: Callable[[], Any]) -> None:
        self._open, self._renderer = open_renderer, None
        self._asked: dict[int, Sketch] = {}
        self._numbers = 0

    def ask(self, case: str, sketch: Sketch) -> int:
        self._numbers += 1
        self._asked[self._numbers] = sketch
        return self._numbers

    def answers(self, numbers: Sequence[int]) -> list[Drawn | Refusal]:
        if not numbers:
            return []
        self._renderer = self._renderer or self._open()
        return [Drawn(self._renderer.draw([self._asked.pop(number)])[0]) for number in numbers]

    def note_ring_failure(self) -> None:
        """There is no ring without a server."""
