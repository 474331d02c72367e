"""An operation by its kernel, and by its reference in float64, with all gradients."""

from collections.abc import Callable, Sequence

import torch

from nnunet_difftumor.kernels.implementation import implementation

# Relative L2 distance to float64 that a precision may have.
TOLERANCES = {"float32": 1e-5, "tf32": 2e-3, "bfloat16": 1e-2, "float16": 2e-3}


def compare(
    operation: Callable[..., torch.Tensor],
    inputs: Sequence[torch.Tensor],
    *,
    precision: str,
    trained: int | None = None,
) -> None:
    """Asserts that output and gradients of the first `trained` inputs are those of float64.

    Args:
        operation: of the inputs; called with the kernel's tensors, and with float64 ones for the reference.
        inputs: floating tensors; their memory layout is kept.
        precision: a key of TOLERANCES.
        trained: number of inputs that get a gradient; None: all. Without any, autograd is off.
    """
    trained = len(inputs) if trained is None else trained
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        with implementation("triton"):
            out, gradients = _run(operation, [tensor.detach().clone() for tensor in inputs], trained)
    finally:
        torch.set_float32_matmul_precision(before)
    with implementation("reference"):
        expected, expected_gradients = _run(operation, [tensor.detach().double() for tensor in inputs], trained)
    _close("output", out, expected, precision=precision)
    for index, (seen, wanted) in enumerate(zip(gradients, expected_gradients, strict=True)):
        assert seen.dtype == inputs[index].dtype
        _close(f"gradient of input {index}", seen, wanted, precision=precision)


def _run(operation, inputs, trained):
    if not trained:
        with torch.no_grad():
            return operation(*inputs), []
    for tensor in inputs[:trained]:
        tensor.requires_grad_()
    out = operation(*inputs)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(7))
    out.backward(weights.to(out.dtype))
    return out.detach(), [tensor.grad for tensor in inputs[:trained]]


def _close(what: str, seen: torch.Tensor, wanted: torch.Tensor, *, precision: str) -> None:
    assert seen.shape == wanted.shape
    assert seen.isfinite().all(), f"{what}: not finite"
    scale = wanted.norm()
    # Where the truth is zero, as for a softmax over one element, only rounding is left.
    distance = (seen.double() - wanted).norm() / scale if scale > 1e-12 * wanted.numel() else (seen.double()).norm()
    assert distance <= TOLERANCES[precision], f"{what}: relative L2 {distance:.1e}"


def dtype_of(precision: str) -> torch.dtype:
    """The dtype in which a precision is tested."""
    return torch.float32 if precision == "tf32" else getattr(torch, precision)
