"""Whether synthetic tumors look like real ones: shape, noise and contrast, measured on rendered scans.

Only what was written into scan and label map is looked at; the spec is read for the contrast that it promises.

Shapes: two-sample Kolmogorov-Smirnov distance of flatness, elongation, smoothed sphericity, and solidity (volume of the
mask to that of the ellipsoid with its moments), by organ and size, to lesions of LiTS, KiTS23, MSD and Radboud
(shapes/*.csv). Tumors are rendered into an organ without borders at 1 mm, to be compared with lesions on slices of at
most 1.25 mm, or of 2 mm where those are fewer than 40; where there are fewer than 40 again, all lesions are taken, and
each tumor is rendered on the grid of one of them. Cells of 40 lesions or more have a bar; those on all grids are also
shown for the others, since thick slices change every measure.
Noise: on two liver CTs, inside the tumor (2 mm from its border) against the liver 3 to 10 mm outside, without vessels,
and 2 mm from them and from the liver's border: what a Gaussian of 2 mm leaves, its standard deviation, and the power of
its upper frequencies (what a Gaussian of 0.8 voxels in the plane leaves of it).
Contrast: mean in the mask against the liver 3 to 10 mm outside, in a portal venous liver beside its own metastases,
measured in the same way (those brighter than their surroundings left out); and the mean inside against what the spec
promises.

Exits 1 when a bar is missed. Reads the folder that DIFFTUMOR_TEST_DATA names.
"""

import argparse
import csv
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cc3d
import edt
import numpy as np
from scipy.ndimage import find_objects, gaussian_filter
from scipy.stats import ks_2samp
from skimage.measure import marching_cubes, mesh_surface_area
from tqdm import tqdm

from nnunet_difftumor.ct import read_ct, read_labels
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.placement.sampler import Placement, TumorSampler, scaled
from nnunet_difftumor.synthesis.scene import insert_tumors
from nnunet_difftumor.synthesis.shape.field import radius_mm
from nnunet_difftumor.synthesis.shape.profile import mask_in
from nnunet_difftumor.synthesis.shape.survey import region_of, survey
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import ArrayVolume, box_shape

BANDS_MM = {"tiny": (0, 10), "small": (10, 20), "medium": (20, 40), "large": (40, 1e9)}
SETS = {"liver": ("LiTS_liver",), "kidney": ("KiTS23",), "pancreas": ("MSD07_pancreas", "Radboud_pancreas")}
MEASURES = ("flatness", "elongation", "sphericity_smooth", "solidity_ellipsoid")
MOST_KS, LEAST_LESIONS = 0.25, 40
SLICES_MM = (1.25, 2.0)
SD_RATIO, POWER_RATIO = (0.8, 1.2), (0.8, 1.25)
MOST_CONTRAST_ERROR_HU = 5.0
# Of seven real metastases the darkest is at -39 HU, the median at -34, the faintest at -18.
CONTRAST_HU = {0.1: (-60, -45), 0.5: (-38, -30), 0.9: (-20, -10)}
LIVERS = {"liver_healthy": (), "liver_tumors": (2,)}
LABEL = 200


class Lesion(NamedTuple):
    """A real lesion: its voxel size (z, y, x) with the slices first, its diameter, and `MEASURES`."""

    spacing_mm: tuple[float, float, float]
    diameter_mm: float
    measures: tuple[float, ...]


def shape_of(mask: np.ndarray, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)) -> dict[str, float]:
    """`MEASURES` of a mask (z, y, x), and its equivalent diameter in mm; smoothed by largest spacing / 1.5."""
    spacing = np.asarray(spacing_mm, float)
    voxels = np.argwhere(mask)
    mask = mask[tuple(slice(low, high + 1) for low, high in zip(voxels.min(0), voxels.max(0), strict=True))]
    # The moments of a voxel's own extent count too.
    moments = np.sort(np.linalg.eigvalsh(np.cov((voxels * spacing).T, bias=True) + np.diag(spacing**2) / 12))
    volume_mm3 = len(voxels) * spacing.prod()
    sigma = spacing.max() / 1.5 / spacing
    padded = np.pad(mask, [(n, n) for n in np.ceil(4 * sigma).astype(int) + 2])
    smooth = gaussian_filter(padded.astype(np.float32), sigma)
    sphericity = np.nan
    if smooth.max() > 0.5:
        vertices, faces, _, _ = marching_cubes(smooth, 0.5, spacing=tuple(spacing))
        a, b, c = (vertices[faces[:, corner]].astype(float) for corner in range(3))
        inside = abs(np.einsum("ij,ij->i", a, np.cross(b, c)).sum()) / 6
        sphericity = np.pi ** (1 / 3) * (6 * inside) ** (2 / 3) / mesh_surface_area(vertices, faces)
    return {
        "diameter": (6 * volume_mm3 / np.pi) ** (1 / 3),
        "flatness": (moments[0] / moments[2]) ** 0.5,
        "elongation": (moments[1] / moments[2]) ** 0.5,
        "sphericity_smooth": sphericity,
        # A half-axis of an ellipsoid is sqrt(5) times the standard deviation along it.
        "solidity_ellipsoid": volume_mm3 / (4 / 3 * np.pi * np.sqrt((5 * moments).prod())),
    }


def real_lesions(shapes: Path, organ: str) -> list[Lesion]:
    """Those of an organ of which everything was measured."""
    found = []
    for table, slices_first in (("uls23_lesions.csv", False), ("kits23_tumors.csv", True)):
        with open(shapes / table, newline="") as file:
            for row in csv.DictReader(file):
                if row.get("set", "KiTS23") not in SETS[organ] or not all(row[measure] for measure in MEASURES):
                    continue
                size = tuple(float(row[axis]) for axis in ("sx", "sy", "sz"))
                found.append(
                    Lesion(
                        size if slices_first else size[::-1],
                        float(row["eq_diam_mm"]),
                        tuple(float(row[measure]) for measure in MEASURES),
                    )
                )
    return found


def cells(lesions: Sequence[Lesion], band: str) -> Iterator[tuple[str, list[Lesion], bool]]:
    """What tumors of a size are compared with: a name, the lesions, and whether tumors are rendered on their grids."""
    low, high = BANDS_MM[band]
    lesions = [lesion for lesion in lesions if low <= lesion.diameter_mm < high]
    for slices_mm in SLICES_MM:
        thin = [lesion for lesion in lesions if max(lesion.spacing_mm) <= slices_mm + 1e-6]
        if len(thin) >= LEAST_LESIONS:
            break
    if thin:
        yield f"<= {slices_mm:g} mm", thin, False
    if len(thin) < LEAST_LESIONS and lesions:
        yield "all grids", lesions, True


def synthetic_shapes(
    preset: str, organ_name: str, size: str, count: int, grids_mm: Sequence[tuple[float, float, float]]
) -> dict[str, list[float]]:
    """Of tumors rendered into an organ without borders, each on one of the grids."""
    rng = np.random.default_rng(0)
    organ, edge_mm = Organ(organ_name, (1,), LABEL), 40.0
    block = rng.normal(110, 15, (40,) * 3).astype(np.float32)
    statistics = OrganStatistics.measure(
        block, np.ones(block.shape, np.uint8), organ=organ, spacing_mm=(edge_mm / 40,) * 3
    )
    low, high = SIZE_BANDS_MM[size]
    found = defaultdict(list)
    for _ in tqdm(range(count), f"shapes, {organ_name}, {size}", leave=False, disable=None):
        spec = PRESETS[preset].draw(organ_name, size, statistics=statistics, rng=rng)
        spacing = grids_mm[int(rng.integers(len(grids_mm)))]
        # As the sampler does, the deformed shape gets the volume that was drawn.
        spec = scaled(spec, (4 / 3 * np.pi * radius_mm(spec) ** 3 / survey(spec).volume_mm3) ** (1 / 3))
        spec = replace(spec, exophytic=False, centre_mm=tuple(200 + rng.uniform(0, 5, 3)))
        shape = tuple(int(400 / step) for step in spacing)
        box = region_of(spec, shape, spacing, with_mass_effect=False)
        measured = shape_of(mask_in(spec, box, spacing, np.ones(box_shape(box), bool)), spacing)
        if low * 0.95 <= measured["diameter"] < high * 1.05:
            for measure in MEASURES:
                found[measure].append(measured[measure])
    return found


def compare_shapes(report: "Report", shapes: Path, preset: str, count: int) -> None:
    """Prints the distances of all cells."""
    for organ in SETS:
        lesions = real_lesions(shapes, organ)
        for band in BANDS_MM:
            for name, real, on_their_grids in cells(lesions, band):
                grids = [lesion.spacing_mm for lesion in real] if on_their_grids else [(1.0, 1.0, 1.0)]
                synthetic = synthetic_shapes(preset, organ, band, count, grids)
                for index, measure in enumerate(MEASURES):
                    values = [lesion.measures[index] for lesion in real]
                    made = np.asarray(synthetic[measure])
                    distance = float(ks_2samp(values, made[np.isfinite(made)]).statistic)
                    title = f"KS {organ} {band} {measure} ({len(real)} real, {name})"
                    report.row(title, distance, 0, MOST_KS if len(real) >= LEAST_LESIONS else np.inf)


def rendered_tumors(folder: Path, lesions: tuple[int, ...], preset: str, count: int) -> Iterator[tuple]:
    """Scan with a tumor, label map, spec and voxel size, each cut to the tumor's surroundings."""
    ct = read_ct(folder / "ct.nii.gz")
    labels = read_labels(folder / "labels.nii.gz", like=ct)
    organ = Organ("liver", (1,), LABEL, lesions)
    statistics = OrganStatistics.measure(ct.hu, labels, organ=organ, spacing_mm=ct.spacing_mm)
    sampler, rng = TumorSampler(organ, preset), np.random.default_rng(1)
    for number in tqdm(range(count), f"noise, {folder.name}", leave=False, disable=None):
        volume = ArrayVolume(ct.hu.copy(), labels.copy(), ct.spacing_mm)
        size = list(SIZE_BANDS_MM)[number % 4]
        placement = sampler.sample(volume, statistics, rng, size=size)
        if not isinstance(placement, Placement):
            continue
        insert_tumors(volume, [placement.spec], organ)
        found = np.nonzero(volume.label_array == LABEL)
        margin = np.ceil(14 / np.asarray(ct.spacing_mm)).astype(int)
        box = tuple(
            slice(max(axis.min() - more, 0), axis.max() + more + 1) for axis, more in zip(found, margin, strict=True)
        )
        yield volume.hu_array[box], volume.label_array[box], placement.spec, statistics, ct.spacing_mm


def noise_ratios(hu: np.ndarray, labels: np.ndarray, statistics: OrganStatistics, spacing_mm) -> tuple | None:
    """Standard deviation and power of the upper frequencies, tumor to surroundings; None where there is too little."""
    spacing = [float(size) for size in spacing_mm]
    mask, liver = labels == LABEL, labels == 1
    even = (mask | liver) & ~statistics.vessels(hu, liver, spacing)
    inner = edt.edt(mask, anisotropy=spacing) > 2
    outside = edt.edt(~mask, anisotropy=spacing)
    ring = (outside > 3) & (outside <= 10) & (edt.edt(even, anisotropy=spacing) > 2)
    if inner.sum() < 50 or ring.sum() < 200:
        return None
    rest = hu - gaussian_filter(hu, 2 / np.asarray(spacing))
    upper = rest - gaussian_filter(rest, (0, 0.8, 0.8))
    power = [float(np.square(upper[where]).mean()) for where in (inner, ring)]
    return float(rest[inner].std() / rest[ring].std()), power[0] / power[1]


def contrast_error_hu(hu: np.ndarray, labels: np.ndarray, spec: TumorSpec, spacing_mm) -> float | None:
    """Mean inside, 2 mm from the border, minus what the spec promises."""
    inner = edt.edt(labels == LABEL, anisotropy=[float(size) for size in spacing_mm]) > 2
    return float(hu[inner].mean() - spec.background_hu - spec.contrast_hu) if inner.sum() >= 50 else None


def contrast_hu(hu: np.ndarray, tumor: np.ndarray, liver: np.ndarray, spacing_mm) -> float:
    """Mean in the tumor's mask minus that of the liver 3 to 10 mm outside."""
    outside = edt.edt(~tumor, anisotropy=[float(size) for size in spacing_mm])
    return float(hu[tumor].mean() - hu[liver & (outside > 3) & (outside <= 10)].mean())


def real_contrasts_hu(folder: Path, lesion: int) -> list[float]:
    """Of the lesions of a scan that are darker than the liver around."""
    ct = read_ct(folder / "ct.nii.gz")
    labels = read_labels(folder / "labels.nii.gz", like=ct)
    lesions = cc3d.connected_components((labels == lesion).astype(np.uint8), connectivity=26)
    margin = np.ceil(12 / np.asarray(ct.spacing_mm)).astype(int)
    found = []
    for number, part in enumerate(find_objects(lesions), 1):
        box = tuple(slice(max(axis.start - n, 0), axis.stop + n) for axis, n in zip(part, margin, strict=True))
        found.append(contrast_hu(ct.hu[box], lesions[box] == number, labels[box] == 1, ct.spacing_mm))
    return sorted(value for value in found if value < 0)


class Report:
    """Prints measures with their bars, and remembers whether all were held."""

    held = True

    def row(self, name: str, value: float, low: float, high: float) -> None:
        good = low <= value <= high
        self.held &= good
        print(f"{name:<48} {value:6.3f}   bar {low:g} to {high:g}   {'ok' if good else 'MISSED'}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="realistic")
    parser.add_argument("--shapes", type=int, default=300, help="tumors per band")
    parser.add_argument("--tumors", type=int, default=120, help="tumors per scan, for noise and contrast")
    args = parser.parse_args()
    data = Path(os.environ["DIFFTUMOR_TEST_DATA"])
    report = Report()
    compare_shapes(report, data / "shapes", args.preset, args.shapes)
    for scan, lesions in LIVERS.items():
        ratios, errors, contrasts = [], [], []
        for hu, labels, spec, statistics, spacing_mm in rendered_tumors(data / scan, lesions, args.preset, args.tumors):
            ratio = noise_ratios(hu, labels, statistics, spacing_mm)
            error = contrast_error_hu(hu, labels, spec, spacing_mm)
            ratios += [ratio] if ratio else []
            errors += [abs(error)] if error is not None else []
            contrasts.append(contrast_hu(hu, labels == LABEL, labels == 1, spacing_mm))
        sd, power = np.median(ratios, axis=0)
        report.row(f"noise sd ratio, {scan} ({len(ratios)} tumors)", sd, *SD_RATIO)
        report.row(f"noise high-frequency power ratio, {scan}", power, *POWER_RATIO)
        report.row(
            f"contrast error in HU, 90th percentile, {scan}", np.quantile(errors, 0.9), 0, MOST_CONTRAST_ERROR_HU
        )
        if lesions and args.preset == "realistic":
            real_hu = real_contrasts_hu(data / scan, *lesions)
            print(f"real lesions of {scan}, HU: {', '.join(f'{value:.0f}' for value in real_hu)}")
            for level, bar in CONTRAST_HU.items():
                name = f"contrast in HU, {100 * level:.0f} % of {len(contrasts)} tumors, {scan}"
                report.row(name, float(np.quantile(contrasts, level)), *bar)
    print("all bars held" if report.held else "a bar was MISSED")
    return int(not report.held)


if __name__ == "__main__":
    sys.exit(main())
