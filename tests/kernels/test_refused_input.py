"""What the operations cannot take is refused by the public function, by the argument's name, before any launch."""

import importlib.util
import sys

import pytest
import torch
from torch._subclasses import FakeTensorMode

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels import (
    Affine,
    PartialMoments,
    convolve,
    denoise_step,
    depth_attention,
    depth_block,
    group_norm_modulate_silu,
    linear_block,
    norm_of_moments,
    norm_silu,
    pack_convolution,
    prepare_codes,
    spatial_block,
    spatial_linear_attention,
    standard_normal,
    vector_quantize,
)
from nnunet_difftumor.kernels.implementation import implementation

ONES = torch.ones(4)


def quantize(vectors=None, codebook=None):
    return vector_quantize(ones(3, 8) if vectors is None else vectors, ones(4, 8) if codebook is None else codebook)


def depth(qkv=None, bias=None, frequencies=None):
    qkv = ones(1, 12, 3, 2, 2) if qkv is None else qkv
    bias = torch.zeros(1, 3, 3) if bias is None else bias
    return depth_attention(qkv, bias, torch.ones(2) if frequencies is None else frequencies)


def linear(qkv=None, heads=1):
    return spatial_linear_attention(ones(1, 12, 3, 2, 2) if qkv is None else qkv, heads=heads)


def prepare(codebook=None):
    prepare_codes(ones(4, 8) if codebook is None else codebook)


def block(operation=spatial_block, x=None, **named):
    named = {"gain": ONES, "to_qkv": ones(12, 4), "to_out": ones(4, 4), "eps": 1e-5, **named}
    if operation is depth_block:
        named = {"bias": ones(1, 3, 3), "cos": ones(3, 2), "sin": ones(3, 2), **named}
    else:
        named = {"heads": 1, **named}
    if operation is linear_block:
        named = {"out_bias": ONES, **named}
    return operation(ones(1, 4, 3, 2, 2) if x is None else x, **named)


def norm(x=None, weight=ONES, bias=ONES, groups=2, eps=1e-5, **named):
    x = ones(2, 4, 2, 2, 2) if x is None else x
    return group_norm_modulate_silu(x, weight, bias=bias, groups=groups, eps=eps, **named)


def noise(seeds=None, count=3, stream=0):
    return standard_normal(ones(2, dtype=torch.int64) if seeds is None else seeds, count, stream=stream)


def pack(weight=None, **named):
    return pack_convolution(ones(3, 4, 3, 3, 3) if weight is None else weight, **named)


def step(z=None, predicted=None, noise=None, coefficients=None):
    whole = ones(2, 4, 2, 2, 2)
    given = whole if z is None else z, whole if predicted is None else predicted
    return denoise_step(*given, noise, coefficients=ones(6) if coefficients is None else coefficients, clip=True)


def conv(x=None, weight=None, bias=None, **named):
    weight = pack() if weight is None else weight
    return convolve(ones(2, 4, 2, 2, 2) if x is None else x, weight, bias=ones(3) if bias is None else bias, **named)


def join(counts=None, means=None, deviations=None, weight=ONES, bias=ONES, groups=2, eps=1e-5, **named):
    means = ones(2, 3, 4) if means is None else means
    counts = ones(2, 3) if counts is None else counts
    moments = PartialMoments(counts, means, ones(2, 3, 4) if deviations is None else deviations)
    return norm_of_moments(moments, weight, bias=bias, groups=groups, eps=eps, **named)


def activate(x=None, norm=None, **named):
    x = ones(2, 4, 2, 2, 2) if x is None else x
    return norm_silu(x, norm=affine(2, 4) if norm is None else norm, **named)


def affine(*shape, **options):
    return Affine(ones(*shape, **options), ones(*shape, **options))


def ones(*shape, **options):
    return torch.ones(shape, **options)


ELSEWHERE = {"device": "meta"}
BLOCKS = (depth_block, linear_block, spatial_block)


@pytest.mark.parametrize(
    ("operation", "named", "arguments"),
    [
        (quantize, "vectors", {"vectors": ones(3, 8, 1)}),
        (quantize, "vectors", {"vectors": [1.0]}),
        (quantize, "codebook", {"codebook": ones(4, 8, dtype=torch.int32)}),
        (quantize, "codebook", {"codebook": ones(4, 8).index_fill(0, torch.tensor(2), torch.inf)}),
        (depth, "qkv", {"qkv": ones(1, 12, 3, 2)}),
        (depth, "qkv", {"qkv": ones(0, 12, 3, 2, 2)}),
        (depth, "qkv", {"qkv": ones(1, 12, 3, 2, 2, dtype=torch.int64)}),
        (depth, "bias", {"bias": ones(1, 3, 3, **ELSEWHERE)}),
        (depth, "bias", {"bias": ones(3, 3)}),
        (depth, "bias", {"bias": ones(1, 4, 4)}),
        (depth, "bias", {"bias": ones(1, 3, 3, dtype=torch.int64)}),
        (depth, "frequencies", {"frequencies": ones(2, **ELSEWHERE)}),
        (depth, "qkv", {"frequencies": ones(3)}),
        (linear, "qkv", {"qkv": ones(1, 12, 2, 2)}),
        (linear, "qkv", {"qkv": ones(1, 12, 0, 2, 2)}),
        (linear, "qkv", {"heads": 0}),
        (norm, "x", {"x": ones(0, 4, 2, 2, 2)}),
        (norm, "x", {"x": ones(2, 4, 2, 2, 2, dtype=torch.uint8)}),
        (norm, "groups", {"groups": 0}),
        (norm, "eps", {"eps": -1e-5}),
        (norm, "eps", {"eps": float("nan")}),
        (norm, "weight", {"weight": ones(3)}),
        (norm, "weight", {"weight": ones(4, **ELSEWHERE)}),
        (norm, "bias", {"bias": ones(4, dtype=torch.int64)}),
        (norm, "scale", {"scale": ones(2, 4, **ELSEWHERE), "shift": ones(2, 4)}),
        (norm, "shift", {"scale": ones(2, 4), "shift": ones(1, 4)}),
        *((block, "x", {"operation": kind, "x": ones(1, 4, 3, 2)}) for kind in BLOCKS),
        *((block, "x", {"operation": kind, "x": ones(1, 4, 3, 2, 2, dtype=torch.int64)}) for kind in BLOCKS),
        *((block, "gain", {"operation": kind, "gain": ones(4, **ELSEWHERE)}) for kind in BLOCKS),
        *((block, "eps", {"operation": kind, "eps": -1.0}) for kind in BLOCKS),
        (block, "to_qkv", {"heads": 0}),
        (block, "to_qkv", {"to_qkv": ones(15, 4)}),
        (block, "to_out", {"to_out": ones(4, 4, dtype=torch.int32)}),
        (block, "bias", {"operation": depth_block, "bias": ones(3, 3)}),
        (block, "cos", {"operation": depth_block, "cos": ones(4, 2)}),
        (block, "sin", {"operation": depth_block, "sin": ones(3, 2, **ELSEWHERE)}),
        (block, "out_bias", {"operation": linear_block, "out_bias": ones(5)}),
        (prepare, "codebook", {"codebook": ones(4)}),
        (prepare, "codebook", {"codebook": ones(4, 8, dtype=torch.int32)}),
        (noise, "seeds", {"seeds": [1, 2]}),
        (noise, "seeds", {"seeds": ones(2)}),
        (noise, "seeds", {"seeds": ones(2, dtype=torch.int32)}),
        (noise, "seeds", {"seeds": ones(0, dtype=torch.int64)}),
        (noise, "seeds", {"seeds": ones(2, 1, dtype=torch.int64)}),
        (noise, "count", {"count": 0}),
        (noise, "count", {"count": 2.0}),
        (noise, "count", {"count": 2**30 + 1}),
        (noise, "stream", {"stream": -1}),
        (noise, "stream", {"stream": 2**32}),
        (pack, "weight", {"weight": ones(3, 4, 3)}),
        (pack, "weight", {"weight": ones(3, 4, 3, 3, 3, dtype=torch.int64)}),
        (pack, "stride", {"stride": (1, 1)}),
        (pack, "stride", {"stride": (0, 1, 1)}),
        (pack, "stride", {"stride": (4, 1, 1)}),
        (pack, "stride", {"weight": ones(3, 4, 3, 3), "stride": (2, 1, 1)}),
        (pack, "stride", {"stride": (2, 2, 2), "transposed": True}),
        (pack, "channels", {"channels": (3, 2)}),
        (pack, "channels", {"channels": (4, 0)}),
        (pack, "channels", {"channels": (1, 1, 2)}),
        (step, "z", {"z": ones(2, 4, 2, 2)}),
        (step, "predicted", {"predicted": ones(2, 4, 2, 2, 1)}),
        (step, "predicted", {"predicted": ones(2, 4, 2, 2, 2, **ELSEWHERE)}),
        (step, "noise", {"noise": ones(2, 3, 2, 2, 2)}),
        (step, "coefficients", {"coefficients": ones(5)}),
        (step, "coefficients", {"coefficients": ones(6, dtype=torch.int64)}),
        (conv, "x", {"x": ones(2, 4, 2, 2)}),
        (conv, "x", {"x": ones(2, 3, 2, 2, 2)}),
        (conv, "x", {"weight": pack(stride=(3, 1, 1))}),
        (conv, "weight", {"weight": pack(ones(3, 4, 3, 3, 3, dtype=torch.float64))}),
        (conv, "dtype", {"dtype": torch.int64}),
        (conv, "dtype", {"dtype": torch.float64}),
        (conv, "weight", {"x": ones(2, 4, 2, 2, 2, **ELSEWHERE)}),
        (conv, "bias", {"bias": ones(4)}),
        (conv, "skip", {"skip": ones(2, 4, 2, 2, 2)}),
        (conv, "skip", {"x": ones(2, 3, 2, 2, 2), "weight": pack(channels=(3, 1))}),
        (conv, "skip", {"x": ones(2, 3, 2, 2, 2), "weight": pack(channels=(3, 1)), "skip": ones(2, 1, 2, 2, 3)}),
        (conv, "norm, scale", {"norm": affine(1, 4)}),
        (conv, "norm, scale", {"norm": affine(2, 4, dtype=torch.bfloat16)}),
        (
            conv,
            "skip, norm",
            {
                "x": ones(2, 3, 2, 2, 2),
                "weight": pack(channels=(3, 1)),
                "skip": ones(2, 1, 2, 2, 2),
                "norm": affine(2, 3),
            },
        ),
        (conv, "residual", {"residual": ones(2, 3, 2, 2, 1)}),
        (conv, "residual", {"residual": ones(2, 3, 2, 2, 2, dtype=torch.float64)}),
        (conv, "residual_norm", {"residual_norm": affine(2, 3)}),
        (conv, "residual_norm, scale", {"residual": ones(2, 3, 2, 2, 2), "residual_norm": affine(2, 4)}),
        (conv, "moments", {"bias": ones(3, requires_grad=True), "moments": True}),
        (join, "moments", {"means": ones(2, 4)}),
        (join, "moments, counts", {"counts": ones(2, 1)}),
        (join, "moments, deviations", {"deviations": ones(2, 3, 5)}),
        (join, "groups", {"groups": 3}),
        (join, "eps", {"eps": float("nan")}),
        (join, "weight", {"weight": ones(3)}),
        (join, "bias", {"bias": ones(4, **ELSEWHERE)}),
        (join, "scale, shift", {"scale": ones(2, 4)}),
        (join, "shift", {"scale": ones(2, 4), "shift": ones(4)}),
        (activate, "x", {"x": ones(2, 4, 2, 2)}),
        (activate, "residual", {"residual": ones(2, 4, 2, 2, 1)}),
        (activate, "residual", {"residual": ones(2, 4, 2, 2, 2, dtype=torch.float16)}),
        (activate, "norm, shift", {"norm": Affine(ones(2, 4), ones(4))}),
    ],
)
def test_wrong_shapes_dtypes_and_devices(operation, named, arguments):
    with pytest.raises(InputError, match=f"^{named}: "):
        operation(**arguments)


@pytest.mark.parametrize(
    ("operation", "message", "arguments"),
    [
        (quantize, "vectors: is torch.float64, the kernels take", {"vectors": ones(3, 8, dtype=torch.float64)}),
        (quantize, "codebook: has 42 channels", {"vectors": ones(3, 42), "codebook": ones(4, 42)}),
        (quantize, "vectors: has 300000000 rows", {"vectors": ones(1, 8).expand(300_000_000, 8)}),
        (quantize, "codebook: has 20000000 rows", {"codebook": ones(1, 8).expand(20_000_000, 8)}),
        (depth, "qkv: is torch.float64", {"qkv": ones(1, 12, 3, 2, 2, dtype=torch.float64)}),
        (depth, "qkv: has 129 slices", {"qkv": ones(1, 12, 129, 1, 1), "bias": ones(1, 129, 129)}),
        (depth, "qkv: has 130 channels per head", {"qkv": ones(1, 390, 3, 1, 1), "frequencies": ones(65)}),
        (linear, "qkv: is torch.float64", {"qkv": ones(1, 12, 3, 2, 2, dtype=torch.float64)}),
        (linear, "qkv: has 130 channels per head", {"qkv": ones(1, 390, 1, 1, 1)}),
        (norm, "x: is torch.float64", {"x": ones(2, 4, 2, 2, 2, dtype=torch.float64)}),
        *(
            (block, "x: is torch.float64", {"operation": kind, "x": ones(1, 4, 3, 2, 2, dtype=torch.float64)})
            for kind in BLOCKS
        ),
        (prepare, "codebook: has 42 channels", {"codebook": ones(4, 42)}),
        (
            conv,
            "x: is torch.float64",
            {"x": ones(2, 4, 2, 2, 2).double(), "weight": pack(ones(3, 4, 3, 3, 3).double())},
        ),
        (join, "moments: is torch.float64", {"means": ones(2, 3, 4, dtype=torch.float64)}),
        (join, "weight, bias, scale, shift: have no gradients", {"bias": ones(4, requires_grad=True)}),
        (
            activate,
            "x: is torch.float64",
            {key: ones(2, 4, 2, 2, 2).double() for key in ("x", "residual")}
            | {"norm": affine(2, 4, dtype=torch.float64)},
        ),
        (
            norm,
            "x: has 1025 channels",
            {"x": ones(1, 1025, 1, 1, 1), "weight": ones(1025), "bias": ones(1025), "groups": 1},
        ),
    ],
)
def test_what_only_the_references_can_take(operation, message, arguments, monkeypatch):
    # A look through all values of a codebook that only seems so long would take its time.
    module = sys.modules["nnunet_difftumor.kernels.vector_quantize"]
    monkeypatch.setattr(module, "check_finite", lambda *_: None)
    with implementation("triton"), pytest.raises(InputError, match=f"^{message}"):
        operation(**arguments)


@pytest.mark.parametrize("operation", [depth, linear, norm, conv])
def test_samples_beyond_32_bits(operation):
    with FakeTensorMode(), implementation("triton"):
        shape = (1, 12, 3, 20_000, 20_000) if operation in (depth, linear) else (1, 4, 10, 10_000, 10_000)
        inputs = [torch.empty(shape)]
        if operation is norm:
            inputs += [torch.ones(4), torch.ones(4)]
        if operation is depth:
            inputs += [torch.zeros(1, 3, 3), torch.ones(2)]
        with pytest.raises(InputError, match=r"^(qkv|x): a sample of .* reaches over"):
            operation(*inputs)


def test_heads_beyond_32_bits():
    with FakeTensorMode(), implementation("triton"):
        x, weights = torch.empty(1, 1, 3, 20_000, 20_000), {"to_qkv": ones(12, 1), "to_out": ones(1, 4)}
        with pytest.raises(InputError, match=r"^x: its heads have 4800000000 elements in a sample"):
            block(linear_block, x, gain=ones(1), out_bias=ones(1), **weights)


def test_an_output_beyond_32_bits():
    with FakeTensorMode(), implementation("triton"):
        weight = pack(ones(4, 64, 4, 4, 4), stride=(2, 2, 2), transposed=True)
        with pytest.raises(InputError, match=r"^x: makes \(64, 800, 800, 800\) per sample"):
            conv(ones(1, 4, 400, 400, 400), weight, ones(64))


@pytest.fixture
def on_cuda():
    """Tensors that say they are on a GPU, and have no memory."""
    with FakeTensorMode():
        return {
            quantize: {"vectors": ones(3, 8, device="cuda"), "codebook": ones(4, 8, device="cuda")},
            linear: {"qkv": ones(1, 12, 3, 2, 2, device="cuda")},
            noise: {"seeds": ones(2, dtype=torch.int64, device="cuda")},
        }


@pytest.mark.parametrize(("operation", "named"), [(quantize, "vectors"), (linear, "qkv"), (noise, "seeds")])
def test_a_gpu_that_is_too_old(on_cuda, monkeypatch, operation, named):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))
    with pytest.raises(InputError, match=rf"^{named}: is on a GPU of compute capability 7\.5, the kernels need 8\.0"):
        operation(**on_cuda[operation])


@pytest.mark.parametrize(("operation", "named"), [(quantize, "vectors"), (linear, "qkv"), (noise, "seeds")])
def test_a_gpu_without_triton_does_not_fall_back(on_cuda, monkeypatch, operation, named):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=f"^{named}: is on a GPU, and triton is not installed"):
        operation(**on_cuda[operation])


def test_an_implementation_that_there_is_not():
    with pytest.raises(InputError, match=r"^implementation: expected one of .* got 'cuda'"), implementation("cuda"):
        pass
