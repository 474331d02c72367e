"""Why reconstructions are poor: tries the usual mistakes on one patch, and names those that explain it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np
from tqdm import tqdm

from nnunet_difftumor.ct import Scan
from nnunet_difftumor.evaluation.reconstruction.scan_autoencoder import (
    Presentation,
    ReconstructedPatch,
    ScanAutoencoder,
    psnr_db,
)
from nnunet_difftumor.synthesis.networks.grid import NetworkGrid

# Scans have a noise of 10 to 30 HU, which autoencoders lose; tumors differ from the organ by 15 to 40 HU. A larger
# error is more than noise, and a tumor drowns in it. Of the published window it is a tenth, 20 dB.
_POOR_ERROR_HU, _POOR_DB = 42.5, 20.0
# With less of the region in the window there is nothing to reconstruct, and PSNR says nothing.
LEAST_SHARE_IN_WINDOW = 0.05
# Half of a usual patch: an eighth of the time for each trial.
_MOST_MM = 48.0
# A mistake is named if correcting it halves the squared error (3 dB), and what is left is below a quarter of the scan's
# variance (6 dB): a constant of the right grey is no reconstruction.
_BETTER_DB, _EXPLAINED_DB = 3.0, 6.0
# Presentations as good as the best one: the one that changes least is named.
_TIE_DB = 0.5
_WINDOWS_HU = ((-175.0, 250.0), (-1000.0, 1000.0), (-200.0, 250.0), (-160.0, 240.0))
_SPACINGS_MM = (0.75, 1.5, 2.0)
_SHIFTS_HU = (-1024.0, -1000.0, 1000.0, 1024.0)
_PATIENT = ("SI", "RL", "AP")


@dataclass(frozen=True)
class Mistake:
    """One that explains poor figures.

    Attributes:
        kind: axes, window, voxel size or offset.
        better_db: gain of the ratio of the scan's variance to the squared error, on the patch that was tried.
        text: what was better, and what to do.
    """

    kind: str
    better_db: float
    text: str


@dataclass(frozen=True)
class Advice:
    """What is likely wrong.

    Attributes:
        patch_psnr_db: of the patch that was tried, as the weights say it.
        poor: whether that is poor.
        mistakes: the most likely one first; each was tried alone.
    """

    patch_psnr_db: float
    poor: bool
    mistakes: list[Mistake]

    def lines(self) -> list[str]:
        """Sentences for the user."""
        if self.mistakes:
            return [mistake.text for mistake in self.mistakes]
        if not self.poor:
            return [
                f"The middle of the region is good (PSNR {self.patch_psnr_db:.1f} dB): look in the picture for the "
                "part that is not, and give an `organ_mask`."
            ]
        return [
            "No other axes, window, voxel size or HU offset is clearly better: the weights are hardly trained, or of "
            "other data (phase, modality, quality) than this scan. Try another scan, then other weights."
        ]


def poor_psnr_db(window_hu: tuple[float, float]) -> float:
    """Below this a reconstruction is poor: an error of 42.5 HU, or a tenth of the window, if that is less."""
    return max(_POOR_DB, psnr_db(_POOR_ERROR_HU**2, range_hu=window_hu[1] - window_hu[0]))


def advice(
    autoencoder: ScanAutoencoder, scan: Scan, centre_mm: Sequence[float], *, most_mm: float = _MOST_MM
) -> Advice:
    """Tries mistakes one by one on the patch around a position.

    Args:
        autoencoder: with the volumes that its weights are for.
        scan: CT.
        centre_mm: from the centre of the scan's first voxel, (z, y, x).
        most_mm: edge of the patch, if it is less than 48 mm.
    """
    extent_mm = (min(_MOST_MM, most_mm),) * 3
    own = Presentation.of(autoencoder.volumes)
    low, high = autoencoder.volumes.window_hu
    patch = autoencoder.patch(scan, centre_mm, extent_mm=extent_mm)
    as_is, trials = _explained_db(patch), list(_trials(own, patch.grid, scan))
    best: dict[str, tuple[float, Presentation]] = {}
    for kind, shown in tqdm(trials, desc="looking for what is wrong", unit="trial", disable=None):
        tried = autoencoder.patch(scan, centre_mm, extent_mm=extent_mm, shown=shown)
        if kind == "offset" and tried.inside.mean() <= patch.inside.mean():
            continue  # A window has less to reconstruct where HU are pushed out of it.
        found = _explained_db(tried)
        # Trials of a kind come in the order of how much they change.
        if kind not in best or found > best[kind][0] + _TIE_DB:
            best[kind] = found, shown
    mistakes = [
        Mistake(kind, found - as_is, _text(kind, own, shown, found - as_is))
        for kind, (found, shown) in best.items()
        if found - as_is >= _BETTER_DB and found >= _EXPLAINED_DB
    ]
    squares = np.square((patch.made_hu - patch.scan_hu).astype(np.float64)).mean()
    psnr = psnr_db(float(squares), range_hu=high - low)
    return Advice(psnr, psnr < poor_psnr_db((low, high)), sorted(mistakes, key=lambda mistake: -mistake.better_db))


def _trials(own: Presentation, grid: NetworkGrid, scan: Scan) -> Iterator[tuple[str, Presentation]]:
    orders = ["".join(axes) for letters in permutations(_PATIENT) for axes in product(*letters)]
    changes = {axes: sum(a != b for a, b in zip(axes, own.axes, strict=True)) for axes in orders}
    for axes in sorted(orders, key=changes.get):
        if changes[axes]:
            yield "axes", replace(own, axes=axes)
    yield "window", replace(own, low=0.0)
    for window in _WINDOWS_HU:
        if window != own.window_hu:
            yield "window", replace(own, window_hu=window)
    # The scan's own voxels, in the order of the network's axes, as if they were the network's.
    sizes = [tuple(scan.spacing_mm[axis] for axis in grid.axes), *((size,) * 3 for size in _SPACINGS_MM)]
    for size in sizes:
        if not np.allclose(size, own.spacing_mm, rtol=0.05):
            yield "voxel size", replace(own, spacing_mm=size)
    for shift in _SHIFTS_HU:
        yield "offset", replace(own, shift_hu=shift)


def _text(kind: str, own: Presentation, shown: Presentation, better_db: float) -> str:
    if kind == "axes":
        what = f"with the axes {shown.axes} instead of {own.axes}"
        then = (
            "the scan's header names other axes than it has, or the weights were trained with these: correct the "
            'header, or "axes" in autoencoder.json'
        )
    elif kind == "window" and shown.low != own.low:
        what = "with the window mapped to 0 to 1 instead of -1 to 1"
        then = "the weights were trained so: train or get weights for -1 to 1"
    elif kind == "window":
        what = f"with the window {_range(shown.window_hu)} HU instead of {_range(own.window_hu)}"
        then = 'the weights were trained with it: correct "window_hu" in autoencoder.json'
    elif kind == "voxel size":
        what = f"with voxels of {_sizes(shown.spacing_mm)} mm instead of {_sizes(own.spacing_mm)}"
        then = (
            "the scan's header has the wrong voxel size, or the weights were trained with this one, or without "
            'resampling: correct the header, or "spacing_mm" in autoencoder.json'
        )
    else:
        what = f"with {shown.shift_hu:+.0f} HU added to the scan"
        then = "the scan was stored without its intercept, or it was applied twice: correct the scan's values"
    return f"Better by {better_db:.1f} dB {what}: {then}."


def _explained_db(patch: ReconstructedPatch) -> float:
    """Variance of the scan over squared error, in dB. A HU^2 is added to both: without it, air would explain all."""
    scan = patch.scan_hu.astype(np.float64)
    return float(10 * np.log10((scan.var() + 1) / (np.square(patch.made_hu - scan).mean() + 1)))


def _range(window_hu: tuple[float, float]) -> str:
    return f"{window_hu[0]:g} to {window_hu[1]:g}"


def _sizes(spacing_mm: Sequence[float]) -> str:
    return " x ".join(f"{size:.3g}" for size in spacing_mm)
