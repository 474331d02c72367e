"""Collects the evaluations of an experiment's runs: result.json, result.md, and a table for the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_difftumor import __version__
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.comparing.paired_tests import PERMUTATIONS
from nnunet_difftumor.evaluation.comparing.results_files import Method, load_methods
from nnunet_difftumor.evaluation.figures.bootstrap import RESAMPLES
from nnunet_difftumor.experiments.collecting.arms import SEED, Arms
from nnunet_difftumor.experiments.collecting.tables import markdown
from nnunet_difftumor.experiments.planning.plan import Plan
from nnunet_difftumor.experiments.run_folder import noted
from nnunet_difftumor.experiments.runs import Run
from nnunet_difftumor.experiments.started import plan_sha256
from nnunet_difftumor.files import atomic_path, write_json

SCHEMA_VERSION = 1
RESULT, PAGE = "result.json", "result.md"


def collect(
    runs: Sequence[Run], output: Path, *, masks: Sequence[Mapping[str, Any]] = (), notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Collects finished runs, and writes `result.json` and `result.md`.

    Args:
        runs: all of the experiment.
        output: of the experiment.
        masks: of `check_masks`.
        notes: lines to be read with the figures.

    Returns:
        A dict for strict JSON (docs/experiments.md).

    Raises:
        InputError: an evaluation is damaged, or of other cases than the others.
    """
    plan = runs[0].plan
    methods = _methods(runs)
    first = next(iter(methods.values()))
    tumors = {}
    for tumor in first.cases:
        arms = Arms(
            {arm: {seed: _cases(methods, runs, arm, seed, tumor) for seed in plan.seeds} for arm in plan.arms},
            {case: patient for method in methods.values() for case, patient in method.patients.items()},
            {arm: plan.against(arm) for arm in plan.arms},
        )
        found = arms.collect()
        tumors[tumor] = found | {"published": _published(plan, tumor, found, only=len(first.cases) == 1)}
    result = {
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "plan": plan.to_dict(),
        "plan_sha256": plan_sha256(plan),
        "settings": {
            "evaluate": dict(first.settings),
            "arms": {"resamples": RESAMPLES, "seed": SEED, "interval": "95 % percentile, over patients"},
            "differences": {"interval": "95 %, t over seeds and patients"},
            "permutations": PERMUTATIONS,
        },
        "runs": {run.name: noted(run) for run in runs},
        "placebo": list(masks),
        "notes": [*notes, *_first_weights(runs), *_gone(runs)],
        "tumors": tumors,
    }
    write_json(output / RESULT, result)
    with atomic_path(output / PAGE) as temporary:
        temporary.write_text(markdown(result), encoding="utf-8")
    return result


def _methods(runs: Sequence[Run]) -> dict[str, Method]:
    """The evaluations by run, those of a fold comparable."""
    found: dict[str, Method] = {}
    for fold in runs[0].plan.folds:
        of_fold = [run for run in runs if run.fold == fold]
        names = [run.name for run in of_fold]
        found |= dict(zip(names, load_methods([run.evaluation for run in of_fold], names), strict=True))
    return found


def _cases(methods: Mapping[str, Method], runs: Sequence[Run], arm: str, seed: int, tumor: str) -> dict[str, Any]:
    """Of all folds together.

    Raises:
        InputError: a case is in two folds.
    """
    found, folds = {}, {}
    for run in runs:
        if (run.arm, run.seed) != (arm, seed):
            continue
        for name, case in methods[run.name].cases[tumor].items():
            if name in found:
                raise InputError(
                    f"{run.evaluation}: {name} is in the validation of fold {folds[name]} and of fold {run.fold}; it "
                    "would count twice: pool folds that validate different cases"
                )
            found[name], folds[name] = case, run.fold
    return found


def _published(plan: Plan, tumor: str, found: Mapping[str, Any], *, only: bool) -> list[dict[str, Any]]:
    """Theirs, ours, difference."""
    rows = []
    for one in plan.published:
        if one.tumor == tumor or (one.tumor is None and only):
            ours = found["arms"][one.arm].get(one.figure, {}).get("value")
            rows.append(
                {
                    "arm": one.arm,
                    "figure": one.figure,
                    "published": one.value,
                    "ours": ours,
                    "difference": None if ours is None else ours - one.value,
                    "source": one.source,
                }
            )
    return rows


def _first_weights(runs: Sequence[Run]) -> list[str]:
    """Arms that did not start from the same weights, as those of other networks cannot."""
    plan = runs[0].plan
    of_arms = {arm: [noted(run).get("first_weights_sha256") for run in runs if run.arm == arm] for arm in plan.arms}
    return [
        f"{arm} did not start from the first weights of {plan.against(arm)}; a difference may be that of the networks"
        for arm in plan.arms
        if plan.against(arm) is not None and of_arms[arm] != of_arms[str(plan.against(arm))]
    ]


def _gone(runs: Sequence[Run]) -> list[str]:
    return [
        f"{run.name}: its checkpoint is gone, so that nothing can be predicted again; its figures are kept. Delete "
        f"{run.folder} to train it again"
        for run in runs
        if not run.checkpoint.is_file()
    ]
