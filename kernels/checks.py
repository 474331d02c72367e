"""Checks that the public operations share; every message names the argument, what was seen and what is possible."""

import math

import torch

from nnunet_difftumor.errors import InputError


def check_floating(name: str, tensor: torch.Tensor, like: torch.Tensor | None = None) -> None:
    """A floating tensor, on the device of `like`."""
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        raise InputError(f"{name}: expected a floating-point tensor, got {_kind(tensor)}")
    if like is not None and tensor.device != like.device:
        raise InputError(f"{name}: on {tensor.device}, while the first argument is on {like.device}; move one of them")


def check_int64(name: str, tensor: torch.Tensor) -> None:
    """An int64 tensor."""
    if not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.int64:
        raise InputError(f"{name}: expected an int64 tensor, got {_kind(tensor)}")


def _kind(given: object) -> object:
    return given.dtype if isinstance(given, torch.Tensor) else type(given).__name__


def check_whole(name: str, value: int, *, least: int, most: int) -> None:
    """A whole number in a range."""
    if not isinstance(value, int) or not least <= value <= most:
        raise InputError(f"{name}: expected an int from {least} to {most}, got {value!r}")


def check_finite(name: str, tensor: torch.Tensor) -> None:
    """Neither NaN nor infinity; waits for the tensor's device."""
    if not tensor.isfinite().all():
        raise InputError(f"{name}: holds NaN or infinity; the weights are damaged or training has diverged")


def check_norm_eps(eps: float) -> None:
    """What a norm adds to the variance."""
    if not 0 <= eps < math.inf:
        raise InputError(f"eps: expected a number from 0 on, got {eps}")


def check_volume(name: str, tensor: torch.Tensor) -> None:
    """A floating tensor (b, c, d, h, w) without an empty axis."""
    check_floating(name, tensor)
    if tensor.ndim != 5 or tensor.numel() == 0:
        raise InputError(f"{name}: expected (b, c, d, h, w) without an empty axis, got {tuple(tensor.shape)}")


def check_reach(name: str, tensor: torch.Tensor) -> None:
    """Within a sample, offsets fit into the 32 bits that kernels compute them in."""
    farthest = sum((size - 1) * stride for size, stride in zip(tensor.shape[1:], tensor.stride()[1:], strict=True))
    if farthest >= 2**31:
        raise InputError(
            f"{name}: a sample of {tuple(tensor.shape)} reaches over {farthest + 1} elements, the kernels take up to "
            f"{2**31}; take a smaller patch"
        )


def check_shape(name: str, tensor: torch.Tensor, expected: tuple[int, ...]) -> None:
    """Exactly this shape."""
    if tuple(tensor.shape) != expected:
        raise InputError(f"{name}: expected shape {expected}, got {tuple(tensor.shape)}")
