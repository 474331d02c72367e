"""Convolutions with what stands before and after them by their kernels against float64: output and all gradients."""

import sys

import launches
import pytest
import torch
from against_float64 import compare, dtype_of

from nnunet_difftumor.kernels import (
    Affine,
    PartialMoments,
    convolve,
    norm_of_moments,
    norm_silu,
    pack_convolution,
)
from nnunet_difftumor.kernels.implementation import implementation
from nnunet_difftumor.kernels.triton import convolve as kernels
from nnunet_difftumor.kernels.triton import norm_of_moments as joining
from nnunet_difftumor.kernels.triton import norm_silu as activating

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
# The first: three slices, and more places than one square has; the second: the least of all; the third: whole squares,
# and five slices.
DEEP = [
    ((1, 17, 3, 9, 2), 3, {"norm": True, "residual": True}),
    ((2, 32, 1, 1, 1), 32, {"norm": True}),
    ((1, 20, 5, 8, 8), 17, {}),
    ((2, 18, 2, 3, 11), 1, {}),
    ((1, 33, 4, 1, 9), 34, {"norm": True}),
    ((1, 64, 9, 2, 1), 64, {"residual": True}),
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


def run(x, weight, bias, *, packing, scale=None, shift=None, residual_scale=None, residual_shift=None, **named):
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
        return run(named.pop("x"), named.pop("weight"), named.pop("bias"), packing=packing, **named)

    compare(operation, list(inputs.values()), precision=precision)


@pytest.fixture
def deep(monkeypatch):
    """The deep loop for few programs too, and in any precision."""
    # The module in use, which is not the one that is imported above where a test has put another in its place.
    in_use = sys.modules[kernels.__name__]
    monkeypatch.setattr(in_use, "_LEAST_PROGRAMS", 1)
    monkeypatch.setattr(in_use, "_deep_stages", lambda x, weight: 2)


@pytest.mark.parametrize(("shape", "out", "kernel", "options"), CASES)
def test_any_shape(shape, out, kernel, options):
    check(shape, out, kernel, options)


@pytest.mark.usefixtures("deep")
@pytest.mark.parametrize(("shape", "out", "options"), DEEP)
def test_four_slices_at_once(shape, out, options):
    check(shape, out, (3, 3, 3), options)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float16"])
def test_other_precisions(precision):
    check(*CASES[2], precision=precision)
    check(*CASES[12], precision=precision)


@pytest.mark.usefixtures("deep")
@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float16"])
def test_four_slices_at_once_in_other_precisions(precision):
    shape, out, options = DEEP[0]
    check(shape, out, (3, 3, 3), options, precision=precision)


@pytest.fixture
def poisoned_memory():
    """New tensors are NaN until something writes them."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def check_moments(shape, out, kernel, options, *, dtype=torch.float32, groups=1, mean=30.0):
    """That of the joined moments, the next norm is the one of float64."""
    inputs, packing = draw(shape, out, kernel, dtype=dtype, **options)
    inputs["bias"] += mean
    with torch.inference_mode():
        y, moments = run(packing=packing, moments=True, **inputs)
        assert moments.counts.sum(1).tolist() == [y[0, 0].numel()] * len(y)
        modulation = {"scale": randn(len(y), out, seed=6), "shift": randn(len(y), out, seed=7)}
        seen = norm_of_moments(
            moments, randn(out, seed=8), bias=randn(out, seed=9), groups=groups, eps=1e-3, **modulation
        )
        values = y.double().reshape(len(y), groups, -1)
        variance = values.var(2, correction=0) + 1e-3
        per_channel = (part.repeat_interleave(out // groups, 1) for part in (values.mean(2), variance.rsqrt()))
        center, reciprocal = per_channel
        factor = reciprocal * randn(out, seed=8)
        gain = 1 + modulation["scale"].double()
        wanted = factor * gain, (randn(out, seed=9) - center * factor) * gain + modulation["shift"]
    for found, expected in zip(seen, wanted, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=2e-5, atol=2e-4)


# A last tile with few places, two samples, and channels in two tiles; phases; slices of two inputs.
WITH_MOMENTS = [
    ((2, 17, 2, 5, 13), 66, (1, 1, 1), {"residual": True}, 11),
    ((1, 3, 1, 5, 9), 6, (4, 4, 4), {"stride": (2, 2, 1), "transposed": True}, 3),
    ((1, 4, 3, 5, 6), 8, (3, 3), {"zero_rim": True, "skip": 3}, 8),
]


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("shape", "out", "kernel", "options", "groups"), WITH_MOMENTS)
def test_moments_are_those_of_the_stored_values(shape, out, kernel, options, groups, dtype):
    check_moments(shape, out, kernel, options, groups=groups, dtype=dtype)


@pytest.mark.usefixtures("poisoned_memory", "deep")
@pytest.mark.parametrize(("shape", "out", "options"), DEEP)
def test_moments_of_four_slices_at_once(shape, out, options):
    check_moments(shape, out, (3, 3, 3), options)


def test_programs_that_join_many_pieces(monkeypatch):
    monkeypatch.setattr(sys.modules[joining.__name__], "_ELEMENTS", 4)
    check_moments((1, 4, 3, 5, 24), 6, (1, 1, 1), {}, groups=3)


def test_a_channel_that_does_not_vary_loses_no_digits():
    counts, means = torch.tensor([[64.0, 64.0, 3.0]]), torch.full((1, 3, 2), 1e4)
    moments = PartialMoments(counts, means, torch.zeros(1, 3, 2))
    factor, summand = norm_of_moments(moments, torch.ones(2), bias=torch.zeros(2), groups=2, eps=1e-6)
    torch.testing.assert_close(factor, torch.full((1, 2), 1e3))
    torch.testing.assert_close(summand, torch.full((1, 2), -1e7))


# Batch, pieces, channels, groups.
JOINED = [
    (1, 1, 1, 1),
    (1, 1, 3, 3),
    (2, 1, 6, 2),
    (1, 2, 1, 1),
    (3, 3, 5, 1),
    (2, 7, 8, 8),
    (1, 16, 24, 8),
    (1, 17, 32, 32),
    (2, 33, 12, 4),
    (1, 130, 192, 8),
    (2, 500, 6, 3),
    (1, 1500, 2, 2),
]


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize(("batch", "pieces", "channels", "groups"), JOINED)
def test_any_number_of_pieces(batch, pieces, channels, groups, modulated):
    counts = torch.randint(1, 65, (batch, pieces), generator=torch.Generator().manual_seed(pieces)).float()
    means, deviations = (randn(batch, pieces, channels, seed=seed) for seed in (0, 1))
    moments = PartialMoments(counts, 30 + means, counts[:, :, None] * deviations.abs())
    parameters = [randn(channels), randn(channels, seed=1)]
    parameters += [randn(batch, channels), randn(batch, channels, seed=1)] if modulated else [None, None]

    def joined(cast):
        weight, bias, scale, shift = (None if given is None else cast(given) for given in parameters)
        whole = PartialMoments(*map(cast, moments))
        return norm_of_moments(whole, weight, bias=bias, groups=groups, eps=1e-3, scale=scale, shift=shift)

    seen = joined(torch.Tensor.float)
    with implementation("reference"):
        wanted = joined(torch.Tensor.double)
    for found, expected in zip(seen, wanted, strict=True):
        # Less than float32 loses where a single piece's mean of 30 meets no deviation.
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


ACTIVATED = [
    (1, 1, 1, 1, 1),
    (1, 1, 3, 5, 7),
    (2, 24, 2, 9, 5),
    (1, 130, 1, 2, 9),
    (3, 2, 1, 1, 3),
    (1, 7, 2, 3, 4),
    (2, 16, 4, 4, 4),
    (1, 32, 3, 8, 3),
    (1, 48, 2, 2, 2),
    (2, 65, 1, 3, 2),
    (1, 96, 1, 6, 6),
    (1, 192, 2, 3, 3),
]


@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("shape", ACTIVATED)
def test_norm_and_silu(shape, summed):
    check_activation(shape, torch.float32, summed=summed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_norm_and_silu_in_half_precision(dtype):
    check_activation(ACTIVATED[2], dtype, summed=True)


def check_activation(shape, dtype, *, summed):
    x, residual = (randn(*shape, seed=seed).to(dtype) for seed in (0, 1))
    affine = [randn(*shape[:2], seed=seed) for seed in (2, 3)]

    def operation(x, scale, shift, residual=None):
        return norm_silu(x, norm=Affine(scale, shift), residual=residual)

    inputs = [x, *affine, residual] if summed else [x, *affine]
    compare(operation, inputs, precision=str(dtype).removeprefix("torch."))


@pytest.mark.usefixtures("poisoned_memory", "deep")
def test_any_memory_format_is_taken_and_all_of_the_output_is_written():
    inputs, packing = draw((1, 17, 2, 3, 4), 5, (3, 3, 3), norm=True, residual=True)
    with torch.no_grad():
        y = run(packing=packing, **inputs)
        assert y.is_contiguous(memory_format=torch.channels_last_3d) and y.isfinite().all()
        inputs["x"] = inputs["x"].contiguous().transpose(3, 4).contiguous().transpose(3, 4)
        inputs["residual"] = inputs["residual"].contiguous()
        assert torch.equal(run(packing=packing, **inputs), y)


@pytest.mark.parametrize(
    ("architecture", "dtype", "channels", "edge", "deep", "stages"),
    [
        (80, torch.bfloat16, 32, 96, True, 2),
        (80, torch.bfloat16, 64, 48, False, 3),
        (86, torch.float16, 32, 48, True, 2),
        (90, torch.bfloat16, 64, 48, True, 3),
        (90, torch.bfloat16, 64, 24, False, 3),
        (90, torch.bfloat16, 128, 48, False, 3),
        (90, torch.float32, 32, 96, False, 3),
        (120, torch.bfloat16, 64, 48, False, 3),
    ],
)
def test_the_loop_fits_the_gpu(monkeypatch, architecture, dtype, channels, edge, deep, stages):
    monkeypatch.setattr(kernels, "_architecture", lambda: architecture)
    x = torch.empty(1, channels, edge, edge, edge, dtype=dtype, device="meta")
    plan = kernels._Plan.of(x, pack_convolution(x.new_empty(channels, channels, 3, 3, 3)))
    assert (plan.deep, plan.stages) == (deep, stages)


@pytest.mark.long
@pytest.mark.parametrize(("architecture", "channels", "size"), [(80, 32, (45, 27, 31)), (90, 64, (24, 49, 30))])
def test_real_channels_and_many_squares(monkeypatch, architecture, channels, size):
    monkeypatch.setattr(kernels, "_architecture", lambda: architecture)
    inputs, packing = draw((1, channels, *size), channels, (3, 3, 3), norm=True, residual=True, dtype=torch.bfloat16)
    with torch.inference_mode():
        with launches.counted() as found:
            y, moments = run(packing=packing, moments=True, **inputs)
        assert found["_convolve_deep"] == 1
        with implementation("reference"):
            wanted, of_whole = run(packing=packing, moments=True, **{k: v.double() for k, v in inputs.items()})
        norm = {"bias": torch.zeros(channels), "groups": 32, "eps": 1e-6}
        seen = norm_of_moments(moments, torch.ones(channels), **norm)
        with implementation("reference"):
            expected = norm_of_moments(of_whole, torch.ones(channels), **norm)
    assert (y.double() - wanted).norm() < 1e-2 * wanted.norm()
    torch.testing.assert_close(seen.scale.double(), expected.scale.double(), rtol=1e-3, atol=0)


def test_the_deep_loop_is_one_launch(deep):
    inputs, packing = draw((1, 17, 2, 3, 4), 5, (3, 3, 3))
    with torch.inference_mode(), launches.counted() as found:
        weight = pack_convolution(inputs["weight"], **packing)
        found.clear()
        convolve(inputs["x"], weight, bias=inputs["bias"], moments=True)
    assert found == {"_convolve_deep": 1}


def test_a_residual_block_is_four_launches():
    x, weight = randn(1, 32, 2, 3, 4).contiguous(memory_format=torch.channels_last_3d), randn(32, 32, 3, 3, 3)
    packed, ones = pack_convolution(weight), torch.ones(32)
    norm = {"weight": ones, "bias": ones, "groups": 8, "eps": 1e-6}
    first = Affine(torch.ones(1, 32), torch.ones(1, 32))
    with torch.inference_mode(), launches.counted() as found:
        h, moments = convolve(x, packed, bias=ones, norm=first, moments=True)
        second = norm_of_moments(moments, **norm)
        y, moments = convolve(h, packed, bias=ones, norm=second, residual=x, moments=True)
        norm_of_moments(moments, **norm)
    assert found == {"_convolve_rows": 2, "_norm_of_moments": 2} and y.shape == x.shape


def test_a_block_within_slices_is_five_launches():
    x, skip = (randn(1, 6, 2, 3, 4, seed=seed).contiguous(memory_format=torch.channels_last_3d) for seed in (0, 1))
    of_two = {"zero_rim": True, "channels": (6, 6)}
    first, shortcut = (pack_convolution(randn(8, 12, edge, edge), **of_two) for edge in (3, 1))
    second, ones = pack_convolution(randn(8, 8, 3, 3), zero_rim=True), torch.ones(8)
    norm = {"weight": ones, "bias": ones, "groups": 4, "eps": 1e-5}
    modulation = {"scale": torch.ones(1, 8), "shift": torch.ones(1, 8)}
    with torch.inference_mode(), launches.counted() as found:
        h, moments = convolve(x, first, bias=ones, skip=skip, moments=True)
        h, moments = convolve(h, second, bias=ones, norm=norm_of_moments(moments, **norm, **modulation), moments=True)
        last = norm_of_moments(moments, **norm)
        convolve(x, shortcut, bias=ones, skip=skip, residual=h, residual_norm=last)
    assert found == {"_convolve_rows": 3, "_norm_of_moments": 2}


@pytest.mark.parametrize("case", [CASES[2], CASES[12]])
def test_the_operation_is_well_formed(case):
    shape, out, kernel, options = case
    inputs, packing = draw(shape, out, kernel, **options)
    whole = pack_convolution(inputs["weight"], **packing)
    volumes = (inputs["x"], inputs.get("skip"), whole.weight, whole.packed, inputs["bias"])
    names = ("scale", "shift", "residual", "residual_scale", "residual_shift")
    tensors = (*volumes, *map(inputs.get, names))
    trained = [t.clone().requires_grad_() if t is not None and t is not whole.packed else t for t in tensors]
    options = (whole.stride, whole.transposed, whole.zero_rim)
    torch.library.opcheck(kernels.convolve, (*trained, *options, False, torch.float32))
    torch.library.opcheck(kernels.convolve, (*tensors, *options, True, torch.bfloat16))


def test_what_follows_is_well_formed():
    counts, means = torch.ones(2, 3), torch.ones(2, 3, 4)
    parameters = (torch.ones(4), torch.ones(4), torch.ones(2, 4), torch.ones(2, 4))
    torch.library.opcheck(joining.norm_of_moments, (counts, means, means.clone(), *parameters, 2, 1e-5))
    x, residual = (randn(2, 4, 1, 2, 3, seed=seed).contiguous(memory_format=torch.channels_last_3d) for seed in (0, 1))
    trained = [tensor.requires_grad_() for tensor in (x, randn(2, 4), randn(2, 4, seed=1), residual)]
    torch.library.opcheck(activating.norm_silu, trained)
    torch.library.opcheck(activating.norm_silu, (*trained[:3], None))
