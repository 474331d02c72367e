"""Nearest codes in blocks that stay in the cache: a matrix product, the best tile of codes, then that tile exactly.

Distances of all vectors to all codes are never in memory together. That is why, unlike the other forms here, this one
also runs in training, and under `implementation("reference")` on CUDA.
"""

import torch

# A block of distances is codes x rows, 4 MB. Rows come last, so that the minimum over a tile's codes runs along them.
_CODES, _ROWS = 2048, 512
_TILE = 32
# A GPU wants more work at once; the block is 64 MB.
_ROWS_CUDA = 16384


def nearest_code(vectors: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """int64 (n,): argmin over codes of |vector - code|^2, lowest index on ties.

    Args:
        vectors: (n, c).
        codebook: (k, c), of the same dtype.
    """
    codes, channels = codebook.shape
    tiles = -(-codes // _TILE)
    padded = torch.nn.functional.pad(codebook, (0, 0, 0, tiles * _TILE - codes))
    half_norms = padded.square().sum(1, keepdim=True) / 2
    half_norms[codes:] = torch.inf
    in_tiles = padded.view(tiles, _TILE, channels)
    outside = half_norms.isinf().view(tiles, _TILE)
    # |z - e|^2 / 2 without the |z|^2 / 2 that all codes share, as one product: (-e, |e|^2 / 2) (z, 1).
    left = torch.cat([-padded, half_norms], 1)
    right = torch.cat([vectors.T, vectors.new_ones(1, len(vectors))])
    indices = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
    most = _ROWS_CUDA if vectors.is_cuda else _ROWS
    for start in range(0, len(vectors), most):
        rows = slice(start, min(start + most, len(vectors)))
        block = right[:, rows].contiguous()
        count = block.shape[1]
        # Written again for every part: fresh memory would cost a fifth of the time.
        scores, least = left.new_empty(min(_CODES, len(left)), count), left.new_empty(tiles, count)
        for part, best in zip(left.split(_CODES), least.split(_CODES // _TILE), strict=True):
            torch.mm(part, block, out=scores[: len(part)])
            torch.amin(scores[: len(part)].view(-1, _TILE, count), 1, out=best)
        tile = least.min(0).indices  # the first of equal ones, as argmin, and quicker along this axis
        exact = (vectors[rows, None] - in_tiles[tile]).square().sum(2).masked_fill_(outside[tile], torch.inf)
        indices[rows] = tile * _TILE + exact.argmin(1)
    return indices
