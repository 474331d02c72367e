"""Linear attention by its kernel against float64: output, and the gradient of qkv."""

import pytest
import torch
from against_float64 import compare, dtype_of

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels import spatial_linear_attention
from nnunet_difftumor.kernels.triton import spatial_linear_attention as kernels

# b, heads, channels of a head, slices, height, width.
SHAPES = [
    (1, 1, 32, 1, 1, 2),
    (1, 2, 32, 2, 12, 12),
    (1, 1, 32, 1, 8, 8),
    (2, 1, 8, 2, 1, 3),
    (1, 3, 16, 1, 5, 7),
    (1, 1, 64, 1, 11, 12),
    (1, 2, 48, 1, 9, 1),
    (1, 1, 2, 3, 2, 2),
    (1, 1, 128, 1, 3, 3),
    (2, 2, 32, 1, 3, 3),
    (1, 1, 32, 1, 1, 65),
    (1, 1, 20, 2, 13, 10),
]


def draw(shape, *, dtype=torch.float32, channels_last=True):
    batch, heads, head_dim, slices, height, width = shape
    generator = torch.Generator().manual_seed(height)
    qkv = 2 * torch.randn(batch, 3 * heads * head_dim, slices, height, width, generator=generator)
    return qkv.to(dtype).contiguous(memory_format=torch.channels_last_3d if channels_last else torch.contiguous_format)


@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape(shape):
    compare(lambda qkv: spatial_linear_attention(qkv, heads=shape[1]), [draw(shape)], precision="float32")


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float16"])
def test_any_precision(precision):
    qkv = draw((1, 2, 32, 1, 9, 10), dtype=dtype_of(precision))
    compare(lambda qkv: spatial_linear_attention(qkv, heads=2), [qkv], precision=precision)


@pytest.mark.parametrize("layout", ["contiguous", "sliced", "transposed"])
def test_any_layout(layout):
    qkv = draw((2, 1, 16, 2, 4, 6), channels_last=False)
    if layout == "sliced":
        qkv = torch.cat((qkv, qkv), 3)[:, :, :, ::2]
    if layout == "transposed":
        qkv = qkv.transpose(3, 4)
    compare(lambda qkv: spatial_linear_attention(qkv, heads=1), [qkv], precision="float32")


def test_large_logits_do_not_overflow():
    qkv = 60 * draw((1, 1, 32, 1, 9, 9))
    compare(lambda qkv: spatial_linear_attention(qkv, heads=1), [qkv], precision="float32")


def test_too_wide_heads_are_refused():
    with pytest.raises(InputError, match="has 130 channels per head"):
        spatial_linear_attention(draw((1, 1, 130, 1, 1, 1)), heads=1)


def test_the_operation_is_well_formed():
    qkv = draw((1, 1, 16, 1, 2, 3))
    torch.library.opcheck(kernels.spatial_linear_attention_backward, (torch.ones(1, 16, 1, 2, 3), qkv, 1))
    torch.library.opcheck(kernels.spatial_linear_attention, (qkv.requires_grad_(), 1))
