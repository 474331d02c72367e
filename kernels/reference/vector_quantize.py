"""Nearest codes by all distances at once, which only small cases have the memory for; and statistics of the codes."""

import torch


def nearest_code(vectors: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """int64 (n,): argmin over codes of |vector - code|^2, lowest index on ties.

    Args:
        vectors: (n, c).
        codebook: (k, c), of the same dtype.
    """
    return (vectors[:, None] - codebook).square().sum(2).argmin(1)


def code_statistics(vectors: torch.Tensor, indices: torch.Tensor, *, codes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """How many vectors took each code (codes,), and their sum (codes, c), in the vectors' dtype."""
    counts = torch.bincount(indices, minlength=codes).to(vectors.dtype)
    sums = vectors.new_zeros(codes, vectors.shape[1]).index_add_(0, indices, vectors)
    return counts, sums
