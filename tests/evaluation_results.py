"""Results of `evaluate` made up case by case, without any label map."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_difftumor.evaluation.figures.summary import summarize
from nnunet_difftumor.evaluation.measures.case import CaseResult, Lesion
from nnunet_difftumor.evaluation.results.layout import SCHEMA_VERSION, case_to_json
from nnunet_difftumor.files import write_json

SETTINGS = {
    "nsd_tolerance_mm": 2.0,
    "match": {"rule": "any-overlap", "min_iou": 0.0, "meaning": "any overlap"},
    "size_bands_mm": {},
    "organ_labels": [],
    "ignore_label": None,
    "missing": "refuse",
    "counted_as_empty": [],
    "candidates": None,
}


def scan(
    tumors: Sequence[tuple[float, bool]] = (),
    *,
    false: Sequence[float] = (),
    dsc: float = 0.5,
    confidences: Sequence[float | None] | None = None,
    false_confidences: Sequence[float] = (),
) -> CaseResult:
    """A case.

    Args:
        tumors: diameter in mm, and whether it is detected.
        false: diameters in mm of false positives.
        dsc: and NSD, of a case with tumors.
        confidences, false_confidences: of its tumors and of false candidates; None: without probabilities.
    """
    scored = confidences is not None
    confidences = confidences or [None] * len(tumors)
    true = tuple(Lesion(d, hit, dsc if hit else 0.0, c) for (d, hit), c in zip(tumors, confidences, strict=True))
    findings = tuple(t for t in true if t.matched) + tuple(Lesion(d, False) for d in false)
    value = dsc if tumors else (0.0 if findings else None)
    candidates = tuple(Lesion(9.0, False, confidence=c) for c in false_confidences)
    score = max([c for c in (*confidences, *false_confidences) if c is not None], default=0.0)
    return CaseResult(
        value,
        value,
        None,
        sum(d for d, _ in tumors),
        sum(d for d, hit in tumors if hit),
        true,
        findings,
        candidates if scored else None,
        score if scored else None,
    )


def write_result(
    path: Path,
    cases: Mapping[str, CaseResult],
    *,
    patients: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    tumor: str = "tumor",
) -> Path:
    """Writes what `evaluate` would have written."""
    patients = patients or {}
    content = {
        "schema_version": SCHEMA_VERSION,
        "version": "0",
        "ground_truth": "labels",
        "prediction": str(path.with_suffix("")),
        "settings": SETTINGS | dict(settings or {}),
        "tumors": {
            tumor: {
                "label_values": [2],
                "summary": summarize(list(cases.values())),
                "groups": {},
                "cases": {name: case_to_json(case, patient=patients.get(name)) for name, case in cases.items()},
            }
        },
    }
    write_json(path, content)
    return path
