"""What is measured of an organ once per scan: intensities, vessels, and where there is room."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import edt
import numpy as np
from scipy.ndimage import gaussian_filter

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import atomic_path
from nnunet_difftumor.synthesis.noise import Noise, even_tissue, measure_noise
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.separable import cell_mean
from nnunet_difftumor.synthesis.shape.wall import is_too_thin, measured_wall_mm, wall_in
from nnunet_difftumor.synthesis.stored import read_arrays
from nnunet_difftumor.synthesis.volume import bounding_box, clipped_box, grown_box

# Placement looks at cells of about this size; every place is then checked on the scan's own grid.
_CELL_MM = 2.0
# A wall fills less of them.
_IN_WALL = 0.25
# Noise is measured in a cube of twice this edge.
_NOISE_MM = 20.0
# Equations 1 and 2 of Hu et al., Table 1: sigma_a = 0.5 + 0.025 sigma_p, T = mean + 15 HU.
_SMOOTHING_BASE, _SMOOTHING_PER_HU, _VESSEL_MARGIN_HU = 0.5, 0.025, 15.0
# Where more than this share of an organ would be vessel, it is tissue, as the cortex of kidneys, and only the brightest
# part of it is not.
_MOST_VESSELS, _BRIGHTEST = 1 / 3, 0.95
# Fat and fluid that an organ's mask holds (the sinus of a kidney) are so many standard deviations below its tissue.
_LEAST_TISSUE_SDS = 3.0


@dataclass(frozen=True)
class OrganStatistics:
    """What placement needs to know of an organ in one scan.

    Attributes:
        mean_hu: mean over the organ (l in equation 2 of Hu et al.).
        parenchyma_hu, parenchyma_sd_hu: mean and standard deviation of the organ without vessels (mu_p, sigma_p).
        noise_sd_hu, noise_correlation: of the scan, measured where the organ has most room (`noise.Noise`).
        volume_ml: of the organ.
        cell_origin: index of the first voxel of the first cell.
        cell_voxels: voxels per cell along each axis.
        organ_cells: boolean (cz, cy, cx): more than half of the cell is organ, tissue and no fat or fluid, and none of
            it is a lesion.
        vessel_cells: boolean (cz, cy, cx): vessel according to equation 1.
        free_mm: float32 (cz, cy, cx): distance to the nearest cell that is no organ or is a vessel.
        bright_tissue_hu: where much of the organ is brighter than its mean, up to where that is tissue; else 0.
        wall_mm: of a hollow organ, stated or measured; all the rest is of its wall then. 0 for a solid organ.
    """

    mean_hu: float
    parenchyma_hu: float
    parenchyma_sd_hu: float
    noise_sd_hu: float
    noise_correlation: tuple[float, float, float]
    volume_ml: float
    cell_origin: tuple[int, int, int]
    cell_voxels: tuple[int, int, int]
    organ_cells: np.ndarray
    vessel_cells: np.ndarray
    free_mm: np.ndarray
    bright_tissue_hu: float = 0.0
    wall_mm: float = 0.0

    @property
    def noise(self) -> Noise:
        return Noise(self.noise_sd_hu, self.noise_correlation)

    @property
    def vessel_threshold_hu(self) -> float:
        """T of equation 2, but above an organ's own bright tissue."""
        return max(self.mean_hu + _VESSEL_MARGIN_HU, self.bright_tissue_hu)

    @property
    def least_tissue_hu(self) -> float:
        """What is darker by its local mean is fat or fluid in the organ's mask, where no tumor arises."""
        return self.parenchyma_hu - _LEAST_TISSUE_SDS * self.parenchyma_sd_hu

    def smoothing_vox(self, spacing_mm: Sequence[float]) -> np.ndarray:
        """sigma_a of equation 1 for each axis, in voxels.

        In mm, and never less than that many voxels: it is there to suppress noise, whose grain is the voxel's.
        """
        sigma = _SMOOTHING_BASE + _SMOOTHING_PER_HU * self.parenchyma_sd_hu
        return sigma * np.maximum(1 / np.asarray(spacing_mm), 1)

    def vessels(self, hu: np.ndarray, organ: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
        """Boolean vessel mask of equation 1 on the scan's own grid; none in a wall, which is too thin for it.

        Args:
            hu: (z, y, x), with a margin of 4 `smoothing_vox` around what is asked for.
            organ: boolean of the same shape.
            spacing_mm: voxel size, (z, y, x).
        """
        if self.wall_mm:
            return np.zeros(organ.shape, bool)
        return (gaussian_filter(hu, self.smoothing_vox(spacing_mm)) > self.vessel_threshold_hu) & organ

    @classmethod
    def measure(
        cls, hu: np.ndarray, labels: np.ndarray, *, organ: Organ, spacing_mm: Sequence[float]
    ) -> "OrganStatistics":
        """Measures an organ.

        Args:
            hu: float32 (z, y, x).
            labels: integer (z, y, x).
            organ: which labels.
            spacing_mm: voxel size, (z, y, x).

        Raises:
            InputError: if the organ is empty, or a hollow one thinner than two voxels.
        """
        mask = organ.mask(labels)
        box = bounding_box(mask)
        if box is None:
            raise InputError(
                f"organ {organ.name}: no voxel of the label map has the value {list(organ.organ_labels)}; "
                "check the label values, or leave this case out"
            )
        step = tuple(max(1, int(_CELL_MM / size + 1e-3)) for size in spacing_mm)
        wall_mm = 0.0
        if organ.greatest_wall_mm:
            # With what is around, below which the wall lies.
            outer = grown_box(box, (1, 1, 1), mask.shape)
            wall_mm, wall = _wall(hu[outer], labels[outer], organ=organ, spacing_mm=spacing_mm)
            mask = np.zeros(mask.shape, bool)
            mask[outer] = wall
        mask, hu = mask[box], np.ascontiguousarray(hu[box], np.float32)
        values = hu[mask]
        mean = float(values.mean(dtype=np.float64))
        parenchyma, sd = _parenchyma(values)
        statistics = cls(
            mean_hu=mean,
            parenchyma_hu=parenchyma,
            parenchyma_sd_hu=sd,
            noise_sd_hu=sd,
            noise_correlation=(0.0, 0.0, 0.0),
            volume_ml=float(values.size * np.prod(spacing_mm) / 1000),
            cell_origin=tuple(part.start for part in box),
            cell_voxels=step,
            organ_cells=np.zeros(0),
            vessel_cells=np.zeros(0),
            free_mm=np.zeros(0),
            wall_mm=wall_mm,
        )
        smoothing = statistics.smoothing_vox(spacing_mm)
        # The mean over a cell has smoothed already, with variance (n^2 - 1) / 12.
        rest = np.sqrt(np.maximum(smoothing**2 - (np.square(step) - 1) / 12, 0)) / step
        smoothed = gaussian_filter(cell_mean(hu, step), rest)
        share = cell_mean(mask.astype(np.float32), step)
        organ_cells = share > (_IN_WALL if wall_mm else 0.5)
        organ_cells &= cell_mean(hu * mask, step) >= statistics.least_tissue_hu * share
        if organ.avoid_labels:
            organ_cells &= cell_mean(organ.lesions(labels[box]).astype(np.float32), step) == 0
        if (smoothed[organ_cells] > statistics.vessel_threshold_hu).sum() > _MOST_VESSELS * organ_cells.sum():
            bright_hu = float(np.quantile(smoothed[organ_cells], _BRIGHTEST))
            statistics = replace(statistics, bright_tissue_hu=bright_hu)
        vessel_cells = (smoothed > statistics.vessel_threshold_hu) & organ_cells & (wall_mm == 0)
        cell_mm = [float(n * size) for n, size in zip(step, spacing_mm, strict=True)]
        free = edt.edt(np.ascontiguousarray(organ_cells & ~vessel_cells), anisotropy=cell_mm, black_border=True)
        noise = _noise(hu, mask, free, step=step, spacing_mm=spacing_mm, parenchyma_hu=parenchyma)
        return cls(
            **{
                **vars(statistics),
                **({} if noise is None else {"noise_sd_hu": noise.sd_hu, "noise_correlation": noise.correlation}),
                "organ_cells": organ_cells,
                "vessel_cells": vessel_cells,
                # Rounded, so that the file is small; in a type that compares quickly.
                "free_mm": free.astype(np.float16).astype(np.float32),
            }
        )

    def save(self, path: str | Path) -> None:
        """Writes an npz atomically; `load` gives the same statistics."""
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **vars(self))

    @classmethod
    def load(cls, path: str | Path) -> "OrganStatistics":
        """Reads what `save` wrote.

        Raises:
            InputError: if the file is missing or damaged. Nothing in it is executed.
        """
        # Those of earlier versions have none of these.
        optional = {"wall_mm", "bright_tissue_hu"}
        keys = {field.name for field in fields(cls)} - optional
        values = read_arrays(path, keys=keys, optional=optional, what="organ statistics")
        try:
            for key in ("mean_hu", "parenchyma_hu", "parenchyma_sd_hu", "noise_sd_hu", "volume_ml", *optional):
                values[key] = float(values.get(key, 0.0))
            values["noise_correlation"] = tuple(float(value) for value in values["noise_correlation"])
            for key in ("cell_origin", "cell_voxels"):
                values[key] = tuple(int(value) for value in values[key])
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: is damaged ({error}); delete it and make it again") from error
        return cls(**values)


def _wall(hu: np.ndarray, labels: np.ndarray, *, organ: Organ, spacing_mm: Sequence[float]) -> tuple[float, np.ndarray]:
    """Thickness of the wall, and what of the organ's mask it is."""
    hu, solid = np.asarray(hu, np.float32), organ.whole(labels)
    if is_too_thin(solid):
        raise InputError(
            f"organ {organ.name}: its mask is thinner than two voxels of {_in_mm(spacing_mm)} mm, too thin for tumors "
            "in its wall; give a mask of the whole organ with its lumen, or a finer scan"
        )
    wall_mm = organ.wall_mm
    if wall_mm is None:
        wall_mm = measured_wall_mm(hu, solid, greatest_mm=organ.greatest_wall_mm, spacing_mm=spacing_mm)
    # Thinner than a voxel, it is still in the outermost ones.
    wall_mm = max(wall_mm, 0.51 * float(min(spacing_mm)))
    wall = wall_in(hu, organ.mask(labels), solid, wall_mm=wall_mm, spacing_mm=spacing_mm)
    if not wall.any():
        raise InputError(f"organ {organ.name}: its mask holds gas alone, no wall; check the mask")
    return wall_mm, wall


def _in_mm(spacing_mm: Sequence[float]) -> str:
    return " x ".join(f"{size:.2g}" for size in spacing_mm)


def _parenchyma(values: np.ndarray) -> tuple[float, float]:
    """Mean and sd without vessels, fat at the border and lesions: within 2.5 robust sds of the median."""
    sample = values[:: max(1, values.size // 200_000)]
    median = np.median(sample)
    robust_sd = max(1.4826 * float(np.median(np.abs(sample - median))), 1.0)
    core = sample[np.abs(sample - median) <= 2.5 * robust_sd]
    return float(core.mean(dtype=np.float64)), float(core.std(dtype=np.float64))


def _noise(
    hu: np.ndarray,
    mask: np.ndarray,
    free_mm: np.ndarray,
    *,
    step: Sequence[int],
    spacing_mm: Sequence[float],
    parenchyma_hu: float,
) -> Noise | None:
    """Noise around the place with most room; None if there is too little even tissue."""
    most_room = np.multiply(np.unravel_index(int(free_mm.argmax()), free_mm.shape), step)
    reach = np.ceil(_NOISE_MM / np.asarray(spacing_mm)).astype(int)
    block = clipped_box(most_room - reach, most_room + reach + 1, mask.shape)
    even = even_tissue(hu[block], mask[block], spacing_mm, around_hu=parenchyma_hu)
    return measure_noise(hu[block], even, spacing_mm)
