"""Where the tumors of a training sample come from: rendered here and now, or read from a bank of lesion files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.pipeline.case import OverlayCase
from nnunet_difftumor.pipeline.config import DiffTumorConfig
from nnunet_difftumor.pipeline.statistics import StatisticsStore
from nnunet_difftumor.synthesis.handcrafted import HandcraftedRenderer
from nnunet_difftumor.synthesis.lesion import SUFFIX, read_lesion
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.patch import RenderedTumor
from nnunet_difftumor.synthesis.sampler import Placement, TumorSampler
from nnunet_difftumor.synthesis.scene import patch_of

# A scene in which nothing found room is drawn again, with other sizes and in another organ if there is one.
_SCENES = 3


@dataclass
class Outcome:
    """What became of one sample.

    Attributes:
        tumors: rendered and pasted into the case.
        look_alikes: benign lesions, pasted without a label.
        tumor_label: of the organ that they are in; 0 if there are none.
        refused: reasons why tumors were not made, "size class: reason" or "bank: reason".
    """

    tumors: list[RenderedTumor] = field(default_factory=list)
    look_alikes: list[RenderedTumor] = field(default_factory=list)
    tumor_label: int = 0
    refused: list[str] = field(default_factory=list)


class TumorSource(Protocol):
    """Adds tumors to a case. Never raises for a tumor that cannot be made: it says so in the outcome."""

    def add_tumors(self, case: OverlayCase, rng: np.random.Generator) -> Outcome: ...


class HandcraftedSource:
    """Draws, places and renders hand-crafted tumors in the loader's own process."""

    def __init__(self, config: DiffTumorConfig, statistics: StatisticsStore) -> None:
        self.samplers = [
            TumorSampler(organ, config.preset, contrast_hu=config.contrast_hu, weights=config.size_weights)
            for organ in config.organs
        ]
        self.statistics = statistics
        self.look_alike_probability = config.look_alike_probability
        self.cases = {organ.name: frozenset(statistics.cases(organ.name)) for organ in config.organs}

    def add_tumors(self, case: OverlayCase, rng: np.random.Generator) -> Outcome:
        outcome = Outcome()
        samplers = [sampler for sampler in self.samplers if case.identifier in self.cases[sampler.organ.name]]
        for _ in range(_SCENES if samplers else 0):
            sampler = samplers[int(rng.integers(len(samplers)))]
            statistics = self.statistics.load(case.identifier, sampler.organ.name)
            placed, refused = sampler.sample_scene(case, statistics, rng)
            outcome.refused += [f"{miss.size_class}: {miss.reason}" for miss in refused]
            for placement in placed:
                outcome.tumors.append(_paste(case, placement, sampler.organ))
            if outcome.tumors:
                outcome.tumor_label = sampler.organ.tumor_label
                if rng.random() < self.look_alike_probability:
                    found = sampler.sample_look_alike(case, statistics, rng, occupied=placed)
                    if isinstance(found, Placement):
                        outcome.look_alikes.append(_paste(case, found, sampler.organ))
                break
        return outcome


def _paste(case: OverlayCase, placement: Placement, organ: Organ) -> RenderedTumor:
    tumor = HandcraftedRenderer().render([patch_of(case, placement.spec, organ)], [placement.spec])[0]
    case.paste(tumor)
    return tumor


class BankSource:
    """Reads lesion files: `FOLDER/CASE/ANYTHING.lesion.npz`, rendered beforehand or by another process.

    Files may come and go while training runs. A lesion that is damaged, or whose mask is not inside the organ of the
    case, is refused and counted.
    """

    def __init__(self, config: DiffTumorConfig) -> None:
        self.folder = Path(config.bank_folder)
        self.organs: dict[str, Organ] = {organ.name: organ for organ in config.organs}
        if not self.folder.is_dir():
            raise InputError(f"bank_folder {self.folder}: no such folder; make the lesions first, or correct the path")

    def add_tumors(self, case: OverlayCase, rng: np.random.Generator) -> Outcome:
        outcome = Outcome()
        files = sorted((self.folder / case.identifier).glob(f"[!.]*{SUFFIX}"))
        if not files:
            outcome.refused.append("bank: no lesion file for this case")
        for number in rng.permutation(len(files))[:_SCENES]:
            try:
                tumor = read_lesion(files[number], case)
                organ = self.organs.get(tumor.spec.organ)
                if organ is None:
                    raise InputError(f"organ {tumor.spec.organ} is not in the settings")
                inside = organ.mask(case.labels(tumor.box))[tumor.mask]
                # Only growth into fat and a bulging organ take a mask beyond the organ's old border.
                beyond = tumor.spec.exophytic or tumor.spec.mass_effect > 0
                if not (inside.any() if beyond else inside.all()):
                    raise InputError("the mask is not in the organ of this case")
            except InputError as error:
                outcome.refused.append(f"bank: {files[number].name}: {error}")
                continue
            case.paste(tumor)
            outcome.tumors.append(tumor)
            outcome.tumor_label = organ.tumor_label
            break
        return outcome


def make_source(config: DiffTumorConfig, statistics: StatisticsStore) -> TumorSource:
    """The source that the settings name."""
    return BankSource(config) if config.source == "bank" else HandcraftedSource(config, statistics)
