"""The checks of `difftumor doctor`, each one line: what was found and, if it is wrong, what to do."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from nnunet_difftumor import __version__
from nnunet_difftumor.installation import SHIM_FILE
from nnunet_difftumor.installation.finding import Finding
from nnunet_difftumor.installation.machine import check_gpu, check_shared_memory, check_triton, check_workers
from nnunet_difftumor.installation.torchvision_repair import TIMEOUT_SECONDS, Probe, probe
from nnunet_difftumor.nnunet_folders import PREPROCESSED, RAW, RESULTS

TRAINER = "nnUNetTrainerDiffTumor"
VERSIONS_OF = (
    "torch",
    "triton",
    "batchgenerators",
    "batchgeneratorsv2",
    "dynamic-network-architectures",
    "numpy",
)
# A hundred abdominal CTs are about 10 GB as they are and 30 GB preprocessed; checkpoints of a fold up to 3 GB.
LEAST_FREE_GB = {RAW: 10, PREPROCESSED: 30, RESULTS: 5}


def findings() -> Iterator[Finding]:
    """Runs all checks, one after the other (half a minute, for two of them start nnU-Net and torch)."""
    yield check_python(sys.version_info)
    yield check_nnunet()
    yield check_versions()
    for variable in LEAST_FREE_GB:
        yield check_folder(variable)
    seen = probe()
    yield check_torchvision(seen)
    yield check_announcement()
    yield check_trainer()
    yield check_gpu(seen)
    yield check_triton(seen)
    yield check_workers()
    yield check_shared_memory()


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


def check_versions() -> Finding:
    """What a report of a bug should name."""
    found = {name: _version(name) for name in VERSIONS_OF}
    text = ", ".join([f"nnunet-difftumor {__version__}", *(f"{name} {found[name] or 'missing'}" for name in found)])
    missing = [name for name in found if found[name] is None and name != "triton"]  # which has a check of its own
    if missing:
        return Finding("problem", text, f"pip install {' '.join(missing)}")
    return Finding("ok", text)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_folder(variable: str) -> Finding:
    value = os.environ.get(variable)
    if not value:
        return Finding("problem", f"{variable} is not set", f"export {variable}=/a/folder/of/yours")
    if not os.path.isdir(value):
        return Finding("problem", f"{variable}={value} is not a folder", f'mkdir -p "{value}"')
    try:
        # Rights alone do not tell: a drive may be read-only, full, or not obey root.
        with tempfile.TemporaryFile(dir=value) as file:
            file.write(b"written")
            file.flush()
    except OSError as error:
        advice = "choose another folder, or make it writable"
        return Finding("problem", f"{variable}={value} cannot be written ({error.strerror})", advice)
    free = shutil.disk_usage(value).free / 1e9
    text = f"{variable}={value}, {free:.0f} GB free"
    least = LEAST_FREE_GB[variable]
    if free < least:
        return Finding("note", text, f"make room: {least} GB are for a hundred CTs, or a few folds of results")
    return Finding("ok", text)


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
    """Whether `nnUNet_extTrainer` names the folder of the shim, as the .pth file arranges once nnU-Net is imported."""
    find_spec("nnunetv2")
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
