"""What an experiment would do, as a user would type it."""

import json
import shlex
from collections.abc import Sequence

from nnunet_difftumor.experiments.run_folder import variables_of
from nnunet_difftumor.experiments.runs import Run
from nnunet_difftumor.nnunet_folders import PREPROCESSED, RESULTS


def commands_text(runs: Sequence[Run]) -> str:
    """Every run with its settings and commands."""
    plan = runs[0].plan
    lines = [
        f"{plan.name}: {len(plan.arms)} arms, {len(plan.seeds)} seeds, {len(runs)} trainings of {plan.epochs} epochs "
        f"of {plan.iterations_per_epoch} iterations; {plan.baseline} is the baseline"
    ]
    for number, run in enumerate(runs):
        state = "finished" if run.evaluation.is_file() else "to do"
        lines += ["", f"[{number}] {run.name}: {state}", f"  difftumor.json: {_settings(run)}"]
        if run.of_arm.cases is not None:
            lines.append(f"  real training cases: {json.dumps(run.of_arm.cases)}")
        variables = variables_of(run)
        lines += [f"  export {name}={shlex.quote(variables[name])}" for name in (PREPROCESSED, RESULTS)]
        lines += [f"  {shlex.join(words)}" for words in run.commands()]
    return "\n".join(lines) + "\n"


def _settings(run: Run) -> str:
    return json.dumps({**run.of_arm.settings, "seed": run.seed})
