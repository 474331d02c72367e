"""Depth attention and spatial linear attention against loops in float64, and their gradients."""

import math

import pytest
import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels import depth_attention, spatial_linear_attention

# (batch, heads, head_dim, d, h, w)
SHAPES = [
    (1, 1, 2, 1, 1, 1),
    (1, 2, 4, 3, 1, 2),
    (2, 1, 2, 5, 2, 3),
    (2, 3, 6, 4, 3, 1),
    (1, 3, 32, 24, 1, 1),
    (3, 2, 8, 7, 2, 2),
]


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def arguments(batch, heads, head_dim, d, h, w):
    frequencies = 10000.0 ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    return 2 * randn(batch, 3 * heads * head_dim, d, h, w), randn(heads, d, d, seed=1), frequencies


def naive_depth_attention(qkv, bias, frequencies):
    """One output at a time; rotation as a product of complex numbers."""
    batch, _, depth, height, width = qkv.shape
    heads, head_dim = bias.shape[0], 2 * len(frequencies)
    parts = qkv.reshape(batch, 3, heads, head_dim, depth, height, width)
    out = torch.zeros(batch, heads, head_dim, depth, height, width, dtype=qkv.dtype)
    turn = torch.exp(1j * torch.arange(depth)[:, None] * frequencies)
    for b in range(batch):
        for head in range(heads):
            for y in range(height):
                for x in range(width):
                    q, k, v = parts[b, :, head, :, :, y, x].transpose(1, 2)
                    q = torch.complex(q[:, ::2], q[:, 1::2]) * turn
                    k = torch.complex(k[:, ::2], k[:, 1::2]) * turn
                    for i in range(depth):
                        logits = [(q[i] * k[j].conj()).real.sum() / math.sqrt(head_dim) for j in range(depth)]
                        weights = torch.exp(torch.stack(logits) + bias[head, i])
                        out[b, head, :, i, y, x] = (weights / weights.sum()) @ v
    return out.reshape(batch, -1, depth, height, width)


def naive_linear_attention(qkv, heads):
    batch, channels, depth, height, width = qkv.shape
    head_dim = channels // 3 // heads
    parts = qkv.reshape(batch, 3, heads, head_dim, depth, height * width)
    out = torch.zeros(batch, heads, head_dim, depth, height * width, dtype=qkv.dtype)
    for b in range(batch):
        for head in range(heads):
            for z in range(depth):
                q, k, v = parts[b, :, head, :, z]
                q = q.exp() / q.exp().sum(0, keepdim=True) / math.sqrt(head_dim)
                k = k.exp() / k.exp().sum(1, keepdim=True)
                for n in range(height * width):
                    for e in range(head_dim):
                        context = (k * v[e]).sum(1)
                        out[b, head, e, z, n] = (context * q[:, n]).sum()
    return out.reshape(batch, -1, depth, height, width)


def relative(a, b):
    return ((a.double() - b).norm() / b.norm()).item()


@pytest.mark.parametrize("shape", SHAPES)
def test_depth_attention_equals_a_loop_over_columns(shape):
    qkv, bias, frequencies = arguments(*shape)
    expected = naive_depth_attention(qkv, bias, frequencies)
    assert relative(depth_attention(qkv, bias, frequencies), expected) < 1e-12
    assert relative(depth_attention(qkv.float(), bias.float(), frequencies.float()), expected) < 1e-5
    rounded = qkv.bfloat16()
    expected = naive_depth_attention(rounded.double(), bias, frequencies)
    assert relative(depth_attention(rounded, bias, frequencies.float()), expected) < 1e-2


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_attention_equals_a_loop_over_positions(shape):
    qkv = arguments(*shape)[0]
    expected = naive_linear_attention(qkv, shape[1])
    assert relative(spatial_linear_attention(qkv, heads=shape[1]), expected) < 1e-12
    assert relative(spatial_linear_attention(qkv.float(), heads=shape[1]), expected) < 1e-5
    rounded = qkv.bfloat16()
    expected = naive_linear_attention(rounded.double(), shape[1])
    assert relative(spatial_linear_attention(rounded, heads=shape[1]), expected) < 1e-2


def test_strides_do_not_matter():
    qkv, bias, frequencies = arguments(2, 2, 4, 3, 4, 5)
    channels_last = qkv.contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(depth_attention(channels_last, bias, frequencies), depth_attention(qkv, bias, frequencies))
    assert torch.equal(spatial_linear_attention(channels_last, heads=2), spatial_linear_attention(qkv, heads=2))


def test_gradients_equal_finite_differences():
    qkv, bias, frequencies = arguments(1, 2, 4, 3, 1, 2)
    qkv.requires_grad_(), bias.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: depth_attention(a, b, frequencies), (qkv, bias))
    assert torch.autograd.gradcheck(lambda a: spatial_linear_attention(a, heads=2), (qkv,))


def test_gradients_in_float32_are_those_in_float64():
    def gradients(dtype):
        qkv, bias, frequencies = (tensor.to(dtype) for tensor in arguments(2, 2, 8, 6, 3, 2))
        qkv.requires_grad_(), bias.requires_grad_()
        out = depth_attention(qkv, bias, frequencies) + spatial_linear_attention(qkv, heads=2)
        out.square().sum().backward()
        return qkv.grad, bias.grad

    for single, double in zip(gradients(torch.float32), gradients(torch.float64), strict=True):
        assert relative(single, double) < 1e-5


def test_wrong_arguments_are_named():
    qkv, bias, frequencies = arguments(1, 2, 4, 3, 2, 2)
    with pytest.raises(InputError, match=r"^qkv: expected 3 "):
        depth_attention(qkv[:, 1:], bias, frequencies)
    with pytest.raises(InputError, match=r"^qkv: .*without an empty axis"):
        depth_attention(qkv[:0], bias, frequencies)
    with pytest.raises(InputError, match=r"^bias: "):
        depth_attention(qkv, bias[:, 1:], frequencies)
    with pytest.raises(InputError, match=r"^frequencies: "):
        depth_attention(qkv, bias, frequencies.long())
    with pytest.raises(InputError, match=r"^qkv: .*7 heads"):
        spatial_linear_attention(qkv, heads=7)
    with pytest.raises(InputError, match=r"^qkv: .*floating"):
        spatial_linear_attention(qkv.long(), heads=2)
