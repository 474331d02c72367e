"""Nearest codes in blocks that stay in the cache: a matrix product, the best tile of codes, then that tile exactly."""

import torch

# A block of distances is rows x k: with 64 rows and 16384 codes 4 MB, which stays in a CPU's second-level cache.
_ROWS = 64
_TILE = 64
# A GPU wants more work at once; the block is 64 MB.
_ROWS_CUDA = 1024


def nearest_code(vectors: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """int64 (n,): argmin over codes of |vector - code|^2, lowest index on ties.

    Args:
        vectors: (n, c).
        codebook: (k, c), of the same dtype.
    """
    codes, channels = codebook.shape
    tiles = -(-codes // _TILE)
    padded = torch.nn.functional.pad(codebook, (0, 0, 0, tiles * _TILE - codes))
    half_norms = padded.square().sum(1) / 2
    half_norms[codes:] = torch.inf
    in_tiles = padded.view(tiles, _TILE, channels)
    outside = half_norms.isinf().view(tiles, _TILE)
    minus_transposed = -padded.T
    indices = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
    rows = _ROWS_CUDA if vectors.is_cuda else _ROWS
    for start in range(0, len(vectors), rows):
        block = vectors[start : start + rows]
        # |z - e|^2 / 2 without the |z|^2 / 2 that all codes share.
        scores = torch.addmm(half_norms, block, minus_transposed)
        tile = scores.view(len(block), tiles, _TILE).amin(2).argmin(1)
        exact = (block[:, None] - in_tiles[tile]).square().sum(2).masked_fill_(outside[tile], torch.inf)
        indices[start : start + rows] = tile * _TILE + exact.argmin(1)
    return indices


def code_statistics(vectors: torch.Tensor, indices: torch.Tensor, *, codes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """How many vectors took each code (codes,), and their sum (codes, c), in the vectors' dtype."""
    counts = torch.bincount(indices, minlength=codes).to(vectors.dtype)
    sums = vectors.new_zeros(codes, vectors.shape[1]).index_add_(0, indices, vectors)
    return counts, sums
