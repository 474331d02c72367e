"""The Triton kernels on a CPU, through Triton's interpreter: `TRITON_INTERPRET=1 pytest tests/kernels/interpreted`.

Triton decides when it is imported, so these tests need a process of their own; `make test` starts it.
"""

import os
import sys
from pathlib import Path

import pytest

# Recorded numbers of the public code.
sys.path.append(str(Path(__file__).parents[2] / "generative"))

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

if INTERPRETED:
    import strict_interpreter

    strict_interpreter.install()


def pytest_collection_modifyitems(items):
    if not INTERPRETED:
        for item in items:
            if "interpreted" in item.path.parts:
                item.add_marker(
                    pytest.mark.skip(reason="needs a process with TRITON_INTERPRET=1; make test starts one")
                )


@pytest.fixture(autouse=True)
def through_triton():
    from nnunet_difftumor.kernels.implementation import implementation

    with implementation("triton"):
        yield
