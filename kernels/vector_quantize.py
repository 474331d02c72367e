"""Nearest code of a codebook, the quantization of van den Oord et al., NeurIPS 2017 (VQ-VAE)."""

from typing import NamedTuple

import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels.checks import check_finite, check_floating
from nnunet_difftumor.kernels.cpu.vector_quantize import nearest_code
from nnunet_difftumor.kernels.implementation import needs_gradient, uses_triton
from nnunet_difftumor.kernels.reference.vector_quantize import code_statistics


class Quantized(NamedTuple):
    """What `vector_quantize` returns for n vectors of c channels and k codes.

    Attributes:
        indices: int64 (n,), the nearest code.
        embeddings: (n, c), the code itself; gradients pass to the vectors unchanged (straight-through).
        commitment_loss: scalar, mean squared difference of vectors and codes; its gradient reaches the vectors only.
        counts: (k,), how many vectors took each code; None unless asked for.
        sums: (k, c), sum of the vectors that took each code; None unless asked for.
    """

    indices: torch.Tensor
    embeddings: torch.Tensor
    commitment_loss: torch.Tensor
    counts: torch.Tensor | None
    sums: torch.Tensor | None


def vector_quantize(vectors: torch.Tensor, codebook: torch.Tensor, *, statistics: bool = False) -> Quantized:
    """Takes the code with the smallest squared Euclidean distance for each vector; the lowest index on ties.

    Distances of all vectors to all codes are never in memory together, nor is a one-hot matrix: with 13824 vectors and
    16384 codes, as a patch of 96^3 has, the two take 0.9 and 1.8 GB.

    Args:
        vectors: floating (n, c), n > 0. Half precision is compared in float32.
        codebook: floating (k, c), finite, k > 0; gets no gradient.
        statistics: also return counts and sums, which a moving average of the codebook needs.

    Raises:
        InputError: for other shapes, dtypes or devices, or a codebook that is not finite; on CUDA also for float64,
            more channels or elements than the kernel takes, or a GPU that is too old. Equal codes are no error.
    """
    check_floating("vectors", vectors)
    check_floating("codebook", codebook, vectors)
    if vectors.ndim != 2 or vectors.numel() == 0:
        raise InputError(f"vectors: expected (n, c) with n > 0, got {tuple(vectors.shape)}")
    if codebook.ndim != 2 or codebook.numel() == 0 or codebook.shape[1] != vectors.shape[1]:
        raise InputError(f"codebook: expected (k, {vectors.shape[1]}) with k > 0, got {tuple(codebook.shape)}")
    if uses_triton("vectors", vectors):
        found = _by_triton(vectors, codebook, statistics=statistics)
    else:
        # On CUDA the check waits for the device: there it is made when a codebook is packed for the kernel.
        if not codebook.is_cuda and not torch.compiler.is_compiling():
            check_finite("codebook", codebook)
        found = _by_blocks(vectors, codebook, statistics=statistics)
    if not needs_gradient(vectors):
        return found
    return found._replace(
        # The difference is exactly 0, so the values are the code's own.
        embeddings=found.embeddings + (vectors - vectors.detach()),
        commitment_loss=torch.nn.functional.mse_loss(vectors, found.embeddings),
    )


def prepare_codes(codebook: torch.Tensor) -> None:
    """Makes on CUDA what `vector_quantize` needs of a codebook, (k, c); later calls find it while the values stay.

    Without it the first call does. A tensor that was made in `torch.inference_mode` does not tell whether its values
    stay: nothing is kept of it.

    Raises:
        InputError: as `vector_quantize`.
    """
    check_floating("codebook", codebook)
    if codebook.ndim != 2 or codebook.numel() == 0:
        raise InputError(f"codebook: expected (k, c) with k > 0, got {tuple(codebook.shape)}")
    if uses_triton("codebook", codebook):
        from nnunet_difftumor.kernels.triton import vector_quantize as kernels

        kernels.check(codebook[:1], codebook)
        kernels.packed_codebook(codebook)


def _by_blocks(vectors: torch.Tensor, codebook: torch.Tensor, *, statistics: bool) -> Quantized:
    given, dtype = vectors.detach(), vectors.dtype
    codebook = codebook.detach()
    if codebook.dtype.itemsize == 2:
        codebook = codebook.float()
    vectors = given.to(codebook.dtype)
    indices = nearest_code(vectors, codebook)
    embeddings = codebook[indices].to(dtype)
    loss = torch.nn.functional.mse_loss(given, embeddings)
    if not statistics:
        return Quantized(indices, embeddings, loss, None, None)
    return Quantized(indices, embeddings, loss, *code_statistics(vectors, indices, codes=len(codebook)))


def _by_triton(vectors: torch.Tensor, codebook: torch.Tensor, *, statistics: bool) -> Quantized:
    from nnunet_difftumor.kernels.triton import vector_quantize as kernels

    kernels.check(vectors, codebook)
    dtype, vectors = vectors.dtype, vectors.detach().float().contiguous()
    indices, embeddings, differences = kernels.nearest_code(vectors, *kernels.packed_codebook(codebook))
    embeddings, loss = embeddings.to(dtype), differences.mean().to(dtype)
    if not statistics:
        return Quantized(indices, embeddings, loss, None, None)
    return Quantized(indices, embeddings, loss, *kernels.code_statistics(vectors, indices, len(codebook)))
