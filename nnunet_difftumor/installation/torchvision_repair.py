"""Finds out whether torchvision fits torch, and puts the repair into site-packages or takes it away."""

import json
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import atomic_path

MODULE = "difftumor_torchvision_operators"
TIMEOUT_SECONDS = 180  # importing torch from a cold network drive takes minutes

_PROBE = f"""
import json, sys
found = {{"declared": [], "error": None}}
try:
    import torch
    found["torch"] = torch.__version__
    found["cuda"] = torch.version.cuda
    if torch.cuda.is_available():
        found["cuda_device"] = torch.cuda.get_device_name()
        found["cuda_memory_bytes"] = torch.cuda.get_device_properties(0).total_memory
    try:
        import triton
        found["triton"] = triton.__version__
    except Exception as error:
        found["triton_error"] = f"{{type(error).__name__}}: {{error}}"
    import torchvision
    found["torchvision"] = torchvision.__version__
except Exception as error:
    found["error"] = f"{{type(error).__name__}}: {{error}}"
found["declared"] = getattr(sys.modules.get("{MODULE}"), "declared", [])
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Probe:
    """What a fresh interpreter of this environment saw.

    Attributes:
        torch, torchvision: versions; None where the import failed.
        cuda: version of CUDA that torch was built for; None in a CPU build.
        cuda_device: name of the first CUDA device; None on a CPU.
        cuda_memory_bytes: of that device.
        triton: its version; None where it cannot be imported, for the reason in `triton_error`.
        declared: operators that the repair had to declare; empty where torchvision has its own.
        error: the exception that stopped an import; None if there was none.
    """

    torch: str | None = None
    torchvision: str | None = None
    cuda: str | None = None
    cuda_device: str | None = None
    cuda_memory_bytes: int | None = None
    triton: str | None = None
    triton_error: str | None = None
    declared: tuple[str, ...] = ()
    error: str | None = None

    @property
    def operators_are_missing(self) -> bool:
        return self.error is not None and "torchvision::nms" in self.error


def probe() -> Probe:
    """Imports torch and torchvision in a fresh interpreter (seconds)."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _PROBE], capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Probe(error=f"importing torch and torchvision took more than {TIMEOUT_SECONDS} s")
    if done.returncode != 0:
        last_line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Probe(error=f"the interpreter ended with status {done.returncode}: {last_line}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return Probe(**found | {"declared": tuple(found["declared"])})


def repair() -> str | None:
    """Installs the repair where it is needed, and removes it where it no longer is.

    Returns:
        What was done, in words; None if there was nothing to do.

    Raises:
        InputError: site-packages cannot be written.
    """
    found = probe()
    if found.operators_are_missing:
        _write()
        return f"torchvision's missing operators are declared from now on, by {_pth_file()}"
    if found.error is None and not found.declared and remove():
        return "torchvision fits torch again: the repair was removed"
    return None


def remove() -> bool:
    """Takes the repair out of site-packages; returns whether it was there."""
    files = [path for path in (_pth_file(), _module_file()) if path.exists()]  # the .pth first: it imports the module
    try:
        for path in files:
            path.unlink()
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be removed ({error.strerror}); run this as its owner") from error
    return bool(files)


def _write() -> None:
    source = Path(__file__).with_name("torchvision_operators.py").read_text(encoding="utf-8")
    # Python runs the lines of a .pth file that begin with `import`.
    line = f'import sys; exec("try: import {MODULE}\\nexcept ImportError: pass")\n'
    try:
        for path, content in ((_module_file(), source), (_pth_file(), line)):
            with atomic_path(path) as temporary:
                temporary.write_text(content, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{_module_file().parent}: cannot be written ({error.strerror}); use a virtual environment of your own, or "
            "install the torchvision that fits your torch"
        ) from error


def _module_file() -> Path:
    return Path(sysconfig.get_paths()["purelib"], f"{MODULE}.py")


def _pth_file() -> Path:
    return _module_file().with_suffix(".pth")
