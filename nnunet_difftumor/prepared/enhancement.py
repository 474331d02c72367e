"""Scans without contrast agent, in which tumors of the preset `realistic` are hard to see."""

from collections.abc import Collection

from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.prepared.statistics import StatisticsStore
from nnunet_difftumor.synthesis.look.contrast import LEAST_CONTRAST_HU
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.look.realistic import RealisticPreset, kind_of

# Tumors are hard to see where the most frequent ones have less than this times the least contrast.
_HARDLY_MORE = 2


def unenhanced_notes(config: DiffTumorConfig, statistics: StatisticsStore, bases: Collection[str]) -> list[str]:
    """A sentence for each organ that looks unenhanced in some bases, if contrast is drawn from its enhancement.

    It looks so where the usual tumor is less than 16 HU darker: liver below 64 HU, pancreas below 49, kidney below 60.

    Args:
        config: settings of the dataset.
        statistics: of its organs.
        bases: cases into which tumors are put.
    """
    follows_enhancement = isinstance(PRESETS[config.preset], RealisticPreset) and config.contrast_hu is None
    if config.source != "handcrafted" or not follows_enhancement:
        return []
    notes = []
    for organ in config.organs:
        contrast = kind_of(organ.name).contrast
        known = statistics.cases(organ.name)
        organ_hu = [statistics.parenchyma_hu(case, organ.name) for case in bases if case in known]
        unenhanced = [hu for hu in organ_hu if contrast.usual_hu(hu) < _HARDLY_MORE * LEAST_CONTRAST_HU]
        if unenhanced:
            darker = [max(contrast.usual_hu(hu), LEAST_CONTRAST_HU) for hu in unenhanced]
            notes.append(
                f"{len(unenhanced)} of {len(organ_hu)} bases look unenhanced ({organ.name} {_range(unenhanced)} HU): "
                f"most tumors there are only about {_range(darker)} HU darker, hard to see; contrast_hu in "
                "difftumor.json makes them darker in all scans"
            )
    return notes


def _range(values: Collection[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"
