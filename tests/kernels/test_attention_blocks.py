"""Attention blocks against loops in float64, and their gradients."""

import math

import pytest
import torch
from test_attention_operations import naive_depth_attention, naive_linear_attention, relative

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels import depth_block, linear_block, spatial_block

EPS = 1e-5
# b, channels, heads, channels of a head, d, h, w
SHAPES = [(1, 1, 1, 2, 1, 1, 1), (2, 5, 1, 4, 3, 2, 1), (1, 8, 3, 6, 4, 1, 3), (2, 3, 2, 8, 2, 2, 2)]


def draw(shape, *, seed=0):
    """x, gain, to_qkv, to_out, bias along depth, frequencies, and bias of the projection."""
    batch, channels, heads, head_dim, d, h, w = shape
    generator = torch.Generator().manual_seed(seed)

    def randn(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64)

    inner = heads * head_dim
    frequencies = 10000.0 ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    volume = randn(batch, channels, d, h, w) + 1
    weights = (randn(channels), randn(3 * inner, channels), randn(channels, inner))
    return volume, *weights, randn(heads, d, d), frequencies, randn(channels)


def operations(shape):
    """Of (x, gain, to_qkv, to_out, bias, frequencies, out_bias), by the name of what attends."""
    heads, depth = shape[2], shape[4]

    def of_depth(x, gain, to_qkv, to_out, bias, frequencies, _):
        angles = torch.arange(depth, dtype=frequencies.dtype)[:, None] * frequencies
        return depth_block(
            x, gain, to_qkv=to_qkv, to_out=to_out, bias=bias, cos=angles.cos(), sin=angles.sin(), eps=EPS
        )

    def of_positions(x, gain, to_qkv, to_out, _bias, _frequencies, out_bias):
        return linear_block(x, gain, to_qkv=to_qkv, to_out=to_out, out_bias=out_bias, heads=heads, eps=EPS)

    def of_slices(x, gain, to_qkv, to_out, *_):
        return spatial_block(x, gain, to_qkv=to_qkv, to_out=to_out, heads=heads, eps=EPS)

    return {"depth": of_depth, "linear": of_positions, "spatial": of_slices}


def naive(kind, heads, x, gain, to_qkv, to_out, bias, frequencies, out_bias):
    """Voxel by voxel."""
    qkv = torch.zeros(len(x), len(to_qkv), *x.shape[2:], dtype=x.dtype)
    places = [(b, z, y, x_) for b in range(len(x)) for z, y, x_ in torch.ones(x.shape[2:]).nonzero().tolist()]
    for b, *at in places:
        voxel = x[(b, slice(None), *at)]
        normed = (voxel - voxel.mean()) / ((voxel - voxel.mean()).square().mean() + EPS).sqrt() * gain
        qkv[(b, slice(None), *at)] = to_qkv @ normed
    if kind == "depth":
        attended = naive_depth_attention(qkv, bias, frequencies)
    elif kind == "linear":
        attended = naive_linear_attention(qkv, heads)
    else:
        attended = naive_spatial_attention(qkv, heads)
    out = torch.zeros_like(x)
    for b, *at in places:
        place = (b, slice(None), *at)
        out[place] = x[place] + to_out @ attended[place] + (out_bias if kind == "linear" else 0)
    return out


def naive_spatial_attention(qkv, heads):
    batch, channels, depth, height, width = qkv.shape
    head_dim = channels // 3 // heads
    parts = qkv.reshape(batch, 3, heads, head_dim, depth, height * width)
    out = torch.zeros(batch, heads, head_dim, depth, height * width, dtype=qkv.dtype)
    for b in range(batch):
        for head in range(heads):
            for z in range(depth):
                q, k, v = parts[b, :, head, :, z]
                for n in range(height * width):
                    weights = torch.exp((q[:, n, None] * k).sum(0) / math.sqrt(head_dim))
                    out[b, head, :, z, n] = (v * weights).sum(1) / weights.sum()
    return out.reshape(batch, -1, depth, height, width)


@pytest.mark.parametrize("kind", ["depth", "linear", "spatial"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_block_equals_a_loop_over_voxels(kind, shape):
    inputs = draw(shape)
    expected = naive(kind, shape[2], *inputs)
    operation = operations(shape)[kind]
    assert relative(operation(*inputs), expected) < 1e-12
    assert relative(operation(*(tensor.float() for tensor in inputs)), expected) < 1e-4


@pytest.mark.parametrize("kind", ["depth", "linear", "spatial"])
def test_the_parameters_may_be_of_another_precision_than_the_volume(kind):
    x, *parameters = draw(SHAPES[1])
    operation, rounded = operations(SHAPES[1])[kind], x.bfloat16()
    out = operation(rounded, *(tensor.float() for tensor in parameters))
    assert out.dtype == torch.bfloat16
    assert relative(out, operation(rounded.double(), *parameters)) < 3e-2


@pytest.mark.parametrize("kind", ["depth", "linear", "spatial"])
def test_gradients_equal_finite_differences(kind):
    shape = (1, 3, 1, 2, 2, 1, 2)
    *trained, bias, frequencies, out_bias = draw(shape)
    trained = [tensor.requires_grad_() for tensor in (*trained, bias, out_bias)]
    operation = operations(shape)[kind]
    assert torch.autograd.gradcheck(
        lambda *given: operation(*given[:-1], frequencies, given[-1]), trained, nondet_tol=1e-12
    )


@pytest.mark.parametrize(("kind", "named"), [("depth", "bias"), ("linear", "out_bias"), ("spatial", "to_qkv")])
def test_wrong_arguments_are_named(kind, named):
    x, gain, to_qkv, to_out, bias, frequencies, out_bias = draw(SHAPES[3])
    operation = operations(SHAPES[3])[kind]
    with pytest.raises(InputError, match=r"^x: .*without an empty axis"):
        operation(x[:0], gain, to_qkv, to_out, bias, frequencies, out_bias)
    with pytest.raises(InputError, match=r"^gain: expected shape"):
        operation(x, gain[1:], to_qkv, to_out, bias, frequencies, out_bias)
    with pytest.raises(InputError, match=r"^to_qkv: expected "):
        operation(x, gain, to_qkv[2:], to_out, bias, frequencies, out_bias)
    with pytest.raises(InputError, match=r"^to_out: expected shape"):
        operation(x, gain, to_qkv, to_out[:, 1:], bias, frequencies, out_bias)
    wrong = {"bias": bias[:, 1:], "out_bias": out_bias[1:], "to_qkv": to_qkv[:, 1:]}
    given = {"bias": bias, "out_bias": out_bias, "to_qkv": to_qkv} | {named: wrong[named]}
    with pytest.raises(InputError, match=f"^{named}: expected "):
        operation(x, gain, given["to_qkv"], to_out, given["bias"], frequencies, given["out_bias"])
