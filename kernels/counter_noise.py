"""Standard normal noise that is a function of a seed and a place, computed where it is needed."""

import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels.implementation import runs_kernel
from nnunet_difftumor.kernels.reference import counter_noise as reference

# Blocks of four numbers are counted in 31 bits.
MOST_NUMBERS = 2**33


def standard_normal(seeds: torch.Tensor, count: int, *, stream: int) -> torch.Tensor:
    """Independent standard normal numbers, float32 (b, count).

    Philox4x32-10 (Salmon et al., SC 2011: Parallel random numbers: as easy as 1, 2, 3) and the transform of Box and
    Muller. The key is the seed; the counter is (number of the block, 0, stream, 0), and each block gives four numbers.
    So a sample's numbers depend on its own seed and the stream only, the first ones are the same for every count, and
    all devices make the same numbers up to rounding. On CUDA it is one launch, and waits for nothing.

    Args:
        seeds: int64 (b,), b > 0; all 64 bits count.
        count: of each sample, above 0.
        stream: from 0 to 2^32 - 1; separates uses of one seed.

    Raises:
        InputError: for other shapes, dtypes or ranges; on CUDA also for a GPU that is too old.
    """
    if not isinstance(seeds, torch.Tensor) or seeds.dtype != torch.int64 or seeds.ndim != 1 or not len(seeds):
        seen = f"{seeds.dtype} {tuple(seeds.shape)}" if isinstance(seeds, torch.Tensor) else type(seeds).__name__
        raise InputError(f"seeds: expected int64 (b,) with b > 0, got {seen}")
    if not 0 < count <= MOST_NUMBERS:
        raise InputError(f"count: expected 1 to {MOST_NUMBERS}, got {count}")
    if not 0 <= stream < 2**32:
        raise InputError(f"stream: expected 0 to {2**32 - 1}, got {stream}")
    if runs_kernel("seeds", seeds):
        from nnunet_difftumor.kernels.triton import counter_noise as kernels

        return kernels.standard_normal(seeds, count, int(stream))
    return reference.standard_normal(seeds, count, int(stream))
