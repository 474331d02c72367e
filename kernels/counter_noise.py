"""Standard normal noise from a counter-based generator: Philox4x32-10 (Salmon et al., SC 2011) and Box-Muller."""

import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels.checks import check_int64, check_whole
from nnunet_difftumor.kernels.implementation import uses_triton
from nnunet_difftumor.kernels.reference import counter_noise as reference

# So that places within a sample fit into the 32 bits that the kernel computes them in, those of its last tile too.
MOST_NUMBERS = 2**30


def standard_normal(seeds: torch.Tensor, count: int, *, stream: int) -> torch.Tensor:
    """Normal numbers of mean 0 and deviation 1; those of a sample depend on its seed, on `stream` and on nothing else.

    There is no state: neither neighbours in the batch, nor their number, nor earlier calls change them, and a smaller
    count gives the first ones. CPU and CUDA give the same, up to the rounding of float32. On CUDA the seeds are read
    there, by one launch, so that a captured graph makes new noise when they change.

    Args:
        seeds: int64 (b,), b > 0, of any values; equal seeds make equal samples.
        count: numbers per sample, from 1 to 2^30.
        stream: from 0 to 2^32 - 1; tells uses of one seed apart, as the steps of a sampler.

    Returns:
        float32 (b, count), contiguous; at most 6.7 in size.

    Raises:
        InputError: for seeds of another shape or dtype, or numbers out of their range; on CUDA also for a GPU that is
            too old.
    """
    check_int64("seeds", seeds)
    if seeds.ndim != 1 or seeds.numel() == 0:
        raise InputError(f"seeds: expected (b,) with b > 0, got {tuple(seeds.shape)}")
    check_whole("count", count, least=1, most=MOST_NUMBERS)
    check_whole("stream", stream, least=0, most=2**32 - 1)
    if uses_triton("seeds", seeds):
        from nnunet_difftumor.kernels.triton import counter_noise as kernels

        return kernels.standard_normal(seeds, count, stream)
    return reference.standard_normal(seeds, count, stream=stream)
