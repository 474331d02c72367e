"""The figures of an experiment. Each is a sum over cases divided by a number that the truth alone decides.

So a figure of several trainings on the same cases is the mean of theirs, also within every resample.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_difftumor.evaluation.figures.summary import SIZES
from nnunet_difftumor.evaluation.measures.case import CaseResult, Lesion


@dataclass(frozen=True)
class Figure:
    """One of them.

    Attributes:
        title: for tables.
        unit: what is counted below: cases or tumors.
        above: what is summed up of a case.
        below: what it is divided by; the truth of the case decides.
        averaged: whether several scans of a patient are averaged in tests, instead of summed up.
        tested: whether it is tested, and not shown with an interval alone.
    """

    title: str
    unit: str
    above: Callable[[CaseResult], float]
    below: Callable[[CaseResult], float]
    averaged: bool = False
    tested: bool = True

    def sums(self, cases: Sequence[CaseResult]) -> tuple[np.ndarray, np.ndarray]:
        """Above and below, of each case."""
        below = np.array([self.below(case) for case in cases], np.float64)
        return np.array([self.above(case) for case in cases], np.float64) * (below > 0), below


def _ill(case: CaseResult) -> float:
    return float(bool(case.tumors))


def _well(case: CaseResult) -> float:
    return float(not case.tumors)


def _detected(title: str, fits: Callable[[Lesion], bool], *, tested: bool) -> Figure:
    return Figure(
        title,
        "tumors",
        lambda case: sum(tumor.matched for tumor in case.tumors if fits(tumor)),
        lambda case: sum(map(fits, case.tumors)),
        tested=tested,
    )


def _false(title: str, fits: Callable[[Lesion], bool], *, tested: bool) -> Figure:
    return Figure(
        title,
        "cases",
        lambda case: sum(map(fits, case.false_positives)),
        lambda case: 1.0,
        averaged=True,
        tested=tested,
    )


_BANDS = {name: fits for name, fits in SIZES.items() if name not in ("all", "early")}
FIGURES: Mapping[str, Figure] = {
    "dsc": Figure("DSC", "cases", lambda case: case.dsc or 0.0, _ill, averaged=True),
    "nsd": Figure("NSD", "cases", lambda case: case.nsd or 0.0, _ill, averaged=True),
    "detected": _detected("tumors detected", SIZES["all"], tested=True),
    "detected_early": _detected("early tumors detected (< 20 mm)", SIZES["early"], tested=True),
    **{
        f"detected_{band}": _detected(f"{band.replace('_', ' ')} tumors detected", fits, tested=False)
        for band, fits in _BANDS.items()
    },
    "false_positives_per_scan": _false("false positives per scan", SIZES["all"], tested=True),
    **{
        f"false_positives_{band}": _false(f"{band.replace('_', ' ')} false positives per scan", fits, tested=False)
        for band, fits in _BANDS.items()
    },
    "patient_sensitivity": Figure("patient-level sensitivity", "cases", lambda case: float(bool(case.findings)), _ill),
    "patient_specificity": Figure("patient-level specificity", "cases", lambda case: float(not case.findings), _well),
}
