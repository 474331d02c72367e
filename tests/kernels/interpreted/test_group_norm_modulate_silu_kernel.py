"""GroupNorm, modulation, SiLU and rim by their kernels against float64: output and all gradients."""

import sys

import pytest
import torch
from against_float64 import compare, dtype_of

from nnunet_difftumor.kernels import group_norm_modulate_silu
from nnunet_difftumor.kernels.triton import group_norm_modulate_silu as kernels

# Shape of x, groups, whether modulated, rim, whether channels-last, mean of x.
CASES = [
    ((1, 1, 1, 1, 3), 1, False, None, False, 0),
    ((2, 6, 3, 4, 5), 2, True, None, True, 0),
    ((2, 6, 3, 4, 5), 3, False, (1,) * 6, False, 0),
    ((2, 6, 3, 4, 5), 3, False, (1,) * 6, True, 0),
    ((1, 24, 4, 6, 6), 8, True, (2, 1, 0, 1, 1, 0), True, 0),
    ((1, 32, 2, 5, 3), 32, False, (1,) * 6, True, 0),
    ((1, 5, 1, 3, 1), 1, True, None, False, 0),
    ((1, 8, 17, 16, 17), 4, False, None, False, 30),
    ((1, 8, 17, 16, 17), 4, True, None, True, 30),
    ((3, 4, 1, 1, 7), 4, True, (0, 1, 0, 0, 0, 0), True, 0),
    ((1, 48, 3, 3, 3), 8, True, None, True, 5),
    ((1, 7, 2, 2, 2), 7, False, (2, 1, 0, 0, 0, 0), False, 0),
]


def draw(shape, *, modulated, channels_last, mean=0.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(shape))
    batch, channels = shape[:2]
    x = (mean + torch.randn(shape, generator=generator)).to(dtype)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    parameters = [1 + 0.3 * torch.randn(channels, generator=generator), torch.randn(channels, generator=generator)]
    if modulated:
        parameters += [0.5 * torch.randn(batch, channels, generator=generator) for _ in range(2)]
    return [x, *parameters]


def operation(groups, replicate, *, eps=1e-5):
    def run(x, weight, bias, scale=None, shift=None):
        return group_norm_modulate_silu(
            x, weight, bias=bias, groups=groups, eps=eps, scale=scale, shift=shift, replicate=replicate
        )

    return run


@pytest.mark.parametrize(("shape", "groups", "modulated", "replicate", "channels_last", "mean"), CASES)
def test_any_shape(shape, groups, modulated, replicate, channels_last, mean):
    inputs = draw(shape, modulated=modulated, channels_last=channels_last, mean=mean)
    compare(operation(groups, replicate), inputs, precision="float32")


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision(precision):
    inputs = draw((1, 8, 4, 5, 6), modulated=True, channels_last=True, dtype=dtype_of(precision))
    compare(operation(4, (1,) * 6), inputs, precision=precision)


def test_the_variance_gets_its_addend():
    inputs = draw((1, 4, 2, 3, 4), modulated=False, channels_last=True)
    compare(operation(2, None, eps=0.3), inputs, precision="float32")


@pytest.mark.parametrize("channels_last", [False, True])
def test_programs_that_join_several_tiles(monkeypatch, channels_last):
    # The module in use, which is not the one that is imported above where a test has put another in its place.
    in_use = sys.modules[kernels.__name__]
    monkeypatch.setattr(in_use, "_MOST_CHUNKS", 2)
    monkeypatch.setattr(in_use, "_ELEMENTS", 64)
    inputs = draw((1, 4, 5, 6, 7), modulated=False, channels_last=channels_last, mean=20)
    compare(operation(2, None), inputs, precision="float32")


def test_a_tensor_that_is_not_dense():
    inputs = draw((2, 4, 4, 3, 6), modulated=False, channels_last=False)
    compare(operation(2, None), [inputs[0][:, :, ::2].transpose(3, 4), *inputs[1:]], precision="float32")


def test_the_memory_format_is_kept():
    for channels_last in (False, True):
        inputs = draw((1, 4, 2, 3, 4), modulated=False, channels_last=channels_last)
        out = operation(2, (1,) * 6)(*inputs)
        assert out.is_contiguous(memory_format=torch.channels_last_3d) == channels_last


def test_the_operation_is_well_formed():
    inputs, rim = draw((1, 4, 2, 2, 3), modulated=True, channels_last=True), (1,) * 6
    y, mean, reciprocal = kernels.group_norm_modulate_silu(*inputs, 2, 1e-5, rim)
    gradient = torch.ones_like(y)
    torch.library.opcheck(kernels.group_norm_modulate_silu_backward, (gradient, *inputs, mean, reciprocal, 2, rim))
    trained = [tensor.requires_grad_() for tensor in inputs]
    torch.library.opcheck(kernels.group_norm_modulate_silu, (*trained, 2, 1e-5, rim))
