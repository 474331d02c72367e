"""kernels/ and generative/ run where nnU-Net is not installed, nor Triton, but for the kernels written in it."""

import subprocess
import sys

from pages import REPOSITORY


def test_every_module_is_imported_without_nnunet():
    modules = [
        f"nnunet_difftumor.{'.'.join(path.relative_to(REPOSITORY).with_suffix('').parts)}".removesuffix(".__init__")
        for folder in ("kernels", "generative")
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        if path.parent.name != "triton"
    ]
    assert len(modules) > 15
    code = f"""
import importlib, sys
for name in ("nnunetv2", "batchgenerators", "triton"):
    sys.modules[name] = None
for module in {modules!r}:
    importlib.import_module(module)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
