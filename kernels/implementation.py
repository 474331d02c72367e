"""Which implementation of an operation runs: the Triton kernel on CUDA, elsewhere one in PyTorch.

That is the CPU's own form in inference, and the plain reference otherwise.
"""

import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nnunet_difftumor.errors import InputError

NAMES = ("auto", "triton", "reference")
# Compute capability of the Ampere generation, the oldest for which the kernels are compiled and checked.
OLDEST_GPU = (8, 0)
# float64 is what the references are checked in; no kernel computes in it.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class _Chosen(threading.local):
    """Of each thread its own; torch.compile reads it, and compiles again when it changes."""

    def __init__(self) -> None:
        self.name = "auto"


_chosen = _Chosen()


@contextmanager
def implementation(name: str) -> Iterator[None]:
    """Within it, every operation of this thread runs as `name` says, on any device.

    Args:
        name: "reference", for comparison and for float64 on CUDA; "triton", for tests with Triton's interpreter;
            "auto", as outside.
    """
    if name not in NAMES:
        raise InputError(f"implementation: expected one of {NAMES}, got {name!r}")
    before, _chosen.name = _chosen.name, name
    try:
        yield
    finally:
        _chosen.name = before


def uses_triton(name: str, tensor: torch.Tensor) -> bool:
    """Whether the Triton kernel runs for this tensor, the argument `name`; of floating dtypes a kernel takes `DTYPES`.

    Raises:
        InputError: where it should, and cannot: nothing falls back in silence.
    """
    chosen = _chosen.name
    if chosen == "reference" or (chosen == "auto" and not tensor.is_cuda):
        return False
    if tensor.is_floating_point() and tensor.dtype not in DTYPES:
        raise InputError(
            f"{name}: is {tensor.dtype}, the kernels take float32, bfloat16 and float16; convert it, or choose the "
            'plain version with kernels.implementation("reference")'
        )
    if tensor.is_cuda:
        _check_gpu(name, tensor.device.index)
    return True


def _check_gpu(name: str, device: int | None) -> None:
    if importlib.util.find_spec("triton") is None:
        raise InputError(
            f"{name}: is on a GPU, and triton is not installed; install it, or choose the plain version with "
            'kernels.implementation("reference")'
        )
    seen = torch.cuda.get_device_capability(device)
    if seen < OLDEST_GPU:
        raise InputError(
            f"{name}: is on a GPU of compute capability {seen[0]}.{seen[1]}, the kernels need "
            f"{OLDEST_GPU[0]}.{OLDEST_GPU[1]} or newer; choose the plain version with "
            'kernels.implementation("reference")'
        )


def needs_gradient(*tensors: torch.Tensor) -> bool:
    """Whether autograd follows what becomes of one of them."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def is_cpu_inference(tensor: torch.Tensor) -> bool:
    """Whether a CPU computes under `torch.inference_mode`: then memory may be written in place, in any order.

    Training and its validation run without that mode, by the plain references. Where kernels are wanted on a CPU,
    from the interpreter, networks run as they do on CUDA.
    """
    # In this order: torch.compile cannot trace the question of the inference mode.
    if torch.compiler.is_compiling() or tensor.device.type != "cpu" or _chosen.name == "triton":
        return False
    return torch.is_inference_mode_enabled()
