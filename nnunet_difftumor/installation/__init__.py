"""How nnU-Net finds the trainers, what can be wrong with an installation, and the repair of what can be repaired."""

import os
import shlex
from pathlib import Path

SHIM_FOLDER = Path(__file__).resolve().parent.parent / "nnunet_ext"
SHIM_FILE = "nnunet_difftumor_trainers.py"


def trainer_folders() -> str:
    """The value of nnUNet_extTrainer with which nnU-Net finds the trainers, beside those that it finds already."""
    paths = [path for path in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if path]
    return os.pathsep.join(paths if str(SHIM_FOLDER) in paths else [*paths, str(SHIM_FOLDER)])


def shell_line() -> str:
    """The line that a POSIX shell needs where Python does not read .pth files (`pip install --target`, `python -S`)."""
    return f"export nnUNet_extTrainer={shlex.quote(trainer_folders())}"
