"""The condition by its kernels: bit for bit what PyTorch gives."""

import launches
import pytest
import torch

from nnunet_difftumor.kernels import latent_condition
from nnunet_difftumor.kernels.implementation import implementation
from nnunet_difftumor.kernels.triton import latent_condition as kernels

# b, channels, grid, block.
SHAPES = [
    (1, 1, (1, 1, 1), (1, 1, 1)),
    (1, 1, (1, 1, 1), (3, 2, 5)),
    (2, 8, (2, 3, 2), (4, 4, 4)),
    (3, 8, (5, 7, 8), (2, 2, 2)),
    (1, 3, (1, 17, 16), (1, 2, 3)),
    (2, 5, (9, 5, 6), (4, 1, 2)),
    (1, 8, (8, 8, 4), (4, 4, 4)),
    (1, 8, (8, 8, 5), (2, 4, 4)),
    (2, 2, (3, 300, 1), (1, 1, 4)),
    (4, 1, (2, 1, 129), (2, 3, 1)),
    (1, 16, (6, 6, 8), (1, 1, 1)),
    (5, 4, (1, 4, 3), (4, 2, 4)),
]
SCALARS = {"code_min": torch.tensor(-1.37), "code_range": torch.tensor(3.11)}


@pytest.fixture(autouse=True)
def poisoned_memory():
    """New tensors are NaN until something writes them."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def draw(shape, *, share=0.02):
    batch, channels, grid, block = shape
    generator = torch.Generator().manual_seed(channels)
    latent = 3 * torch.randn(batch, channels, *grid, generator=generator)
    size = [n * f for n, f in zip(grid, block, strict=True)]
    return latent, torch.rand(batch, 1, *size, generator=generator) < share


def check(latent, mask):
    seen = latent_condition(latent, mask, **SCALARS)
    with implementation("reference"):
        expected = latent_condition(latent, mask, **SCALARS)
    assert torch.equal(seen, expected)
    return seen


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_any_shape_and_share_of_the_mask(shape, share):
    check(*draw(shape, share=share))


def test_a_mask_that_vanishes_in_one_sample_only():
    latent, mask = draw((3, 2, (3, 4, 5), (4, 4, 4)), share=0)
    mask[0, 0, 4, 4, 4] = mask[0, 0, 1, 1, 1] = True
    mask[1, 0, 5, 3, 2] = mask[1, 0, 11, 15, 19] = True
    on_grid = check(latent, mask)[:, 2] == 1
    assert on_grid.nonzero().tolist() == [[0, 1, 1, 1], [1, 1, 0, 0], [1, 2, 3, 4]]


def test_the_last_of_many_tiles_keeps_a_mask():
    # More tiles than notes are read at once.
    latent, mask = draw((1, 1, (70, 16, 16), (1, 1, 2)), share=0)
    mask[..., 1] = mask[0, 0, -1, -1, -2] = True
    assert (check(latent, mask)[:, 1] == 1).sum() == 1


@pytest.mark.parametrize("layout", ["channels-last", "sliced", "transposed"])
def test_any_layout(layout):
    latent, mask = draw((2, 3, (4, 3, 3), (2, 2, 2)))
    if layout == "channels-last":
        latent = latent.contiguous(memory_format=torch.channels_last_3d)
        assert check(latent, mask).is_contiguous(memory_format=torch.channels_last_3d)
    if layout == "sliced":
        latent, mask = (torch.cat((tensor, tensor), 2)[:, :, ::2] for tensor in (latent, mask))
    if layout == "transposed":
        latent, mask = latent.transpose(3, 4), mask.transpose(2, 4).contiguous().transpose(2, 4).transpose(3, 4)
    check(latent, mask)


def test_half_precision_and_gradients_are_left_to_pytorch():
    latent, mask = draw((1, 2, (2, 2, 2), (2, 2, 2)))
    with launches.counted() as found:
        assert check(latent.bfloat16(), mask).dtype == torch.bfloat16
        check(latent.requires_grad_(), mask).sum().backward()
    assert "_write" not in found and latent.grad.isfinite().all()


def test_it_is_two_launches():
    inputs = draw((2, 8, (3, 3, 3), (4, 4, 4)))
    with launches.counted() as found:
        latent_condition(*inputs, **SCALARS)
    assert found == {"_note": 1, "_write": 1}


def test_the_operation_is_well_formed():
    torch.library.opcheck(kernels.latent_condition, (*draw(SHAPES[2]), *SCALARS.values()))
