"""Writes what panoptica 2.1.7 and picai_eval 1.4.13 say of the cases into panoptica.json and picai_eval.json.

Both want other versions of numpy and cc3d than nnU-Net: run it in an environment of their own,
`pip install panoptica==2.1.7 picai_eval==1.4.13`.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from cases_of_lesions import cases_of_lesions
from panoptica import (
    CCABackend,
    ConnectedComponentsInstanceApproximator,
    InputType,
    MaxBipartiteMatching,
    Metric,
    Panoptica_Evaluator,
)
from picai_eval import evaluate

FOLDER = Path(__file__).parent
MIN_IOU = (0.1, 0.5)


def main() -> None:
    cases = cases_of_lesions()
    panoptica = {"version": version("panoptica"), "cases": {str(iou): instances(cases, iou) for iou in MIN_IOU}}
    (FOLDER / "panoptica.json").write_text(json.dumps(panoptica) + "\n")
    found = evaluate(
        [c for _, c in cases], [t.astype(np.int32) for t, _ in cases], min_overlap=0.1, num_parallel_calls=1
    )
    picai = {
        "version": version("picai_eval"),
        "average_precision": float(found.AP),
        "auc": float(found.auroc),
        "sensitivity_at": {str(rate): float(found.lesion_TPR_at_FPR(rate)) for rate in (0.25, 0.5, 1.0)},
    }
    (FOLDER / "picai_eval.json").write_text(json.dumps(picai, indent=1) + "\n")


def instances(cases: list, min_iou: float) -> list[dict]:
    evaluator = Panoptica_Evaluator(
        expected_input=InputType.SEMANTIC,
        instance_approximator=ConnectedComponentsInstanceApproximator(cca_backend=CCABackend.cc3d),
        instance_matcher=MaxBipartiteMatching(matching_metric=Metric.IOU, matching_threshold=min_iou),
        instance_metrics=[Metric.DSC, Metric.IOU],
        global_metrics=[Metric.DSC],
        verbose=False,
    )
    found = []
    for truth, confidence in cases:
        result = evaluator.evaluate((confidence > 0).astype(np.uint8), truth.astype(np.uint8))["ungrouped"]
        found.append(
            {
                "true": int(result.tp),
                "false": int(result.fp),
                "missed": int(result.fn),
                "dsc_of_pairs": float(result.sq_dsc) if result.tp else None,
                "dsc": float(result.global_bin_dsc) if truth.any() else None,
            }
        )
    return found


if __name__ == "__main__":
    main()
