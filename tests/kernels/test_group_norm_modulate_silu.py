"""The fused normalization against its formula in float64, and its gradients."""

import pytest
import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels import group_norm_modulate_silu


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive(x, weight, bias, groups, eps, scale, shift):
    y = torch.empty_like(x)
    size = x.shape[1] // groups
    for b in range(x.shape[0]):
        for group in range(groups):
            own = x[b, group * size : (group + 1) * size]
            variance = (own - own.mean()).square().mean()
            y[b, group * size : (group + 1) * size] = (own - own.mean()) / torch.sqrt(variance + eps)
    y = y * weight[:, None, None, None] + bias[:, None, None, None]
    if scale is not None:
        y = y * (1 + scale[:, :, None, None, None]) + shift[:, :, None, None, None]
    return y / (1 + torch.exp(-y))


SHAPES = [(1, 1, 1, 1, 2, 1), (1, 4, 3, 2, 1, 2), (2, 8, 3, 4, 5, 8), (3, 6, 2, 2, 2, 2), (2, 32, 5, 3, 4, 32)]


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_those_of_the_formula(shape, modulated):
    *size, groups = shape
    x, weight, bias = 3 * randn(*size) + 1, randn(size[1], seed=1), randn(size[1], seed=2)
    scale, shift = (randn(*size[:2], seed=3), randn(*size[:2], seed=4)) if modulated else (None, None)

    def relative(dtype):
        """Error of the operation alone: the formula gets the same rounded numbers."""
        rounded = [None if a is None else a.to(dtype) for a in (x, weight, bias, scale, shift)]
        exact = [None if a is None else a.double() for a in rounded]
        expected = naive(*exact[:3], groups, 1e-5, *exact[3:])
        y = group_norm_modulate_silu(
            rounded[0], rounded[1], bias=rounded[2], groups=groups, eps=1e-5, scale=rounded[3], shift=rounded[4]
        )
        return (y.double() - expected).norm() / expected.norm()

    assert relative(torch.float64) < 1e-12
    assert relative(torch.float32) < 1e-5
    assert relative(torch.bfloat16) < 1e-2


def test_the_rim_is_repeated_on_the_sides_that_are_asked_for():
    x, ones, zeros = randn(1, 2, 3, 4, 5), torch.ones(2).double(), torch.zeros(2).double()
    y = group_norm_modulate_silu(x, ones, bias=zeros, groups=1, eps=1e-6)
    padded = group_norm_modulate_silu(x, ones, bias=zeros, groups=1, eps=1e-6, replicate=(2, 1, 0, 1, 1, 0))
    assert padded.shape == (1, 2, 4, 5, 8)
    assert torch.equal(padded[:, :, 1:, :4, 2:7], y)
    assert torch.equal(padded[:, :, 1:, :4, 0], y[..., 0])
    assert torch.equal(padded[:, :, 0, 4, 7], y[:, :, 0, 3, 4])


def test_gradients_equal_finite_differences():
    tensors = (randn(2, 4, 2, 2, 2), randn(4, seed=1), randn(4, seed=2), randn(2, 4, seed=3), randn(2, 4, seed=4))

    def operation(x, weight, bias, scale, shift):
        return group_norm_modulate_silu(
            x, weight, bias=bias, groups=2, eps=1e-5, scale=scale, shift=shift, replicate=(1, 1, 1, 0, 0, 1)
        )

    assert torch.autograd.gradcheck(operation, [tensor.requires_grad_() for tensor in tensors])


def test_wrong_arguments_are_named():
    x, weight = randn(2, 4, 2, 2, 2), torch.ones(4)
    good = {"bias": weight, "groups": 2, "eps": 1e-5}
    for named, changed in (
        ("groups", {"groups": 3}),
        ("bias", {"bias": weight[1:]}),
        ("scale, shift", {"scale": torch.zeros(2, 4)}),
        ("shift", {"scale": torch.zeros(2, 4), "shift": torch.zeros(4)}),
        ("replicate", {"replicate": (1, 1)}),
        ("replicate", {"replicate": (0, 0, 0, 0, 0, -1)}),
    ):
        with pytest.raises(InputError, match=f"^{named}: "):
            group_norm_modulate_silu(x, weight, **(good | changed))
    with pytest.raises(InputError, match=r"^x: "):
        group_norm_modulate_silu(x[0], weight, **good)
