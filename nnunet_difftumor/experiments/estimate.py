"""How long the runs that are left will take, and where that is known from."""

from collections.abc import Sequence
from statistics import median

from nnunet_difftumor.experiments.run_folder import noted
from nnunet_difftumor.experiments.runs import Run

_UNITS = ((86400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))


def estimate(runs: Sequence[Run], *, jobs: int = 1) -> str:
    """In words.

    Args:
        runs: of the experiment; finished ones tell how long the others take.
        jobs: runs at the same time.
    """
    plan = runs[0].plan
    left = [run for run in runs if not run.evaluation.is_file()]
    if not left:
        return "time: every run is finished"
    facts = [noted(run) for run in runs]
    measured = [
        one["trained"]["seconds"] / one["trained"]["iterations"]
        for one in facts
        if one.get("trained", {}).get("seconds") is not None
    ]
    predictions = [one["predicted"]["seconds"] for one in facts if "predicted" in one]
    if plan.seconds_per_iteration is not None:
        per_iteration, source = plan.seconds_per_iteration, "seconds_per_iteration of the plan"
    elif measured:
        per_iteration, source = median(measured), f"the median of {len(measured)} finished trainings"
    else:
        return (
            f"time: {len(left)} runs of {plan.iterations} iterations; no estimate before one of them is finished, or "
            "seconds_per_iteration is in the plan"
        )
    seconds = plan.iterations * per_iteration + (median(predictions) if predictions else 0.0)
    extra = "with prediction" if predictions else "without prediction, of which nothing is known yet"
    rounds = -(-len(left) // jobs)
    return (
        f"time: about {_in_words(rounds * seconds)} for {len(left)} runs, {jobs} at a time, {extra}; "
        f"{per_iteration:.3g} s per iteration, from {source}"
    )


def _in_words(seconds: float) -> str:
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), _UNITS[-1])
    return f"{seconds / size:.1f} {unit}"
