"""Medical Segmentation Decathlon: its five CT tasks with tumors.

Sources: Antonelli et al., Nature Communications 13 (2022) 4128: Dice and normalized surface distance (Nikolov et al.,
arXiv:1809.04430; DeepMind's surface-distance) of every label. The challenge's own evaluation is in no public repository
that we found. Its tolerances differ from task to task; whoever evaluates states the one to compare with.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.challenges.challenge import Challenge, mean
from nnunet_difftumor.evaluation.measures.masks import box_of, mask_figures

# The names that the tasks' dataset.json give their labels, the tumors last.
TASKS = {
    "msd-liver": ("Task03_Liver", ("liver", "cancer")),
    "msd-lung": ("Task06_Lung", ("cancer",)),
    "msd-pancreas": ("Task07_Pancreas", ("pancreas", "cancer")),
    "msd-hepatic-vessel": ("Task08_HepaticVessel", ("vessel", "tumour")),
    "msd-colon": ("Task10_Colon", ("colon_cancer",)),
}


def msd_task(name: str, tolerance_mm: float | None) -> Challenge:
    """A task of the decathlon.

    Args:
        name: one of `TASKS`.
        tolerance_mm: of the normalized surface distance.

    Raises:
        InputError: without a tolerance.
    """
    task, names = TASKS[name]
    if tolerance_mm is None:
        raise InputError(
            f"`challenge` {name}: needs `challenge_tolerance_mm`, the tolerance of the NSD; state that of the table "
            "that you compare with (the challenge's own are in Antonelli et al., Nature Communications 2022)"
        )
    labels = dict(enumerate(names, start=1))
    return Challenge(
        name=name,
        title=f"MSD {task}",
        source="Antonelli et al., Nature Communications 13 (2022) 4128",
        labels=labels,
        tumor=len(names),
        definitions={
            key: text
            for label in names
            for key, text in (
                (f"{label}_dice", "mean Dice of cases with the label in truth or prediction"),
                (f"{label}_nsd", f"mean normalized surface distance at {tolerance_mm:g} mm, of the same cases"),
            )
        },
        of_case=partial(_of_case, labels=labels, tolerance_mm=tolerance_mm),
        over_cases=partial(_over_cases, labels=labels),
        remark="Each label by itself: an organ is scored without its tumors. A label in neither "
        "truth nor prediction is left out, one in only one of them scores 0; whether the challenge does so is unknown.",
        settings={"nsd_tolerance_mm": tolerance_mm},
    )


def _of_case(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float],
    *,
    labels: Mapping[int, str],
    tolerance_mm: float,
) -> dict[str, Any]:
    box = box_of((truth > 0) | (prediction > 0))
    found = {}
    for value, name in labels.items():
        masks = truth[box] == value, prediction[box] == value
        figures = mask_figures(*masks, spacing_mm=spacing_mm, nsd_tolerance_mm=tolerance_mm)
        found[name] = {"dice": figures.dsc, "nsd": figures.nsd}
    return found


def _over_cases(cases: Sequence[Mapping[str, Any]], *, labels: Mapping[int, str]) -> dict[str, float | None]:
    return {
        f"{name}_{key}": mean([case[name][key] for case in cases])
        for name in labels.values()
        for key in ("dice", "nsd")
    }
