"""How nnU-Net finds the trainers, what can be wrong with an installation, and the repair of what can be repaired."""

import os
import shlex
from pathlib import Path

SHIM_FOLDER = Path(__file__).resolve().parent.parent / "nnunet_ext"
SHIM_FILE = "nnunet_difftumor_trainers.py"


def shell_line() -> str:
    """The line that a POSIX shell needs where Python does not read .pth files (`pip install --target`, `python -S`)."""
    paths = [path for path in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if path]
    if str(SHIM_FOLDER) not in paths:
        paths.append(str(SHIM_FOLDER))
    return f"export nnUNet_extTrainer={shlex.quote(os.pathsep.join(paths))}"
