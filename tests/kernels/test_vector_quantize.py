"""Nearest codes against exhaustive distances in float64."""

import pytest
import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels import vector_quantize
from nnunet_difftumor.kernels.reference.vector_quantize import nearest_code


def draw(n: int, codes: int, channels: int = 8, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, generator=generator), torch.randn(codes, channels, generator=generator)


@pytest.mark.parametrize(
    ("n", "codes", "channels"), [(1, 1, 1), (1, 3, 8), (63, 64, 8), (64, 65, 8), (65, 127, 3), (200, 512, 8)]
)
def test_the_nearest_code_is_found_for_any_number_of_vectors_and_codes(n, codes, channels):
    vectors, codebook = draw(n, codes, channels)
    quantized = vector_quantize(vectors, codebook)
    nearest = nearest_code(vectors.double(), codebook.double())
    assert torch.equal(quantized.indices, nearest)
    assert torch.equal(quantized.embeddings, codebook[quantized.indices])
    exact = (vectors.double() - codebook.double()[nearest]).square().mean()
    torch.testing.assert_close(quantized.commitment_loss.double(), exact)


def test_distances_are_the_best_where_codes_nearly_coincide():
    """Indices may differ there; the distance may exceed the best by 1e-6 |z|^2, as in the plain formula in float32."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(64, 8, generator=generator).repeat_interleave(16, 0)
    codebook = centres + 1e-4 * torch.randn(1024, 8, generator=generator)
    vectors = centres[torch.randint(1024, (256,), generator=generator)] + 1e-3
    distances = (vectors.double()[:, None] - codebook.double()).square().sum(2)
    taken = distances.gather(1, vector_quantize(vectors, codebook).indices[:, None])[:, 0]
    assert (taken - distances.amin(1) <= 1e-6 * vectors.double().square().sum(1)).all()


@pytest.mark.parametrize("copies", [2, 5])
def test_the_lowest_of_equal_codes_is_taken(copies):
    vectors, codebook = draw(300, 100)
    once = vector_quantize(vectors, codebook).indices
    assert torch.equal(vector_quantize(vectors, codebook.repeat(copies, 1)).indices, once)


def test_statistics_count_and_add_up_the_vectors_of_each_code():
    vectors, codebook = draw(500, 32)
    quantized = vector_quantize(vectors, codebook, statistics=True)
    for code in range(32):
        own = vectors[quantized.indices == code]
        assert quantized.counts[code] == len(own)
        torch.testing.assert_close(quantized.sums[code], own.sum(0))


def test_gradients_pass_the_codes_straight_and_pull_vectors_to_them():
    vectors, codebook = draw(40, 16)
    vectors, codebook = vectors.double().requires_grad_(), codebook.double().requires_grad_()
    weights = torch.randn(40, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    quantized = vector_quantize(vectors, codebook)
    ((quantized.embeddings * weights).sum() + quantized.commitment_loss).backward()
    expected = weights + 2 * (vectors - codebook[quantized.indices]).detach() / vectors.numel()
    torch.testing.assert_close(vectors.grad, expected)
    assert codebook.grad is None


def test_the_gradient_of_the_commitment_loss_equals_finite_differences():
    vectors, codebook = draw(6, 5, 3)
    vectors = vectors.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: vector_quantize(v, codebook.double()).commitment_loss, vectors)


def test_half_precision_vectors_are_compared_in_float32():
    vectors, codebook = draw(100, 64)
    vectors = vectors.bfloat16()
    quantized = vector_quantize(vectors, codebook)
    assert torch.equal(quantized.indices, vector_quantize(vectors.float(), codebook).indices)
    assert quantized.embeddings.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("vectors", "codebook", "named"),
    [
        (torch.zeros(0, 8), torch.zeros(4, 8), "vectors"),
        (torch.zeros(2, 8), torch.zeros(4, 7), "codebook"),
        (torch.zeros(2, 8), torch.zeros(0, 8), "codebook"),
        (torch.zeros(2, 8, dtype=torch.int64), torch.zeros(4, 8), "vectors"),
        (torch.zeros(2, 8), torch.full((4, 8), torch.nan), "codebook"),
        (torch.zeros(2, 8), torch.zeros(4, 8, device="meta"), "codebook"),
    ],
)
def test_wrong_arguments_are_named(vectors, codebook, named):
    with pytest.raises(InputError, match=f"^{named}: "):
        vector_quantize(vectors, codebook)
