"""One Slurm script for the runs that are left: an array with a task for each."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunet_difftumor.experiments.runs import Run
from nnunet_difftumor.experiments.started import PLAN_FILE
from nnunet_difftumor.files import atomic_path
from nnunet_difftumor.installation import trainer_folders
from nnunet_difftumor.nnunet_folders import FOLDER_VARIABLES

SCRIPT = "experiment.sbatch"


def write_script(output: Path, runs: Sequence[Run]) -> Path:
    """Writes the script.

    Args:
        output: of the experiment.
        runs: all of them; finished ones get no task.

    Returns:
        Its path.
    """
    plan = runs[0].plan
    left = [number for number, run in enumerate(runs) if not run.evaluation.is_file()]
    logs = output.absolute() / "slurm"
    logs.mkdir(exist_ok=True)
    options = {"job-name": plan.name, "array": ",".join(map(str, left)), "output": f"{logs}/%a.log", "requeue": ""}
    options |= plan.slurm
    exports = {name: os.environ[name] for name in FOLDER_VARIABLES if os.environ.get(name)}
    exports["nnUNet_extTrainer"] = trainer_folders()
    command = [sys.executable, "-m", "nnunet_difftumor.cli.main", "experiment", output.absolute() / PLAN_FILE]
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH --{key}={value}" if value else f"#SBATCH --{key}" for key, value in options.items()),
        "",
        "set -e",
        *(f"export {name}={shlex.quote(value)}" for name, value in exports.items()),
        f'{shlex.join([*map(str, command), "-o", str(output.absolute())])} --run "$SLURM_ARRAY_TASK_ID"',
    ]
    path = output / SCRIPT
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    return path
