"""The search on the tensor cores against exhaustive distances in float64."""

import sys

import pytest
import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels import vector_quantize
from nnunet_difftumor.kernels.implementation import implementation
from nnunet_difftumor.kernels.triton import vector_quantize as kernels


def draw(n, codes, channels=8, *, size=1.0, code_size=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        size * torch.randn(n, channels, generator=generator),
        code_size * torch.randn(codes, channels, generator=generator),
    )


@pytest.fixture
def in_one_program(monkeypatch):
    """Each block of vectors goes over all tiles of codes in one program, as it does where there are many vectors."""
    # The module in use, which is not the one that is imported above where a test has put another in its place.
    monkeypatch.setattr(sys.modules[kernels.__name__], "_PROGRAMS", 1)


def excess(vectors, codebook, indices):
    """How much farther than the nearest code, relative to |z|^2."""
    distances = (vectors.double()[:, None] - codebook.double()).square().sum(2)
    taken = distances.gather(1, indices[:, None])[:, 0]
    return ((taken - distances.amin(1)) / vectors.double().square().sum(1)).max().item()


@pytest.mark.parametrize(
    ("n", "codes", "channels"),
    [
        (1, 1, 1),
        (1, 3, 8),
        (2, 129, 8),
        (63, 64, 8),
        (64, 128, 8),
        (65, 127, 3),
        (130, 300, 8),
        (17, 257, 5),
        (5, 1000, 2),
        (40, 200, 16),
        (33, 260, 41),
        (200, 512, 8),
    ],
)
def test_the_nearest_code_is_found(n, codes, channels):
    vectors, codebook = draw(n, codes, channels)
    quantized = vector_quantize(vectors, codebook, statistics=True)
    distances = (vectors.double()[:, None] - codebook.double()).square().sum(2)
    assert torch.equal(quantized.indices, distances.argmin(1))
    assert torch.equal(quantized.embeddings, codebook[quantized.indices])
    torch.testing.assert_close(quantized.commitment_loss.double(), distances.amin(1).mean() / channels)
    with implementation("reference"):
        plain = vector_quantize(vectors, codebook, statistics=True)
    assert torch.equal(quantized.counts, plain.counts)
    torch.testing.assert_close(quantized.sums, plain.sums)


@pytest.mark.usefixtures("in_one_program")
@pytest.mark.parametrize(("n", "codes", "channels"), [(130, 300, 8), (20, 600, 3)])
def test_the_nearest_code_is_found_by_one_program(n, codes, channels):
    test_the_nearest_code_is_found(n, codes, channels)


@pytest.mark.parametrize(("size", "code_size"), [(1e4, 1e-3), (1e-4, 1.0), (1e-4, 1e-4), (3e4, 3e4), (3e7, 1e-2)])
def test_any_scale_of_vectors_and_codes(size, code_size):
    vectors, codebook = draw(40, 200, size=size, code_size=code_size)
    indices = vector_quantize(vectors, codebook).indices
    # Float32 itself cannot tell codes apart whose distances to a far vector agree in all its digits.
    with implementation("reference"):
        assert excess(vectors, codebook, indices) <= max(
            1e-6, 2 * excess(vectors, codebook, vector_quantize(vectors, codebook).indices)
        )


def test_nearly_coinciding_codes():
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(32, 8, generator=generator).repeat_interleave(16, 0)
    codebook = centres + 1e-4 * torch.randn(512, 8, generator=generator)
    vectors = centres[torch.randint(512, (128,), generator=generator)] + 1e-3
    assert excess(vectors, codebook, vector_quantize(vectors, codebook).indices) <= 1e-6


@pytest.mark.parametrize("copies", [2, 3])
def test_the_lowest_of_equal_codes_is_taken_also_across_tiles_and_programs(copies):
    vectors, codebook = draw(100, 130)
    once = vector_quantize(vectors, codebook).indices
    assert torch.equal(vector_quantize(vectors, codebook.repeat(copies, 1)).indices, once)


@pytest.mark.usefixtures("in_one_program")
def test_the_lowest_of_equal_codes_is_taken_by_one_program():
    test_the_lowest_of_equal_codes_is_taken_also_across_tiles_and_programs(2)


def test_vectors_that_are_not_finite_get_an_index_that_exists():
    vectors, codebook = draw(20, 50)
    vectors[3] = torch.nan
    vectors[7, 2] = torch.inf
    indices = vector_quantize(vectors, codebook).indices
    assert indices.min() >= 0 and indices.max() < 50
    finite = [row for row in range(20) if row not in (3, 7)]
    distances = (vectors[finite].double()[:, None] - codebook.double()).square().sum(2)
    assert torch.equal(indices[finite], distances.argmin(1))


def test_gradients_are_those_of_the_reference():
    vectors, codebook = draw(40, 16)
    weights = torch.randn(40, 8, generator=torch.Generator().manual_seed(2))
    gradients = {}
    for name in ("triton", "reference"):
        leaf = vectors.clone().requires_grad_()
        with implementation(name):
            quantized = vector_quantize(leaf, codebook)
        ((quantized.embeddings * weights).sum() + quantized.commitment_loss).backward()
        gradients[name] = leaf.grad
    torch.testing.assert_close(gradients["triton"], gradients["reference"])


def test_deterministic_statistics_are_the_same():
    vectors, codebook = draw(100, 8)
    plain = vector_quantize(vectors, codebook, statistics=True)
    torch.use_deterministic_algorithms(True)
    try:
        fixed = vector_quantize(vectors, codebook, statistics=True)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(fixed.counts, plain.counts)
    torch.testing.assert_close(fixed.sums, plain.sums)


def test_a_changed_codebook_is_packed_again():
    vectors, codebook = draw(30, 40)
    first = vector_quantize(vectors, codebook).indices
    assert kernels.packed_codebook(codebook) is kernels.packed_codebook(codebook)
    codebook.copy_(codebook.flip(0))
    assert torch.equal(vector_quantize(vectors, codebook).indices, 39 - first)


def test_half_precision_and_strided_vectors():
    vectors, codebook = draw(60, 64)
    wide = torch.stack((vectors, vectors), 2)[..., 0].bfloat16()
    assert not wide[:, ::1].is_contiguous() or wide.stride(1) == 1
    indices = vector_quantize(wide, codebook).indices
    assert torch.equal(indices, vector_quantize(wide.float().contiguous(), codebook).indices)


def test_too_many_channels_are_refused():
    with pytest.raises(InputError, match="has 42 channels, the kernel takes up to 41"):
        vector_quantize(*draw(4, 4, 42))


def test_the_operation_is_well_formed():
    vectors, codebook = draw(5, 7)
    torch.library.opcheck(kernels.nearest_code, (vectors, *kernels.pack_codebook(codebook)))
    indices = vector_quantize(vectors, codebook).indices
    torch.library.opcheck(kernels.code_statistics, (vectors, indices, 7))
