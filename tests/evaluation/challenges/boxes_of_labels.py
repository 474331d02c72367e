"""Small label maps made of boxes."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

Box = tuple[int, Sequence[int], Sequence[int]]


def label_boxes(shape: Sequence[int], *boxes: Box) -> np.ndarray:
    """uint8 of a shape, with boxes (value, start, size), later ones over earlier ones."""
    labels = np.zeros(shape, np.uint8)
    for value, start, size in boxes:
        labels[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = value
    return labels


def write_labels(path: Path, labels_xyz: np.ndarray, spacing_mm: Sequence[float]) -> None:
    """A NIfTI file of an array (x, y, z)."""
    path.parent.mkdir(exist_ok=True, parents=True)
    nib.save(nib.Nifti1Image(labels_xyz, np.diag([*spacing_mm, 1.0])), path)
