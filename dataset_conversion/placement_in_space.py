"""Cuts and turns a scan with its labels, so that every voxel that is left keeps its place in space."""

import numpy as np

from nnunet_difftumor.ct import Scan, scan_from_array


def crop_around_labels(scan: Scan, labels: np.ndarray, *, margin_mm: float) -> tuple[Scan, np.ndarray]:
    """Cuts both to the box around all labels, with a margin that ends at the edge of the scan.

    Args:
        scan: the CT.
        labels: integers (z, y, x), not all 0.
        margin_mm: on every side, rounded up to whole voxels.

    Returns:
        Scan in memory, stored as int16 HU when written, and labels.
    """
    start, box = [], []
    for axis, spacing_mm in enumerate(scan.spacing_mm):
        others = tuple(other for other in range(3) if other != axis)
        (found,) = np.nonzero(labels.any(axis=others))
        margin = int(np.ceil(margin_mm / spacing_mm - 1e-6))
        start.append(max(0, int(found[0]) - margin))
        box.append(slice(start[-1], int(found[-1]) + 1 + margin))
    affine = scan.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start[::-1]
    hu = np.ascontiguousarray(scan.hu[tuple(box)])
    return scan_from_array(hu, affine=affine), np.ascontiguousarray(labels[tuple(box)])


def reorient(scan: Scan, labels: np.ndarray, orientation: str) -> tuple[Scan, np.ndarray]:
    """Flips and exchanges axes.

    Args:
        scan: the CT.
        labels: (z, y, x).
        orientation: where the axes x, y, z of the file point, such as "RAS" or "LPS".

    Returns:
        The arguments themselves if they are so oriented; else scan in memory, stored as int16 HU, and labels.
    """
    from nibabel import orientations

    now = orientations.io_orientation(scan.affine)
    turn = orientations.ornt_transform(now, orientations.axcodes2ornt(orientation))
    if np.array_equal(turn, [[0, 1], [1, 1], [2, 1]]):
        return scan, labels
    affine = scan.affine @ orientations.inv_ornt_aff(turn, scan.hu.shape[::-1])
    hu, labels = (np.ascontiguousarray(orientations.apply_orientation(a.T, turn).T) for a in (scan.hu, labels))
    return scan_from_array(hu, affine=affine), labels
