"""Compares the predicted with the true tumors of one scan: overlap, surfaces, and tumor by tumor."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from surface_distance import compute_surface_dice_at_tolerance, compute_surface_distances

from nnunet_difftumor.generative.stages import EARLY_BELOW_MM
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM

CONNECTIVITY = 26
# The bands that tumors are drawn from, and what lies outside them: specks below, nothing above "large".
BANDS_MM = {"under_5mm": (0.0, SIZE_BANDS_MM["tiny"][0])} | dict(SIZE_BANDS_MM)
BANDS_MM["large"] = (SIZE_BANDS_MM["large"][0], math.inf)


@dataclass(frozen=True)
class Lesion:
    """One connected component (26 neighbours) of the true or of the predicted mask.

    Attributes:
        diameter_mm: of the ball with the component's volume.
        hit: whether at least one of its voxels is in the other mask.
    """

    diameter_mm: float
    hit: bool

    @property
    def band(self) -> str:
        return next(name for name, (low, high) in BANDS_MM.items() if low <= self.diameter_mm < high)

    @property
    def is_early(self) -> bool:
        return self.diameter_mm < EARLY_BELOW_MM


@dataclass(frozen=True)
class CaseResult:
    """One scan.

    Attributes:
        dsc: Dice similarity coefficient, 0 to 1; 0 if exactly one mask is empty, None if both are.
        nsd: normalized surface Dice at the tolerance, 0 to 1; None and 0 as for dsc.
        tumors: components of the true mask; `hit` means detected.
        findings: components of the predicted mask; without a `hit` they are false positives.
    """

    dsc: float | None
    nsd: float | None
    tumors: tuple[Lesion, ...]
    findings: tuple[Lesion, ...]

    @property
    def false_positives(self) -> tuple[Lesion, ...]:
        return tuple(finding for finding in self.findings if not finding.hit)


def compare(
    truth: np.ndarray, prediction: np.ndarray, *, spacing_mm: Sequence[float], nsd_tolerance_mm: float
) -> CaseResult:
    """Compares two masks of one scan.

    Args:
        truth, prediction: boolean (z, y, x).
        spacing_mm: voxel size (z, y, x).
        nsd_tolerance_mm: distance up to which two surfaces count as the same.
    """
    tumors = _lesions(truth, prediction, spacing_mm)
    findings = _lesions(prediction, truth, spacing_mm)
    if not tumors and not findings:
        return CaseResult(None, None, tumors, findings)
    if not tumors or not findings:
        return CaseResult(0.0, 0.0, tumors, findings)
    dsc = 2 * np.count_nonzero(truth & prediction) / (np.count_nonzero(truth) + np.count_nonzero(prediction))
    distances = compute_surface_distances(truth, prediction, spacing_mm)
    nsd = compute_surface_dice_at_tolerance(distances, nsd_tolerance_mm)
    return CaseResult(float(dsc), float(nsd), tumors, findings)


def _lesions(mask: np.ndarray, other: np.ndarray, spacing_mm: Sequence[float]) -> tuple[Lesion, ...]:
    components = cc3d.connected_components(mask, connectivity=CONNECTIVITY)
    voxels = np.bincount(components.ravel())
    hits = np.bincount(components[other], minlength=len(voxels))
    volumes_mm3 = voxels * math.prod(spacing_mm)
    diameters_mm = np.cbrt(6 * volumes_mm3 / math.pi)
    return tuple(Lesion(float(diameters_mm[i]), bool(hits[i])) for i in range(1, len(voxels)))
