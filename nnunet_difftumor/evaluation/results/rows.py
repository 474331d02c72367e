"""The figures of a summary in the order of every table, with their names."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nnunet_difftumor.evaluation.measures.case import BANDS_MM

SIZES = {"all": "all", "early": "early (< 20 mm)"} | {
    band: f"under {high:g} mm"
    if low == 0
    else f"{band} (>= {low:g} mm)"
    if high == float("inf")
    else f"{band} ({low:g} to {high:g} mm)"
    for band, (low, high) in BANDS_MM.items()
}


@dataclass(frozen=True)
class Row:
    """A figure.

    Attributes:
        name: in words.
        estimate: value, low, high and count.
        of: what is counted.
        percent: whether it is a share, which the papers print in percent.
    """

    name: str
    estimate: Mapping[str, Any]
    of: str
    percent: bool = True

    @property
    def counted(self) -> str:
        """How many are counted, in words."""
        return counted(self.estimate["count"], self.of)


def rows(summary: Mapping[str, Any], *, nsd_tolerance_mm: float) -> Iterator[Row]:
    """All figures of a summary.

    Args:
        summary: of `summarize`.
        nsd_tolerance_mm: of the settings.
    """
    ill = "cases with tumors"
    yield Row("DSC", summary["dsc"], ill)
    yield Row(f"NSD at {nsd_tolerance_mm:g} mm", summary["nsd"], ill)
    yield Row("HD95 in mm", summary["hd95_mm"], "cases with both masks", percent=False)
    yield Row("volume error", summary["volume_error"], ill)
    yield Row("volume bias in ml", summary["volume_bias_ml"], "cases", percent=False)
    for size, text in SIZES.items():
        yield Row(f"tumors detected, {text}", summary["tumor_sensitivity"][size], "tumors")
    yield Row("lesion-wise DSC", summary["lesion_dsc"]["all"], "tumors")
    yield Row("lesion-wise precision", summary["lesion_precision"], "findings")
    yield Row("lesion-wise F1", summary["lesion_f1"], "tumors")
    for size, text in SIZES.items():
        yield Row(
            f"false positives per scan, {text}", summary["false_positives_per_scan"][size], "cases", percent=False
        )
    yield Row("patient-level sensitivity", summary["patient_sensitivity"], ill)
    yield Row("patient-level specificity", summary["patient_specificity"], "cases without tumors")
    if "patient_auc" not in summary:
        return
    yield Row("patient-level AUC", summary["patient_auc"], "cases")
    yield Row("average precision", summary["average_precision"], "tumors")
    yield Row("FROC score", summary["froc"], "tumors")
    for size, rates in summary["froc_sensitivity"].items():
        for rate, estimate in rates.items():
            yield Row(f"detected at {rate} false positives per scan, {SIZES[size]}", estimate, "tumors")


def counted(number: int, what: str) -> str:
    """A number with its noun, such as "1 case with tumors".

    Args:
        number: how many.
        what: begins with a plural that ends in s.
    """
    plural, _, rest = what.partition(" ")
    return " ".join(filter(None, (str(number), plural.removesuffix("s") if number == 1 else plural, rest)))


def counts(found: Mapping[str, Any]) -> tuple[int, int]:
    """How many cases of a tumor label have tumors, and how many have none."""
    cases = found["cases"].values()
    ill = sum(bool(case["tumors"]) for case in cases)
    return ill, len(cases) - ill
