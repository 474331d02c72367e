"""Preprocessed cases that hold nothing to learn from."""

from pathlib import Path

import numpy as np

from nnunet_difftumor.checks.finding import ERROR, Finding
from nnunet_difftumor.prepared.nnunet.preprocessed_dataset import PreprocessedDataset

# Of voxels with one and the same value: a scan that is padded all around stays below.
_MOST_OF_ONE_VALUE = 0.995


def constant_array(case: str, folder: Path, again: str) -> list[Finding]:
    """A preprocessed image of one value, all over or where the labels are."""
    do = f"look at the raw image; then {again}"
    try:
        data, seg, _, _ = PreprocessedDataset(str(folder), [case]).load_case(case)
        image, labels = data[:][0], seg[:][0]
    except Exception as error:  # damaged bytes make blosc2 and pickle raise errors of many kinds
        seen = f"{folder / case}.b2nd cannot be read ({type(error).__name__}: {error})"
        return [Finding("damaged", case, ERROR, seen, again)]
    path = folder / f"{case}.b2nd"
    if not np.isfinite(image).all():
        return [Finding("constant", case, ERROR, f"{path} holds NaN or infinite values", do)]
    inside = image[labels > 0]
    for values, where in ((image[labels >= 0], "all over"), (inside, "where there are labels")):
        if len(values) and np.mean(values == np.median(values)) > _MOST_OF_ONE_VALUE:
            seen = f"{path} is {float(np.median(values)):.3g} {where}: nothing can be learned from it"
            return [Finding("constant", case, ERROR, seen, do)]
    return []
