"""Where the tumors of a training sample come from: rendered in the loader, or read from a bank of lesion files.

Those that a synthesis server draws are in `live.source`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.prepared.overlay_case import OverlayCase
from nnunet_difftumor.prepared.statistics import StatisticsStore
from nnunet_difftumor.synthesis.handcrafted import HandcraftedRenderer
from nnunet_difftumor.synthesis.lesion_file import SUFFIX, read_lesion
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.patch import RenderedTumor, tissue_around
from nnunet_difftumor.synthesis.placement.sampler import Placement, TumorSampler
from nnunet_difftumor.synthesis.scene import patch_of, rendered_in
from nnunet_difftumor.synthesis.visibility import check_reach, too_faint

# A scene in which nothing found room, or all that did is too faint, is drawn again, with other sizes and in another
# organ if there is one.
_SCENES = 3


@dataclass
class Outcome:
    """What became of one sample.

    Attributes:
        tumors: rendered and pasted into the case.
        look_alikes: benign lesions, pasted without a label.
        tumor_label: of the organ that they are in; 0 if there are none.
        refused: reasons why tumors were not made, "size class: reason", "bank: reason" or "live: reason".
        source: what made them, as in `DiffTumorConfig.source`.
        waited_ms: how long the loader stood still for the synthesis server.
        steered: the one of `tumors` onto which the crop is steered; None: any.
    """

    tumors: list[RenderedTumor] = field(default_factory=list)
    look_alikes: list[RenderedTumor] = field(default_factory=list)
    tumor_label: int = 0
    refused: list[str] = field(default_factory=list)
    source: str = "handcrafted"
    waited_ms: float = 0.0
    steered: RenderedTumor | None = None


class TumorSource(Protocol):
    """Adds tumors to cases. A tumor that cannot be made is no error: the outcome says so."""

    def begin(
        self, case: OverlayCase, rng: np.random.Generator, epoch: int = 0, *, patch_size: Sequence[int] | None = None
    ) -> Callable[[], Outcome]:
        """Begins whatever another process can do meanwhile, and returns what adds the tumors to the case.

        Args:
            case: is not changed before the returned function is called.
            rng: source of everything random.
            epoch: of the training, for the curriculum of sizes.
            patch_size: voxels (z, y, x) of the crop that will be taken around one of the tumors; None: all of the case
                may be looked at.
        """


class Scenes:
    """Draws the tumors of a sample, and a benign look-alike now and then, and finds them places.

    Args:
        config: organs, distributions and curriculum.
        statistics: of the organs.
    """

    def __init__(self, config: DiffTumorConfig, statistics: StatisticsStore) -> None:
        self._config, self._statistics = config, statistics
        self._cases = {organ.name: frozenset(statistics.cases(organ.name)) for organ in config.organs}

    def draw(
        self, case: OverlayCase, rng: np.random.Generator, epoch: int
    ) -> tuple[Organ | None, list[Placement], list[Placement], list[str]]:
        """The organ, tumors and look-alikes in it, and reasons for those that were refused; no organ without tumors."""
        config = self._config
        organs = [organ for organ in config.organs if case.identifier in self._cases[organ.name]]
        weights = config.size_weights_in(epoch)
        refusals: list[str] = []
        for _ in range(_SCENES if organs else 0):
            organ = organs[int(rng.integers(len(organs)))]
            sampler = TumorSampler(
                organ,
                config.preset,
                contrast_hu=config.contrast_hu,
                weights=weights,
                clear_of_vessels=config.clear_of_vessels,
            )
            statistics = self._statistics.load(case.identifier, organ.name)
            placed, refused = sampler.sample_scene(case, statistics, rng)
            refusals += [f"{miss.size_class}: {miss.reason}" for miss in refused]
            if placed:
                look_alikes = []
                if rng.random() < config.look_alike_probability:
                    found = sampler.sample_look_alike(case, statistics, rng, occupied=placed)
                    look_alikes += [found] if isinstance(found, Placement) else []
                return organ, placed, look_alikes, refusals
        return None, [], [], refusals


class HandcraftedSource:
    """Draws, places and renders hand-crafted tumors in the loader's own process."""

    def __init__(self, config: DiffTumorConfig, statistics: StatisticsStore) -> None:
        self._scenes = Scenes(config, statistics)
        self._least_contrast_to_noise = config.minimum_contrast_to_noise

    def begin(
        self, case: OverlayCase, rng: np.random.Generator, epoch: int = 0, *, patch_size: Sequence[int] | None = None
    ) -> Callable[[], Outcome]:
        return partial(self.add_tumors, case, rng, epoch)

    def add_tumors(self, case: OverlayCase, rng: np.random.Generator, epoch: int = 0) -> Outcome:
        outcome = Outcome()
        for _ in range(_SCENES):
            organ, placed, look_alikes, refused = self._scenes.draw(case, rng, epoch)
            outcome.refused += refused
            for placement in placed:
                tumor = rendered_in(case, placement.spec, organ, renderer=HandcraftedRenderer())
                if (reason := too_faint(tumor, self._least_contrast_to_noise)) is not None:
                    outcome.refused.append(f"{tumor.spec.size_class}: {reason}")
                    continue
                case.paste(tumor)
                outcome.tumors.append(tumor)
            if outcome.tumors:
                outcome.tumor_label = organ.tumor_label
                outcome.look_alikes = [paste_handcrafted(case, placement, organ) for placement in look_alikes]
            if outcome.tumors or not placed:
                break
        return outcome


def paste_handcrafted(case: OverlayCase, placement: Placement, organ: Organ) -> RenderedTumor:
    """Renders a hand-crafted tumor into a case."""
    tumor = rendered_in(case, placement.spec, organ, renderer=HandcraftedRenderer())
    case.paste(tumor)
    return tumor


class BankSource:
    """Reads lesion files: `FOLDER/CASE/ANYTHING.lesion.npz`, rendered beforehand or by another process.

    Files may come and go while training runs. A lesion that is damaged, or whose mask is not inside the organ of the
    case, or has less contrast than is asked for, is refused and counted.
    """

    def __init__(self, config: DiffTumorConfig) -> None:
        self.folder = Path(config.bank_folder)
        self._least_contrast_to_noise = config.minimum_contrast_to_noise
        self.organs: dict[str, Organ] = {organ.name: organ for organ in config.organs}
        if not self.folder.is_dir():
            raise InputError(f"bank_folder {self.folder}: no such folder; make the lesions first, or correct the path")

    def begin(
        self, case: OverlayCase, rng: np.random.Generator, epoch: int = 0, *, patch_size: Sequence[int] | None = None
    ) -> Callable[[], Outcome]:
        return partial(self.add_tumors, case, rng)

    def add_tumors(self, case: OverlayCase, rng: np.random.Generator) -> Outcome:
        outcome = Outcome(source="bank")
        files = sorted((self.folder / case.identifier).glob(f"[!.]*{SUFFIX}"))
        if not files:
            outcome.refused.append("bank: no lesion file for this case")
        for number in rng.permutation(len(files))[:_SCENES]:
            try:
                tumor = read_lesion(files[number], case, same_scan=True)
                organ = self.organs.get(tumor.spec.organ)
                if organ is None:
                    raise InputError(f"organ {tumor.spec.organ} is not in the settings")
                inside = organ.mask(case.labels(tumor.box))[tumor.mask]
                # Only growth into fat and a bulging organ take a mask beyond the organ's old border.
                beyond = tumor.spec.exophytic or tumor.spec.mass_effect > 0
                if not (inside.any() if beyond else inside.all()):
                    raise InputError("the mask is not in the organ of this case")
                check_reach(tumor, case)
                if tumor.around is None:  # a file of an earlier version
                    before = patch_of(case, tumor.spec, organ, box=tumor.box)
                    around = tissue_around(before, tumor.mask, wall_mm=tumor.spec.wall_mm)
                    tumor = replace(tumor, around=around)
                if (reason := too_faint(tumor, self._least_contrast_to_noise)) is not None:
                    raise InputError(reason)
            except InputError as error:
                outcome.refused.append(f"bank: {files[number].name}: {error}")
                continue
            case.paste(tumor)
            outcome.tumors.append(tumor)
            outcome.tumor_label = organ.tumor_label
            break
        return outcome


class MixedSource:
    """Takes one of several sources for each sample.

    Args:
        sources: with their shares.
    """

    def __init__(self, sources: Mapping[TumorSource, float]) -> None:
        self._sources, self._shares = list(sources), list(sources.values())

    def begin(
        self, case: OverlayCase, rng: np.random.Generator, epoch: int = 0, *, patch_size: Sequence[int] | None = None
    ) -> Callable[[], Outcome]:
        source = self._sources[int(rng.choice(len(self._sources), p=self._shares))]
        return source.begin(case, rng, epoch, patch_size=patch_size)


def make_source(
    config: DiffTumorConfig, statistics: StatisticsStore, *, live: Callable[[], TumorSource] | None = None
) -> TumorSource:
    """The source that the settings name.

    Args:
        config: the settings.
        statistics: of the dataset's organs.
        live: makes the source of live tumors; called only where the settings ask for them.
    """
    if config.source == "handcrafted" or config.handcrafted_share == 1:
        return HandcraftedSource(config, statistics)
    other = BankSource(config) if config.source == "bank" else live()
    if config.handcrafted_share == 0:
        return other
    share = config.handcrafted_share
    return MixedSource({HandcraftedSource(config, statistics): share, other: 1 - share})
