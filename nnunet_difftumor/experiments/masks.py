"""Whether a placebo arm was trained with the masks of the arm that it is the control of: by hash, sample by sample."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from nnunet_difftumor.experiments.runs import Run
from nnunet_difftumor.experiments.settings import config_of
from nnunet_difftumor.nnunet_folders import PREPROCESSED, environment_with
from nnunet_difftumor.runs.synthesis_log import read_log

PLACEBO, REAL = "placebo", "realistic"
# Of each run, so many samples with synthetic tumors.
SAMPLES = 8


def check_masks(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Makes the first samples of the trainings again, and compares targets.

    Args:
        runs: finished ones.

    Returns:
        For each placebo arm and seed: arm, of (the arm that differs in the preset alone; None: there is none), seed,
        samples, sha256 of the masks of both, equal.
    """
    found = []
    for placebo in runs:
        config = config_of(placebo.plan, placebo.arm, placebo.seed, dataset_folder=placebo.dataset_folder)
        if config.preset != PLACEBO:
            continue
        for other in runs:
            if (other.seed, other.fold) == (placebo.seed, placebo.fold) and _differs_in_preset_alone(placebo, other):
                numbers = [record["number"] for record in islice(read_log(placebo.model, 0), SAMPLES)]
                hashes = [_sha256(run, numbers) for run in (placebo, other)]
                found.append(_found(placebo, other.arm, len(numbers), hashes))
                break
        else:
            found.append(_found(placebo, None, 0, []))
    return found


def said(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The result in lines, one for each placebo arm."""
    lines = []
    for arm in dict.fromkeys(one["arm"] for one in found):
        of_arm = [one for one in found if one["arm"] == arm]
        if of_arm[0]["of"] is None:
            lines.append(f"{arm}: no arm with preset {REAL} has its other settings, so that masks are not compared")
            continue
        equal, samples = sum(one["equal"] for one in of_arm), sum(one["samples"] for one in of_arm)
        verdict = "the same masks as" if equal == len(of_arm) else "NOT the masks of"
        lines.append(
            f"{arm}: trained with {verdict} {of_arm[0]['of']}, by hash of {samples} samples of {len(of_arm)} trainings"
            + ("" if equal == len(of_arm) else f" ({equal} of {len(of_arm)} trainings agree)")
        )
    return lines


def _differs_in_preset_alone(placebo: Run, other: Run) -> bool:
    configs = [config_of(run.plan, run.arm, run.seed, dataset_folder=run.dataset_folder) for run in (placebo, other)]
    if configs[1].preset != REAL or placebo.of_arm.trainer != other.of_arm.trainer:
        return False
    if placebo.of_arm.cases != other.of_arm.cases:
        return False
    return dataclasses.replace(configs[0], preset=REAL) == configs[1]


def _sha256(run: Run, numbers: Sequence[int]) -> str:
    from nnunet_difftumor.pictures.replay import RunReplay

    digest = hashlib.sha256()
    with environment_with(**{PREPROCESSED: str(run.preprocessed.parent)}):
        again = RunReplay(run.model)
        for number in numbers:
            digest.update(again.sample(number).target.tobytes())
    return digest.hexdigest()


def _found(placebo: Run, other: str | None, samples: int, hashes: Sequence[str]) -> dict[str, Any]:
    return {
        "arm": placebo.arm,
        "of": other,
        "seed": placebo.seed,
        "fold": placebo.fold,
        "samples": samples,
        "sha256": list(hashes),
        "equal": bool(samples) and len(set(hashes)) == 1,
    }
