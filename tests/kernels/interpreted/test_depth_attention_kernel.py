"""Depth attention by its kernel against float64: output, and the gradients of qkv and bias."""

import pytest
import torch
from against_float64 import compare, dtype_of

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels import depth_attention
from nnunet_difftumor.kernels.implementation import implementation
from nnunet_difftumor.kernels.triton import depth_attention as kernels

# b, heads, channels of a head, slices, height, width.
SHAPES = [
    (1, 1, 32, 1, 1, 1),
    (1, 2, 32, 24, 2, 3),
    (2, 1, 32, 5, 1, 3),
    (1, 1, 8, 7, 2, 1),
    (1, 3, 16, 16, 1, 2),
    (1, 2, 48, 17, 1, 2),
    (1, 1, 64, 33, 1, 1),
    (2, 1, 32, 2, 3, 3),
    (1, 1, 2, 3, 1, 2),
    (1, 1, 128, 9, 1, 1),
    (1, 1, 32, 40, 1, 2),
    (3, 1, 20, 4, 1, 1),
]


def draw(shape, *, dtype=torch.float32, channels_last=True):
    batch, heads, head_dim, slices, height, width = shape
    generator = torch.Generator().manual_seed(slices)
    qkv = torch.randn(batch, 3 * heads * head_dim, slices, height, width, generator=generator).to(dtype)
    if channels_last:
        qkv = qkv.contiguous(memory_format=torch.channels_last_3d)
    bias = torch.randn(heads, slices, slices, generator=generator)
    return qkv, bias, 10000.0 ** -(torch.arange(0, head_dim, 2) / head_dim)


@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape(shape):
    compare(depth_attention, draw(shape), precision="float32", trained=2)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float16"])
def test_any_precision(precision):
    inputs = draw((1, 2, 32, 24, 1, 3), dtype=dtype_of(precision))
    compare(depth_attention, inputs, precision=precision, trained=2)


@pytest.mark.parametrize("layout", ["contiguous", "sliced", "transposed"])
def test_any_layout(layout):
    qkv, bias, frequencies = draw((2, 1, 32, 6, 2, 3), channels_last=False)
    if layout == "sliced":
        qkv = torch.cat((qkv, qkv), 3)[:, :, :, ::2]
    if layout == "transposed":
        qkv = qkv.transpose(3, 4)
    compare(depth_attention, (qkv, bias, frequencies), precision="float32", trained=2)


def test_the_gradient_of_the_bias_is_the_same_every_time():
    qkv, bias, frequencies = draw((1, 1, 16, 5, 4, 6))
    gradients = []
    for _ in range(2):
        leaf = bias.clone().requires_grad_()
        depth_attention(qkv, leaf, frequencies).square().sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


def test_too_many_slices_and_too_wide_heads_are_refused():
    with pytest.raises(InputError, match="has 129 slices, the kernel takes up to 128"):
        depth_attention(*draw((1, 1, 2, 129, 1, 1)))
    with pytest.raises(InputError, match="has 130 channels per head"):
        depth_attention(*draw((1, 1, 130, 2, 1, 1)))


def test_gradients_that_one_number_stands_for():
    # Of a sum: every stride of the gradient is 0.
    qkv, bias, frequencies = draw((1, 1, 16, 5, 2, 3))
    gradients = []
    for choice in ("triton", "reference"):
        leaf = qkv.clone().requires_grad_()
        with implementation(choice):
            depth_attention(leaf, bias, frequencies).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_the_operation_is_well_formed():
    qkv, bias, frequencies = draw((1, 1, 16, 3, 1, 2))
    constants = kernels.rotation(frequencies, 3)
    gradient = torch.ones(1, 16, 3, 1, 2)
    torch.library.opcheck(kernels.depth_attention_backward, (gradient, qkv, bias, *constants))
    torch.library.opcheck(kernels.depth_attention, (qkv.requires_grad_(), bias.requires_grad_(), *constants))
