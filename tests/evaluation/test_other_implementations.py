"""Lesions, precision and AUC against what panoptica and picai_eval say of the same cases (recorded/record.py)."""

import json
from pathlib import Path

import numpy as np
import pytest
from recorded.cases_of_lesions import cases_of_lesions

from nnunet_difftumor.evaluation.figures.curves import Ranked, area_under_roc, average_precision, sensitivity_at
from nnunet_difftumor.evaluation.measures.case import CaseResult, measure
from nnunet_difftumor.evaluation.measures.matching import MatchingRule

RECORDED = Path(__file__).with_name("recorded")


def measured(rule: MatchingRule) -> list[CaseResult]:
    return [
        measure(truth, found > 0, spacing_mm=(1.0, 1.0, 1.0), nsd_tolerance_mm=1.0, rule=rule, probability=found)
        for truth, found in cases_of_lesions()
    ]


@pytest.mark.parametrize("min_iou", [0.1, 0.5])
def test_pairs_of_lesions_are_those_of_panoptica(min_iou):
    recorded = json.loads((RECORDED / "panoptica.json").read_text())["cases"][str(min_iou)]
    assert sum(one["true"] for one in recorded) > 10 and sum(one["missed"] for one in recorded) > 10
    for case, theirs in zip(measured(MatchingRule("one-to-one", min_iou)), recorded, strict=True):
        of_pairs = [tumor.dsc for tumor in case.tumors if tumor.matched]
        assert (len(of_pairs), len(case.false_positives)) == (theirs["true"], theirs["false"])
        assert len(case.tumors) - len(of_pairs) == theirs["missed"]
        assert (np.mean(of_pairs) if of_pairs else None) == pytest.approx(theirs["dsc_of_pairs"])
        assert theirs["dsc"] is None or case.dsc == pytest.approx(theirs["dsc"])


def test_ranked_lesions_are_those_of_picai_eval():
    theirs = json.loads((RECORDED / "picai_eval.json").read_text())
    cases = measured(MatchingRule("one-to-one", 0.1))
    ranked, weights = Ranked.of_cases(cases, lambda lesion: True), np.ones((1, len(cases)))
    assert average_precision(ranked, weights)[0] == pytest.approx(theirs["average_precision"])
    for rate, sensitivity in theirs["sensitivity_at"].items():
        assert sensitivity_at(ranked, float(rate), weights)[0] == pytest.approx(sensitivity)
    scores, ill = np.array([case.score for case in cases]), np.array([bool(case.tumors) for case in cases])
    assert area_under_roc(scores, ill, weights)[0] == pytest.approx(theirs["auc"])
