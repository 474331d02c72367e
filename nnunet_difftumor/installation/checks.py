"""The checks of `difftumor doctor`, each one line: what was found and, if it is wrong, what to do."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from nnunet_difftumor.installation import SHIM_FILE
from nnunet_difftumor.installation.torchvision_repair import TIMEOUT_SECONDS, Probe, probe

TRAINER = "nnUNetTrainerDiffTumor"
FOLDER_VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
CPU_ADVICE = "set OMP_WAIT_POLICY=PASSIVE nnUNet_n_proc_DA=1 nnUNet_def_n_proc=1, and give nnU-Net `-device cpu`"


@dataclass(frozen=True)
class Finding:
    """One line of the report: status is "ok", "problem" or "note"; advice says what to do about it."""

    status: str
    text: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.status:<8} {self.text}" + (f". To do: {self.advice}" if self.advice else "")


def findings() -> Iterator[Finding]:
    """Runs all checks, one after the other (half a minute, for two of them start nnU-Net and torch)."""
    yield check_python(sys.version_info)
    yield check_nnunet()
    for variable in FOLDER_VARIABLES:
        yield check_folder(variable)
    seen = probe()
    yield check_torchvision(seen)
    yield check_announcement()
    yield check_trainer()
    yield check_device(seen)


def check_python(version: tuple) -> Finding:
    text = "Python " + ".".join(map(str, version[:3]))
    if (3, 11) <= tuple(version[:2]) < (3, 14):
        return Finding("ok", text)
    return Finding("problem", text, "make an environment with Python 3.11, 3.12 or 3.13")


def check_nnunet() -> Finding:
    try:
        version = metadata.version("nnunetv2")
    except metadata.PackageNotFoundError:
        return Finding("problem", "nnunetv2 is not installed", 'pip install "nnunetv2>=2.8,<3"')
    if (2, 8) <= tuple(int(part) for part in version.split(".")[:2]) < (3, 0):
        return Finding("ok", f"nnunetv2 {version}")
    return Finding("problem", f"nnunetv2 {version} cannot load trainers from outside", 'pip install "nnunetv2>=2.8,<3"')


def check_folder(variable: str) -> Finding:
    value = os.environ.get(variable)
    if not value:
        return Finding("problem", f"{variable} is not set", f"export {variable}=/a/folder/of/yours")
    if not os.path.isdir(value):
        return Finding("problem", f"{variable}={value} is not a folder", f'mkdir -p "{value}"')
    if not os.access(value, os.W_OK | os.X_OK):
        return Finding("problem", f"{variable}={value} cannot be written", "choose another folder or change its rights")
    return Finding("ok", f"{variable}={value}")


def check_torchvision(seen: Probe) -> Finding:
    text = f"torch {seen.torch}, torchvision {seen.torchvision}"
    if seen.error is None:
        repaired = " (repaired; calling its compiled operators still fails)" if seen.declared else ""
        return Finding("ok", text + repaired)
    if seen.operators_are_missing:
        return Finding(
            "problem",
            f"torchvision does not fit torch {seen.torch}: its operators cannot be loaded, which breaks every `-tr`",
            "install the torchvision of the same index as your torch, or run `difftumor doctor --fix`",
        )
    return Finding("problem", f"torch or torchvision cannot be imported ({seen.error})", "install them again")


def check_announcement() -> Finding:
    """Whether `nnUNet_extTrainer` names the folder of the shim, as the .pth file should have arranged."""
    paths = [path for path in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if path]
    ours = [path for path in paths if Path(path, SHIM_FILE).is_file()]
    if ours:
        return Finding("ok", f"nnU-Net looks for trainers in {ours[0]}")
    if os.environ.get("DIFFTUMOR_NO_AUTOLOAD", "0") not in ("", "0"):
        return Finding(
            "problem",
            "DIFFTUMOR_NO_AUTOLOAD hides the trainers from nnU-Net",
            'unset DIFFTUMOR_NO_AUTOLOAD, or eval "$(difftumor env)"',
        )
    return Finding(
        "problem",
        "nnunet_difftumor.pth was not read, and nnU-Net does not know of the trainers",
        'install with pip into an environment, or eval "$(difftumor env)" before each use',
    )


def check_trainer(name: str = TRAINER) -> Finding:
    """Lets nnU-Net itself look for the trainer, in a fresh interpreter as its own commands are."""
    code = (
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find; "
        f"print(find({name!r}).__module__)"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Finding(
            "problem",
            f"nnU-Net did not find {name} within {TIMEOUT_SECONDS} s",
            "is the environment on a slow drive? Try again",
        )
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    last_line = lines[-1] if lines else f"status {done.returncode}"
    if done.returncode == 0:
        return Finding("ok", f"nnU-Net finds {name} in {last_line}")
    if "Could not find requested nnunet trainer" in last_line:
        return Finding("problem", f"nnU-Net does not find {name} in any folder it knows", "solve the problems above")
    return Finding("problem", f"nnU-Net fails while it looks for {name} ({last_line})", "solve the problems above")


def check_device(seen: Probe) -> Finding:
    if seen.cuda_device is not None:
        return Finding("ok", f"CUDA device {seen.cuda_device}")
    return Finding("note", "no CUDA device, so training runs on the CPU", CPU_ADVICE)
