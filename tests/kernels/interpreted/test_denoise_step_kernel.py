"""A sampler's step by its kernel against float64."""

import pytest
import torch
from against_float64 import compare, dtype_of

from nnunet_difftumor.kernels import denoise_step
from nnunet_difftumor.kernels.implementation import implementation
from nnunet_difftumor.kernels.triton import denoise_step as kernels

SHAPES = [
    (1, 1, 1, 1, 1),
    (1, 1, 1, 1, 7),
    (2, 3, 1, 5, 1),
    (1, 8, 3, 4, 5),
    (2, 8, 2, 3, 7),
    (3, 5, 4, 1, 2),
    (1, 8, 6, 6, 6),
    (1, 17, 5, 3, 5),
    (2, 4, 9, 8, 7),
    (4, 8, 3, 3, 3),
    (1, 2, 1, 1, 513),
    (1, 8, 8, 16, 8),
]


def draw(shape):
    """z, prediction and noise whose clean latent is clipped here and there."""
    generator = torch.Generator().manual_seed(sum(shape))
    return [1.2 * torch.randn(shape, generator=generator) for _ in range(3)]


COEFFICIENTS = torch.tensor([1.3, -0.7, 0.6, 0.3, -0.2, 0.11])


def operation(*, clip):
    def run(z, predicted, noise=None):
        return denoise_step(z, predicted, noise, coefficients=COEFFICIENTS.to(z.dtype), clip=clip)

    return run


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("clip", [True, False])
def test_any_shape(shape, clip):
    compare(operation(clip=clip), draw(shape), precision="float32", trained=0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_prediction_in_half_precision(dtype):
    z, predicted, _ = draw((2, 8, 3, 4, 5))
    compare(operation(clip=True), [z, predicted.to(dtype_of(dtype))], precision="float32", trained=0)


def test_any_strides():
    z, predicted, noise = draw((2, 4, 3, 5, 6))
    given = (
        z.contiguous(memory_format=torch.channels_last_3d),
        predicted.transpose(3, 4).contiguous().transpose(3, 4),
        torch.stack((noise, noise + 1))[0],
    )
    with implementation("triton"):
        seen, wanted = operation(clip=True)(*given), operation(clip=True)(z, predicted, noise)
    assert torch.equal(seen, wanted) and seen.is_contiguous(memory_format=torch.channels_last_3d)


def test_the_operation_is_well_formed():
    torch.library.opcheck(kernels.denoise_step, (*draw((2, 3, 2, 2, 3)), COEFFICIENTS, True))
