"""Which patches a network takes."""

import math
from collections.abc import Sequence

from nnunet_difftumor.errors import InputError


def check_patch(
    patch_size: Sequence[int], multiple: Sequence[int], *, trainer: str, configuration: str, dataset: str
) -> None:
    """Refuses patches that a three-dimensional network cannot take.

    Args:
        patch_size: voxels (z, y, x), as the plans say; two numbers in a 2D configuration.
        multiple: by what the network divides each axis (z, y, x) in all.
        trainer, configuration, dataset: names, for the message; the dataset's as in its plans (Dataset003_Liver).

    Raises:
        InputError: the configuration is 2D, an axis is no multiple, or the patch shrinks to a single voxel, of which
            no normalization can be computed. It names the nearest patch that fits, and the command that plans it.
    """
    patch = [int(size) for size in patch_size]
    seen = f"{trainer}: configuration {configuration} has the patch {_times(patch)}"
    if len(patch) != 3:
        raise InputError(f"{seen}, but this network is three-dimensional; train 3d_fullres")
    if any(size % step for size, step in zip(patch, multiple, strict=True)):
        problem = f"but this network takes multiples of {_times(multiple)}"
    elif math.prod(patch) == math.prod(multiple):
        problem = "which this network shrinks to a single voxel, of which no norm can be computed"
    else:
        return
    fitting = nearest_patch(patch, multiple)
    number = int(dataset.removeprefix("Dataset").split("_")[0])
    raise InputError(
        f"{seen} (z, y, x), {problem}; the nearest that fits is {_times(fitting)}: `difftumor prepare -d {number} "
        f"--patch-size {' '.join(map(str, fitting))}`, with --overwrite if it has been prepared before"
    )


def nearest_patch(patch_size: Sequence[int], multiple: Sequence[int]) -> list[int]:
    """The multiple nearest to a patch (z, y, x), the smaller of two that are as near; at least two of them in all."""
    counts = [max(1, math.ceil(size / step - 0.5)) for size, step in zip(patch_size, multiple, strict=True)]
    if math.prod(counts) == 1:
        counts = [2] * len(counts)
    return [count * step for count, step in zip(counts, multiple, strict=True)]


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
