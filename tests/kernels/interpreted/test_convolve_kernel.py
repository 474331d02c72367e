"""Convolutions with what stands before and after them by their kernels against float64: output and all gradients."""

import sys

import pytest
import torch
from against_float64 import TOLERANCES, compare, dtype_of

from nnunet_difftumor.kernels import Affine, convolve, pack_convolution
from nnunet_difftumor.kernels.implementation import implementation
from nnunet_difftumor.kernels.triton import convolve as kernels

# Shape of x, channels out, kernel, and what else there is.
CASES = [
    ((1, 1, 1, 1, 1), 1, (3, 3, 3), {}),
    ((2, 1, 3, 4, 5), 16, (3, 3, 3), {}),
    ((1, 17, 2, 3, 3), 5, (3, 3, 3), {"norm": True, "residual": True}),
    ((2, 8, 2, 3, 2), 20, (1, 1, 1), {"norm": True}),
    ((1, 64, 1, 2, 3), 8, (1, 1, 1), {"norm": True}),
    ((1, 70, 2, 2, 3), 66, (1, 1, 1), {"residual": True}),
    ((2, 16, 5, 4, 7), 18, (4, 4, 4), {"stride": (2, 2, 2)}),
    ((1, 3, 4, 3, 5), 6, (4, 4, 4), {"stride": (1, 2, 1)}),
    ((2, 17, 2, 3, 2), 4, (4, 4, 4), {"stride": (2, 2, 2), "transposed": True, "norm": True}),
    ((1, 5, 3, 2, 3), 17, (4, 4, 4), {"stride": (2, 1, 2), "transposed": True, "residual": True}),
    ((2, 24, 2, 3, 4), 24, (3, 3), {"norm": True, "zero_rim": True}),
    ((1, 20, 3, 4, 5), 7, (3, 3), {"zero_rim": True, "skip": 3}),
    ((2, 6, 2, 3, 3), 9, (1, 1), {"zero_rim": True, "skip": 17, "residual": True, "residual_norm": True}),
    ((1, 8, 1, 4, 3), 4, (7, 7), {"zero_rim": True, "skip": 9}),
    ((1, 6, 2, 4, 6), 6, (4, 4), {"zero_rim": True, "stride": (1, 2, 2)}),
    ((1, 6, 2, 2, 3), 6, (4, 4), {"zero_rim": True, "stride": (1, 2, 2), "transposed": True}),
]
# Three slices and more places than one square has; the least of all; whole squares and five slices.
DEEP = [
    ((1, 17, 3, 9, 2), 3, {"norm": True, "residual": True}),
    ((2, 32, 1, 1, 1), 32, {"norm": True}),
    ((1, 20, 5, 8, 8), 17, {}),
]


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + seed))


def draw(shape, out, kernel, *, dtype=torch.float32, mean=0.0, **options):
    """Tensors by name, and what `pack_convolution` is told."""
    batch, channels, *size = shape
    skip = options.pop("skip", 0)
    packing = {name: options[name] for name in ("stride", "transposed", "zero_rim") if name in options}
    if skip:
        packing["channels"] = (channels, skip)
    between = (channels + skip, out) if options.get("transposed") else (out, channels + skip)
    weight = randn(*between, *kernel) / (channels * len(kernel) ** 2) ** 0.5
    inputs = {"x": mean + randn(*shape), "weight": weight, "bias": randn(out)}
    if skip:
        inputs["skip"] = randn(batch, skip, *size)
    if options.get("norm"):
        inputs |= {"scale": randn(batch, channels, seed=1), "shift": randn(batch, channels, seed=2)}
    if options.get("residual"):
        made = pack_convolution(weight, **packing).size_out(size)
        inputs["residual"] = randn(batch, out, *made, seed=3)
    if options.get("residual_norm"):
        inputs |= {"residual_scale": randn(batch, out, seed=4), "residual_shift": randn(batch, out, seed=5)}
    single = ("scale", "shift", "residual_scale", "residual_shift")
    inputs = {name: tensor if name in single else tensor.to(dtype) for name, tensor in inputs.items()}
    for name in ("x", "skip", "residual"):
        if name in inputs:
            inputs[name] = inputs[name].contiguous(memory_format=torch.channels_last_3d)
    return inputs, packing


def run(x, weight, bias, packing, *, scale=None, shift=None, residual_scale=None, residual_shift=None, **named):
    return convolve(
        x,
        pack_convolution(weight, **packing),
        bias=bias,
        norm=None if scale is None else Affine(scale, shift),
        residual_norm=None if residual_scale is None else Affine(residual_scale, residual_shift),
        **named,
    )


def check(shape, out, kernel, options, *, precision="float32"):
    inputs, packing = draw(shape, out, kernel, dtype=dtype_of(precision), **options)

    def operation(*tensors):
        named = dict(zip(inputs, tensors, strict=True))
        return run(named.pop("x"), named.pop("weight"), named.pop("bias"), packing, **named)

    compare(operation, list(inputs.values()), precision=precision)


@pytest.fixture
def deep(monkeypatch):
    """The deep loop also for few programs."""
    in_any_case(monkeypatch)


def in_any_case(monkeypatch):
    # The module in use, which is not the one that is imported above where a test has put another in its place.
    monkeypatch.setattr(sys.modules[kernels.__name__], "_LEAST_PROGRAMS", 1)


@pytest.mark.parametrize(("shape", "out", "kernel", "options"), CASES)
def test_any_shape(shape, out, kernel, options):
    check(shape, out, kernel, options)


@pytest.mark.parametrize(("shape", "out", "options"), DEEP)
def test_four_slices_at_once(deep, shape, out, options):
    check(shape, out, (3, 3, 3), options)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float16"])
def test_other_precisions(precision):
    check(*CASES[2], precision=precision)
    check(*CASES[12], precision=precision)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float16"])
def test_four_slices_at_once_in_other_precisions(deep, precision):
    shape, out, options = DEEP[0]
    check(shape, out, (3, 3, 3), options, precision=precision)
