"""Attention blocks by their kernels against float64, and when they run."""

import sys

import launches
import pytest
import torch
from against_float64 import compare, dtype_of

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.networks.attention import (
    DepthAttention,
    DepthPositions,
    SpatialAttention,
    SpatialLinearAttention,
    rotary_frequencies,
)
from nnunet_difftumor.kernels import depth_block, linear_block, spatial_block
from nnunet_difftumor.kernels.implementation import implementation
from nnunet_difftumor.kernels.triton import attention_blocks as kernels

# b, channels, heads, channels of a head, slices, height, width.
SHAPES = {
    "depth": [
        (1, 1, 1, 2, 1, 1, 1),
        (1, 24, 2, 32, 24, 1, 2),
        (2, 48, 1, 32, 5, 3, 1),
        (1, 96, 1, 32, 9, 1, 2),
        (1, 192, 1, 32, 24, 1, 1),
        (1, 7, 3, 6, 4, 2, 1),
        (2, 33, 1, 16, 17, 1, 1),
        (1, 16, 2, 48, 3, 1, 2),
        (1, 17, 1, 64, 33, 1, 1),
        (3, 5, 1, 20, 2, 2, 1),
        (1, 40, 1, 128, 7, 1, 1),
        (1, 24, 1, 8, 128, 1, 1),
    ],
    "linear": [
        (1, 1, 1, 1, 1, 1, 1),
        (1, 24, 2, 32, 1, 9, 9),
        (2, 48, 1, 32, 2, 3, 5),
        (1, 96, 1, 32, 1, 6, 6),
        (1, 192, 1, 32, 2, 3, 3),
        (1, 7, 3, 5, 2, 1, 3),
        (2, 33, 1, 16, 1, 4, 4),
        (1, 16, 2, 48, 1, 9, 1),
        (1, 17, 1, 64, 1, 11, 3),
        (3, 5, 1, 20, 1, 2, 2),
        (1, 40, 1, 128, 1, 3, 3),
        (1, 24, 1, 32, 1, 1, 65),
    ],
    "spatial": [
        (1, 1, 1, 2, 1, 1, 1),
        (1, 24, 2, 32, 2, 3, 3),
        (2, 48, 1, 32, 1, 4, 4),
        (1, 96, 1, 32, 2, 1, 3),
        (1, 192, 1, 32, 2, 3, 3),
        (1, 7, 3, 6, 2, 5, 2),
        (2, 33, 1, 16, 1, 6, 6),
        (1, 16, 2, 48, 1, 2, 5),
        (1, 17, 1, 64, 1, 9, 5),
        (3, 5, 1, 20, 2, 1, 2),
        (1, 40, 1, 128, 1, 3, 3),
        (1, 24, 1, 32, 1, 10, 12),
    ],
}
REAL = {kind: shapes[1] for kind, shapes in SHAPES.items()}


@pytest.fixture(autouse=True)
def poisoned_memory():
    """New tensors are NaN until something writes them."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def many_rows(monkeypatch):
    """The second launch takes as many rows at once as where there are many."""
    # The module in use, which is not the one that is imported above where a test has put another in its place.
    monkeypatch.setattr(sys.modules[kernels.__name__], "_PROGRAMS", 1)


def depth(x, gain, to_qkv, to_out, bias, cos, sin):
    return depth_block(x, gain, to_qkv=to_qkv, to_out=to_out, bias=bias, cos=cos, sin=sin, eps=1e-5)


def operation_of(kind, heads):
    if kind == "depth":
        return depth
    if kind == "linear":
        return lambda x, gain, to_qkv, to_out, out_bias: linear_block(
            x, gain, to_qkv=to_qkv, to_out=to_out, out_bias=out_bias, heads=heads, eps=1e-5
        )
    return lambda x, gain, to_qkv, to_out: spatial_block(x, gain, to_qkv=to_qkv, to_out=to_out, heads=heads, eps=1e-5)


def draw(kind, shape, *, dtype=torch.float32, channels_last=True):
    """The inputs of `operation_of`; what is added to x is not much smaller than x."""
    batch, channels, heads, head_dim, *volume = shape
    generator = torch.Generator().manual_seed(channels)

    def randn(*size):
        return torch.randn(size, generator=generator)

    x = (randn(batch, channels, *volume) + 1).to(dtype)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    inner = heads * head_dim
    gain = 1 + randn(channels) / 4
    to_qkv, to_out = randn(3 * inner, channels) / channels**0.5, randn(channels, inner) / inner**0.5
    weights = [x, *(weight.to(dtype) for weight in (gain, to_qkv, to_out))]
    if kind == "depth":
        bias, positions = randn(heads, volume[0], volume[0]), torch.arange(volume[0])
        angles = positions[:, None] * rotary_frequencies(head_dim)
        return [*weights, bias, angles.cos(), angles.sin()]
    return [*weights, randn(channels).to(dtype)] if kind == "linear" else weights


def check(kind, shape, *, precision="float32", inputs=None):
    inputs = draw(kind, shape) if inputs is None else inputs
    compare(operation_of(kind, shape[2]), inputs, precision=precision, trained=0)


@pytest.mark.parametrize(("kind", "shape"), [(kind, shape) for kind, shapes in SHAPES.items() for shape in shapes])
def test_any_shape(kind, shape):
    check(kind, shape)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", SHAPES)
def test_any_precision(kind, precision):
    check(kind, REAL[kind], precision=precision, inputs=draw(kind, REAL[kind], dtype=dtype_of(precision)))


@pytest.mark.usefixtures("many_rows")
@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_many_rows_at_once(precision):
    shape = (2, 24, 1, 32, 1, 11, 7)
    check("linear", shape, precision=precision, inputs=draw("linear", shape, dtype=dtype_of(precision)))


@pytest.mark.parametrize("layout", ["contiguous", "sliced", "transposed"])
@pytest.mark.parametrize("kind", SHAPES)
def test_any_layout(kind, layout):
    shape = (2, 6, 1, 8, 3, 2, 4)
    x, *parameters = draw(kind, shape, channels_last=False)
    if layout == "sliced":
        x = torch.cat((x, x), 3)[:, :, :, ::2]
    if layout == "transposed":
        x = x.transpose(3, 4)
    check(kind, shape, inputs=[x, *parameters])


@pytest.mark.parametrize("kind", SHAPES)
def test_a_large_mean_costs_no_digits(kind):
    x, *parameters = draw(kind, (1, 24, 1, 16, 3, 2, 2))
    x = x + 1000
    operation = operation_of(kind, 1)
    with torch.no_grad():
        added = operation(x, *parameters).double() - x
        with implementation("reference"):
            expected = operation(x.double(), *(parameter.double() for parameter in parameters)) - x
    assert (added - expected).norm() < 2e-4 * expected.norm()


@pytest.mark.parametrize("kind", SHAPES)
def test_large_logits_do_not_overflow(kind):
    x, gain, to_qkv, *parameters = draw(kind, (1, 24, 1, 32, 5, 3, 3))
    check(kind, (1, 24, 1, 32, 5, 3, 3), inputs=[x, gain, 20 * to_qkv, *parameters])


@pytest.mark.parametrize("kind", SHAPES)
def test_weights_of_another_precision_than_the_volume(kind):
    x, *parameters = draw(kind, REAL[kind])
    check(kind, REAL[kind], precision="bfloat16", inputs=[x.bfloat16(), *parameters])


@pytest.mark.parametrize("kind", SHAPES)
def test_a_block_is_two_launches_and_its_output_is_channels_last(kind):
    inputs = draw(kind, (2, 6, 1, 8, 3, 2, 4))
    with torch.inference_mode(), launches.counted() as found:
        out = operation_of(kind, 1)(*inputs)
    assert found == {"_attend_linearly" if kind == "linear" else "_attend": 1, "_project_and_add": 1}
    assert out.is_contiguous(memory_format=torch.channels_last_3d)


def test_more_positions_than_a_softmax_takes_are_left_to_pytorch():
    inputs = draw("spatial", (1, 4, 1, 4, 1, 10, 13))
    with launches.counted() as found:
        check("spatial", (1, 4, 1, 4, 1, 10, 13), inputs=inputs)
    assert "_attend" not in found


@pytest.mark.parametrize("kind", SHAPES)
def test_gradients_are_those_of_the_reference(kind):
    inputs, operation = draw(kind, (1, 6, 1, 8, 3, 2, 2)), operation_of(kind, 1)
    compare(operation, inputs, precision="float32", trained=4)


def block(kind):
    torch.manual_seed(0)
    made = {"depth": DepthAttention, "linear": SpatialLinearAttention, "spatial": SpatialAttention}[kind]
    arguments = (DepthPositions.of(torch.randn(2, 3, 3), rotary_frequencies(8)),) if kind == "depth" else ()
    return made(10, heads=2, head_dim=8), arguments


@pytest.mark.parametrize("kind", SHAPES)
def test_blocks_of_the_network_are_kernels_where_no_gradient_is_needed(kind):
    module, arguments = block(kind)
    x = torch.randn(1, 10, 3, 1, 2)
    with implementation("reference"):
        expected = module(x, *arguments).detach()
    with torch.inference_mode(), launches.counted() as found:
        seen = module(x, *arguments)
    assert sum(found.values()) == 2
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-5)
    with launches.counted() as found:
        module(x, *arguments).square().sum().backward()
    assert "_project_and_add" not in found
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


def test_blocks_of_the_network_keep_their_operations_under_autocast():
    module, _ = block("linear")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), launches.counted() as found:
        module(torch.randn(1, 10, 1, 2, 2))
    assert "_project_and_add" not in found


def test_too_many_slices_and_too_wide_heads_are_refused():
    with pytest.raises(InputError, match="has 129 slices, the kernel takes up to 128"), torch.no_grad():
        depth(*draw("depth", (1, 4, 1, 2, 129, 1, 1)))
    for kind in SHAPES:
        with pytest.raises(InputError, match="has 130 channels per head"), torch.no_grad():
            operation_of(kind, 1)(*draw(kind, (1, 4, 1, 130, 2, 1, 1)))


def test_the_operations_are_well_formed():
    shape = (1, 3, 1, 4, 2, 1, 3)
    torch.library.opcheck(kernels.depth_block, (*draw("depth", shape), 1e-5))
    torch.library.opcheck(kernels.linear_block, (*draw("linear", shape), 1, 1e-5))
    torch.library.opcheck(kernels.spatial_block, (*draw("spatial", shape), 1, 1e-5))
