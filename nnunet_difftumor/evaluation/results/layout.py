"""The layout of a case in the JSON of `evaluate`, read back for comparisons (docs/evaluate.md)."""

from collections.abc import Mapping
from typing import Any

from nnunet_difftumor.evaluation.measures.case import CaseResult, Lesion

# 1: without a number, before HD95, volumes, matching rules, probabilities and groups.
SCHEMA_VERSION = 2


def case_to_json(case: CaseResult, *, patient: str | None = None) -> dict[str, Any]:
    """A case for strict JSON.

    Args:
        case: its figures.
        patient: whose it is, if that is stated.
    """
    content: dict[str, Any] = {
        "dsc": case.dsc,
        "nsd": case.nsd,
        "hd95_mm": case.hd95_mm,
        "truth_ml": round(case.truth_ml, 6),
        "predicted_ml": round(case.predicted_ml, 6),
        "tumors": [
            {
                **_lesion(tumor),
                "detected": tumor.matched,
                "dsc": tumor.dsc,
                **({} if case.score is None else {"confidence": tumor.confidence}),
            }
            for tumor in case.tumors
        ],
        "findings": len(case.findings),
        "false_positives": [_lesion(finding) for finding in case.false_positives],
    }
    if case.score is not None:
        content["score"] = case.score
        content["false_candidates"] = [
            {**_lesion(candidate), "confidence": candidate.confidence} for candidate in case.false_candidates or ()
        ]
    return content | ({} if patient is None else {"patient": patient})


def case_from_json(content: Mapping[str, Any]) -> CaseResult:
    """The opposite of `case_to_json`; of findings that match, only their number is known.

    Raises:
        KeyError, TypeError, ValueError: if a part is missing or of another kind.
    """
    scored = "score" in content
    false_positives = [Lesion(float(item["diameter_mm"]), False) for item in content["false_positives"]]
    right = int(content["findings"]) - len(false_positives)
    return CaseResult(
        *(None if content[key] is None else float(content[key]) for key in ("dsc", "nsd", "hd95_mm")),
        float(content["truth_ml"]),
        float(content["predicted_ml"]),
        tuple(
            Lesion(
                float(item["diameter_mm"]),
                bool(item["detected"]),
                float(item["dsc"]),
                None if item.get("confidence") is None else float(item["confidence"]),
            )
            for item in content["tumors"]
        ),
        (*(Lesion(0.0, True) for _ in range(right)), *false_positives),
        tuple(
            Lesion(float(item["diameter_mm"]), False, confidence=float(item["confidence"]))
            for item in content["false_candidates"]
        )
        if scored
        else None,
        float(content["score"]) if scored else None,
    )


def _lesion(lesion: Lesion) -> dict[str, Any]:
    return {"diameter_mm": round(lesion.diameter_mm, 3), "band": lesion.band}
