"""Whether synthetic liver tumors look like real ones: shape, noise and contrast, measured on rendered scans.

Only what was written into scan and label map is looked at; the spec is read for the contrast that it promises.

Shapes: tumors rendered at 1 mm against the lesions of LiTS with slices of at most 1.25 mm (shapes/uls23_lesions.csv):
two-sample Kolmogorov-Smirnov distance of flatness, elongation and smoothed sphericity.
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
from collections.abc import Iterator
from pathlib import Path

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
from nnunet_difftumor.synthesis.placement.sampler import Placement, TumorSampler
from nnunet_difftumor.synthesis.scene import insert_tumors
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import ArrayVolume

BANDS_MM = {"tiny": (0, 10), "small": (10, 20), "medium": (20, 40), "large": (40, 1e9)}
MOST_KS = {"tiny": 0.25, "small": 0.25, "medium": 0.25, "large": 0.30}
SD_RATIO, POWER_RATIO = (0.8, 1.2), (0.8, 1.25)
MOST_CONTRAST_ERROR_HU = 5.0
# Of seven real metastases the darkest is at -38 HU, the median at -34, the faintest at -18.
CONTRAST_HU = {0.1: (-60, -45), 0.5: (-38, -30), 0.9: (-20, -10)}
THICKEST_SLICE_MM = 1.25
LIVERS = {"liver_healthy": (), "liver_tumors": (2,)}
LABEL = 200


def shape_of(mask: np.ndarray) -> dict[str, float]:
    """Flatness, elongation and smoothed sphericity of a mask at 1 mm, and its equivalent diameter in mm."""
    voxels = np.argwhere(mask)
    mask = mask[tuple(slice(low, high + 1) for low, high in zip(voxels.min(0), voxels.max(0), strict=True))]
    # The moments of a voxel's own extent count too.
    moments = np.sort(np.linalg.eigvalsh(np.cov(voxels.T) + np.eye(3) / 12))
    smooth = gaussian_filter(np.pad(mask, 5).astype(np.float32), 1 / 1.5)
    vertices, faces, _, _ = marching_cubes(smooth, 0.5)
    a, b, c = (vertices[faces[:, corner]].astype(float) for corner in range(3))
    volume = abs(np.einsum("ij,ij->i", a, np.cross(b, c)).sum()) / 6
    return {
        "diameter": (6 * len(voxels) / np.pi) ** (1 / 3),
        "flatness": (moments[0] / moments[2]) ** 0.5,
        "elongation": (moments[1] / moments[2]) ** 0.5,
        "sphericity_smooth": np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / mesh_surface_area(vertices, faces),
    }


def real_shapes(table: Path) -> dict[str, dict[str, list[float]]]:
    """By band and measure."""
    found: dict[str, dict[str, list[float]]] = {band: defaultdict(list) for band in BANDS_MM}
    with open(table, newline="") as file:
        for row in csv.DictReader(file):
            if row["set"] != "LiTS_liver" or float(row["sz"]) > THICKEST_SLICE_MM or not row["sphericity_smooth"]:
                continue
            for band, (low, high) in BANDS_MM.items():
                if low <= float(row["eq_diam_mm"]) < high:
                    for measure in ("flatness", "elongation", "sphericity_smooth"):
                        found[band][measure].append(float(row[measure]))
    return found


def synthetic_shapes(preset: str, size: str, count: int) -> dict[str, list[float]]:
    """Of tumors rendered at 1 mm into an organ without borders."""
    edge = 240
    rng = np.random.default_rng(0)
    labels = np.ones((edge,) * 3, np.uint8)
    hu = rng.normal(110, 15, labels.shape).astype(np.float32)
    organ, spacing = Organ("liver", (1,), LABEL), (1.0, 1.0, 1.0)
    statistics = OrganStatistics.measure(hu, labels, organ=organ, spacing_mm=spacing)
    found = defaultdict(list)
    for _ in tqdm(range(count), f"shapes, {size}", leave=False, disable=None):
        volume = ArrayVolume(hu, labels.copy(), spacing)
        placement = TumorSampler(organ, preset).sample(volume, statistics, rng, size=size)
        volume = ArrayVolume(hu.copy(), volume.label_array, spacing)
        insert_tumors(volume, [placement.spec], organ)
        for measure, value in shape_of(volume.label_array == LABEL).items():
            found[measure].append(value)
    return found


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
    real = real_shapes(data / "shapes" / "uls23_lesions.csv")
    for band in BANDS_MM:
        synthetic = synthetic_shapes(args.preset, band, args.shapes)
        for measure, values in real[band].items():
            distance = float(ks_2samp(values, synthetic[measure]).statistic)
            report.row(f"KS {band} {measure} ({len(values)} real)", distance, 0, MOST_KS[band])
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
