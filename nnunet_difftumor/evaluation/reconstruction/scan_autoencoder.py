"""What an autoencoder makes of parts of a scan, seen as synthesis sees them, and how far that is from the scan."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import torch

from nnunet_difftumor.ct import Scan
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder
from nnunet_difftumor.generative.weights import Volumes
from nnunet_difftumor.synthesis.networks.diffusion import check_device, numerics
from nnunet_difftumor.synthesis.networks.grid import NetworkGrid, grid_around
from nnunet_difftumor.synthesis.networks.modes import EXACT
from nnunet_difftumor.synthesis.spec import Triple
from nnunet_difftumor.synthesis.volume import Box

# Errors below a hundred-thousandth of the window are float32's; PSNR ends at 100 dB.
_LEAST_ERROR = 1e-5
_SSIM_VOXELS = 7


@dataclass(frozen=True)
class Presentation:
    """How an autoencoder is shown a scan.

    Attributes:
        axes, spacing_mm, window_hu: as in `Volumes`.
        low: what the lower end of the window becomes; the upper end becomes 1.
        shift_hu: added to the scan.
    """

    axes: str
    spacing_mm: Triple
    window_hu: tuple[float, float]
    low: float = -1.0
    shift_hu: float = 0.0

    @classmethod
    def of(cls, volumes: Volumes) -> "Presentation":
        """The one that the weights are for."""
        return cls(volumes.axes, volumes.spacing_mm, volumes.window_hu)


@dataclass(frozen=True)
class ReconstructedPatch:
    """A patch on a network's grid. Arrays are float32 of `grid.shape`, HU within the weights' window.

    Attributes:
        grid: its place in the scan.
        scan_hu: the scan.
        made_hu: what the autoencoder made of it.
        inside: voxels whose HU were in the window before they were clipped.
    """

    grid: NetworkGrid
    scan_hu: np.ndarray
    made_hu: np.ndarray
    inside: np.ndarray


class ScanAutoencoder:
    """An autoencoder on a device.

    Args:
        model: with its weights.
        volumes: what the weights are for.
        device: cpu or cuda.

    Raises:
        InputError: for cuda where there is none.
    """

    def __init__(self, model: Autoencoder, volumes: Volumes, *, device: str = "cpu") -> None:
        check_device(device)
        self.device, self.volumes = torch.device(device), volumes
        self.model = model.to(self.device).eval()

    def patch(
        self, scan: Scan, centre_mm: Sequence[float], *, extent_mm: Sequence[float], shown: Presentation | None = None
    ) -> ReconstructedPatch:
        """Encodes and decodes a patch.

        Args:
            scan: CT.
            centre_mm: from the centre of the scan's first voxel, (z, y, x).
            extent_mm: least extent of the patch along the network's axes.
            shown: another presentation than that of the weights; figures stay those of the weights' window.

        Raises:
            InputError: for too little memory on the GPU, or a reconstruction that is not finite.
        """
        shown = shown or Presentation.of(self.volumes)
        grid = self._grid(scan, centre_mm, extent_mm, shown)
        box = grid.box(scan.hu.shape)
        hu = grid.to_network(scan.hu[box], box, repeat_rim=True) + np.float32(shown.shift_hu)
        (least, most), own = shown.window_hu, self.volumes.window_hu
        scale = np.float32((1 - shown.low) / (most - least))
        volume = np.clip((hu - least) * scale + np.float32(shown.low), shown.low, 1)
        made = least + (np.clip(self._reconstructed(volume), shown.low, 1) - np.float32(shown.low)) / scale
        if not np.isfinite(made).all():
            raise InputError("the autoencoder makes NaN or infinite values of this scan; get or train other weights")
        inside = (hu >= own[0]) & (hu <= own[1])
        return ReconstructedPatch(grid, np.clip(hu, *own), np.clip(made, *own), inside)

    def kept_mm(self, scan: Scan, extent_mm: Sequence[float]) -> Triple:
        """Extent of a patch's middle two thirds, along the scan's axes.

        Nearer to its rim, convolutions see repeated voxels; 16 mm of 96 are left out on each side.
        """
        grid = self._grid(scan, (0.0,) * 3, extent_mm, Presentation.of(self.volumes))
        return tuple(abs(step) * size * 2 / 3 for step, size in zip(grid.step_mm, grid.size, strict=True))

    def _grid(
        self, scan: Scan, centre_mm: Sequence[float], extent_mm: Sequence[float], shown: Presentation
    ) -> NetworkGrid:
        return grid_around(
            centre_mm,
            extent_mm=(0.0,) * 3,
            spacing_mm=scan.spacing_mm,
            direction=scan.direction,
            axes=shown.axes,
            network_spacing_mm=shown.spacing_mm,
            least_size=np.ceil(np.divide(extent_mm, shown.spacing_mm) - 1e-6).astype(int),
            multiples=self.model.config.downsampling,
        )

    def _reconstructed(self, volume: np.ndarray) -> np.ndarray:
        try:
            with torch.inference_mode(), numerics(EXACT, torch.get_num_threads()):
                return self.model(torch.from_numpy(volume)[None, None].to(self.device)).volume[0, 0].cpu().numpy()
        except torch.cuda.OutOfMemoryError as error:
            raise InputError(
                f"the GPU's memory is too small for a patch of {' x '.join(map(str, volume.shape))} voxels: free it, "
                "or use the CPU (`device` cpu)"
            ) from error


def blocks(region: Box, spacing_mm: Sequence[float], *, most_mm: Sequence[float]) -> list[Box]:
    """Cuts a region of a scan into blocks of about equal size, at most `most_mm` (or one voxel) along its axes."""
    parts = []
    for part, spacing, extent in zip(region, spacing_mm, most_mm, strict=True):
        most = max(1, int(extent / spacing + 1e-6))
        count = -(-(part.stop - part.start) // most)
        edges = np.linspace(part.start, part.stop, count + 1).round().astype(int).tolist()
        parts.append([slice(start, stop) for start, stop in pairwise(edges)])
    return list(product(*parts))


def centre_of(box: Box, spacing_mm: Sequence[float]) -> Triple:
    """Middle of a box of a scan, in mm from the centre of the scan's first voxel."""
    return tuple((part.start + part.stop - 1) / 2 * step for part, step in zip(box, spacing_mm, strict=True))


class Figures:
    """Collects how far patches are from the scan, over the parts of them that lie in blocks of the scan.

    Voxels are those of the networks' grids. PSNR and SSIM refer to the width of the window; SSIM is that of Wang et al.
    (2004) in three dimensions, with cubes of 7 voxels.

    Args:
        window_hu: of the weights.
    """

    def __init__(self, window_hu: tuple[float, float]) -> None:
        self._range = window_hu[1] - window_hu[0]
        self._voxels = self._inside = 0
        self._squares = self._absolute = self._ssim = 0.0

    def add(self, patch: ReconstructedPatch, block: Box) -> None:
        """Adds the part of a patch that lies in a block of the scan."""
        from skimage.metrics import structural_similarity

        kept = patch.grid.part_in(block)
        rim = _SSIM_VOXELS // 2
        wide = tuple(
            slice(max(0, k.start - rim), min(n, k.stop + rim)) for k, n in zip(kept, patch.grid.shape, strict=True)
        )
        _, similarity = structural_similarity(
            patch.scan_hu[wide], patch.made_hu[wide], win_size=_SSIM_VOXELS, data_range=self._range, full=True
        )
        within = tuple(slice(k.start - w.start, k.stop - w.start) for k, w in zip(kept, wide, strict=True))
        error = (patch.made_hu[kept] - patch.scan_hu[kept]).astype(np.float64)
        self._voxels += error.size
        self._inside += int(np.count_nonzero(patch.inside[kept]))
        self._squares += float(np.square(error).sum())
        self._absolute += float(np.abs(error).sum())
        self._ssim += float(similarity[within].sum(dtype=np.float64))

    @property
    def psnr_db(self) -> float:
        return psnr_db(self._squares / self._voxels, range_hu=self._range)

    @property
    def ssim(self) -> float:
        return self._ssim / self._voxels

    @property
    def mae_hu(self) -> float:
        return self._absolute / self._voxels

    @property
    def share_in_window(self) -> float:
        return self._inside / self._voxels


def psnr_db(mean_square: float, *, range_hu: float) -> float:
    """Peak signal-to-noise ratio of a mean squared error in HU^2; at most 100 dB."""
    return float(-10 * np.log10(max(mean_square / range_hu**2, _LEAST_ERROR**2)))
