"""How often tumors of every size find a place in real organs, and whether what is placed is what was promised.

Draws tumors one at a time into the CT scans of a folder, renders each, and looks at the rendered labels with means of
its own: one component, inside the organ or grown out of it into fat, equivalent diameter in the band, vessels by
equations 1 and 2 of Hu et al. (CVPR 2023). Prints one row per scan, organ and size; a row with a bar ends in "ok" or in
what was missed. Exits 1 when a bar is missed.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from zlib import crc32

import edt
import numpy as np
from scipy.ndimage import gaussian_filter, label

from nnunet_difftumor.ct import read_ct, read_labels
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.placement.sampler import Placement, TumorSampler
from nnunet_difftumor.synthesis.scene import insert_tumors
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import ArrayVolume

BANDS_MM = {"tiny": (5, 10), "small": (10, 20), "medium": (20, 40), "large": (40, 80)}
LEAST_PLACED, LEAST_IN_BAND = 0.95, 0.95
# Longest time for one tumor: there is to be no hang, however little room there is.
MOST_SECONDS = 20.0
# Share of an exophytic tumor, beyond the rim of its organ, that was soft tissue over 5 mm.
MOST_OVER_SOFT = 0.1
# None of the scans' label maps has it.
TUMOR_LABEL = 200
# Looked at around what the renderer says it changed; for the first tumor of a row, the whole scan.
MARGIN_VOXELS = 8


@dataclass(frozen=True)
class Place:
    """An organ in one scan, and the sizes of which at least LEAST_PLACED must find room there."""

    scan: str
    organ: str
    organ_labels: tuple[int, ...]
    sizes_with_bar: tuple[str, ...] = ()
    label_file: str = "labels.nii.gz"
    avoid_labels: tuple[int, ...] = ()
    thin: bool = False
    sizes_by_growth: tuple[str, ...] = ()

    def has_bar(self, preset: str, size: str) -> bool:
        """Tumors that must grow out of the organ to have room are asked only of the preset that lets them."""
        return size in self.sizes_with_bar or (preset in GROWING_PRESETS and size in self.sizes_by_growth)


EARLY = ("tiny", "small")
GROWING_PRESETS = ("realistic",)
PLACES = (
    Place("liver_healthy", "liver", (1,), (*EARLY, "medium", "large")),
    Place("liver_tumors", "liver", (1,), (*EARLY, "medium"), "anatomy.nii.gz", (2,)),
    Place("abdomen_3mm", "liver", (5,), (*EARLY, "medium", "large")),
    Place("liver_tumors", "kidney", (3, 4), EARLY, "anatomy.nii.gz", sizes_by_growth=("medium", "large")),
    Place("abdomen_3mm", "kidney", (2, 3), EARLY, sizes_by_growth=("medium", "large")),
    Place("liver_tumors", "spleen", (5,), EARLY, "anatomy.nii.gz"),
    Place("abdomen_3mm", "spleen", (1,), EARLY),
    Place("abdomen_3mm", "pancreas", (7,), ("tiny",), sizes_by_growth=("medium",)),
    # Every eighth slice of a liver: one slice thick, and as wide as a liver. There must be an answer, whichever.
    Place("abdomen_3mm", "thin liver", (5,), thin=True),
)


@dataclass
class Row:
    """What became of the tumors of one size in one place."""

    preset: str
    place: Place
    size: str
    clear_of_vessels: bool = False
    drawn: int = 0
    refused: Counter = field(default_factory=Counter)
    faults: Counter = field(default_factory=Counter)
    diameters_mm: list[float] = field(default_factory=list)
    vessel_shares: list[float] = field(default_factory=list)
    longest_s: float = 0.0
    grown: int = 0

    @property
    def placed(self) -> int:
        return self.drawn - self.refused.total()

    @property
    def has_bar(self) -> bool:
        """Whether nearly all must find room."""
        return self.place.has_bar(self.preset, self.size) and (self.size in EARLY or not self.clear_of_vessels)

    def missed(self) -> list[str]:
        """The bars that this row misses."""
        missed = [f"{count} {fault}" for fault, count in self.faults.items()]
        low, high = BANDS_MM[self.size]
        in_band = sum(low <= diameter < high for diameter in self.diameters_mm)
        if in_band < int(LEAST_IN_BAND * self.placed):
            missed.append(f"only {in_band} of {self.placed} in the band")
        if self.has_bar and self.placed < int(LEAST_PLACED * self.drawn):
            missed.append(f"only {self.placed} of {self.drawn} placed")
        if self.longest_s > MOST_SECONDS:
            missed.append(f"{self.longest_s:.0f} s for one tumor")
        return missed

    def line(self) -> str:
        diameter = f"{np.median(self.diameters_mm):9.1f}" if self.diameters_mm else " " * 9
        shares = self.vessel_shares or [0.0]
        grown = f"{100 * self.grown / self.placed if self.placed else 0:7.0f}"
        vessels = f"{100 * np.median(shares):7.2f}{100 * max(shares):7.2f}"
        verdict = "; ".join(["MISSED", *self.missed()]) if self.missed() else "ok" if self.has_bar else "-"
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.refused.most_common())
        return (
            f"{self.preset:<14}{self.place.scan:<15}{self.place.organ:<11}{self.size:<7}{self.drawn:6}{self.placed:7}"
            f"{100 * self.placed / self.drawn:7.1f}{diameter}{grown}{vessels}{self.longest_s:6.1f}  {verdict}"
            + (f"  [{reasons}]" if reasons else "")
        )


HEADER = (
    f"{'preset':<14}{'scan':<15}{'organ':<11}{'size':<7}{'drawn':>6}{'placed':>7}{'%':>7}{'median mm':>9}"
    f"{'out%':>7}{'vessel%':>7}{'most%':>7}{'s':>6}  bar  [NoRoom by reason]"
)


def vessel_map(
    hu: np.ndarray, organ: np.ndarray, spacing_mm: Sequence[float], statistics: OrganStatistics
) -> np.ndarray:
    """Equations 1 and 2 of Hu et al. with Table 1: b = 15, sigma_a = 0.5 + 0.025 sigma_p, in mm or voxels if larger.

    Where much of an organ is brighter than that (kidneys), the statistics say from where on it is vessel.
    """
    sigma_p = statistics.parenchyma_sd_hu
    sigma_a = [max((0.5 + 0.025 * sigma_p) / step, 0.5 + 0.025 * sigma_p) for step in spacing_mm]
    smooth = gaussian_filter(hu, sigma_a)
    threshold_hu = hu[organ].mean(dtype=np.float64) + 15
    if (smooth[organ] > threshold_hu).mean() > 0.25:
        threshold_hu = statistics.vessel_threshold_hu
    return (smooth > threshold_hu) & organ


@lru_cache(maxsize=1)
def load(data: Path, place: Place) -> tuple[ArrayVolume, Organ, OrganStatistics, np.ndarray]:
    """The scan, the organ, its statistics, and the vessel map."""
    scan = read_ct(data / place.scan / "ct.nii.gz")
    labels = read_labels(data / place.scan / place.label_file, like=scan)
    if place.thin:
        labels[np.arange(len(labels)) % 8 > 0] = 0
    organ = Organ(place.organ, place.organ_labels, TUMOR_LABEL, place.avoid_labels)
    statistics = OrganStatistics.measure(scan.hu, labels, organ=organ, spacing_mm=scan.spacing_mm)
    mask = np.isin(labels, place.organ_labels)
    sigma_p = statistics.parenchyma_sd_hu
    vessels = vessel_map(scan.hu, mask, scan.spacing_mm, statistics)
    without_vessels = scan.hu[mask & ~vessels]
    if not 0.5 * sigma_p < 0.7413 * np.subtract(*np.percentile(without_vessels, (75, 25))) < 1.5 * sigma_p:
        raise AssertionError(f"{place}: sigma_p of {sigma_p:.1f} HU is not the organ's without its vessels")
    return ArrayVolume(scan.hu, labels, scan.spacing_mm), organ, statistics, vessels


def examine(row: Row, placement: Placement, volume: ArrayVolume, organ: Organ, vessels: np.ndarray) -> None:
    """Renders a tumor, looks at the label map that comes out, and puts the scan back as it was."""
    centre = np.divide(placement.spec.centre_mm, volume.spacing_mm)
    half = np.divide(placement.reach_mm, volume.spacing_mm) + MARGIN_VOXELS
    box = tuple(slice(max(0, int(c - h)), int(c + h) + 1) for c, h in zip(centre, half, strict=True))
    if row.drawn == 1:
        box = (slice(None),) * 3
    hu_before, labels_before = volume.hu_array[box].copy(), volume.label_array[box].copy()
    insert_tumors(volume, [placement.spec], organ)
    mask = volume.label_array[box] == TUMOR_LABEL
    row.faults["empty"] += not mask.any()
    row.faults["of several components"] += label(mask)[1] > 1
    row.faults += misplaced(placement.spec, mask, volume, box=box, hu=hu_before, labels=labels_before, place=row.place)
    row.grown += placement.spec.exophytic
    voxels = np.count_nonzero(mask)
    row.diameters_mm.append(float((6 / np.pi * voxels * np.prod(volume.spacing_mm)) ** (1 / 3)))
    row.vessel_shares.append(np.count_nonzero(mask & vessels[box]) / max(voxels, 1))
    row.faults["with vessels"] += (row.clear_of_vessels or row.size in EARLY) and row.vessel_shares[-1] > 0
    row.faults["report another vessel share"] += abs(row.vessel_shares[-1] - placement.vessel_share) > 1e-6
    volume.hu_array[box], volume.label_array[box] = hu_before, labels_before


def misplaced(
    spec: TumorSpec,
    mask: np.ndarray,
    volume: ArrayVolume,
    *,
    box: tuple[slice, ...],
    hu: np.ndarray,
    labels: np.ndarray,
    place: Place,
) -> Counter:
    """What a tumor does outside of its organ that it must not; `hu` and `labels` are of the box before it."""
    organ = np.isin(labels, place.organ_labels)
    changed = volume.hu_array[box] != hu
    outside = mask & ~organ
    faults = Counter()
    if spec.mass_effect > 0:
        axes = [np.arange(*part.indices(size)[:2]) for part, size in zip(box, volume.shape, strict=True)]
        offsets = [
            (axis * step - centre).reshape([-1 if j == i else 1 for j in range(3)])
            for i, (axis, step, centre) in enumerate(zip(axes, volume.spacing_mm, spec.centre_mm, strict=True))
        ]
        pushed = sum(offset**2 for offset in offsets) < spec.mass_effect_radius_mm**2
        faults["changed outside the organ, beyond the mass effect"] += bool((changed & ~organ & ~pushed).any())
        # The organ bulges over its old border, by at most what equation 5 moves.
        furthest = 4 / 27 * spec.mass_effect * spec.mass_effect_radius_mm
        faults["beyond the bulging organ"] += bool((outside & (distance_mm(organ, volume) > furthest + 2)).any())
    elif spec.exophytic:
        faults["over another organ"] += bool((outside & (labels != 0)).any())
        # Organ and fat have a rim of mixed intensities between them.
        far = outside & (distance_mm(organ, volume) > max(3, 1.5 * min(volume.spacing_mm)))
        # Strands and small vessels in fat are grown over.
        soft = gaussian_filter(hu, 2.5 / np.asarray(volume.spacing_mm)) > 0
        faults["over what is no fat"] += np.count_nonzero(far & soft) > MOST_OVER_SOFT * np.count_nonzero(mask)
        faults["hardly in the organ"] += np.count_nonzero(mask & organ) < 0.2 * np.count_nonzero(mask)
    else:
        faults["outside the organ"] += bool(outside.any())
        faults["changed outside the organ"] += bool((changed & ~organ).any())
    return faults


def distance_mm(organ: np.ndarray, volume: ArrayVolume) -> np.ndarray:
    return edt.edt(~organ, anisotropy=[float(size) for size in volume.spacing_mm])


def measure(data: Path, preset: str, place: Place, size: str, count: int, clear_of_vessels: bool) -> Row:
    """Draws `count` tumors of one size in one place."""
    volume, organ, statistics, vessels = load(data, place)
    sampler = TumorSampler(organ, preset, clear_of_vessels=clear_of_vessels)
    row = Row(preset, place, size, clear_of_vessels=clear_of_vessels)
    seed = crc32(f"{preset} {place.scan} {place.organ} {size}".encode())
    for number in range(count):
        start = time.perf_counter()
        found = sampler.sample(volume, statistics, np.random.default_rng((seed, number)), size=size)
        row.longest_s = max(row.longest_s, time.perf_counter() - start)
        row.drawn += 1
        if isinstance(found, Placement):
            examine(row, found, volume, organ, vessels)
        else:
            row.refused[found.reason] += 1
    row.faults = +row.faults
    return row


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("DIFFTUMOR_TEST_DATA"), help="folder of the scans")
    parser.add_argument("--count", type=int, default=1000, help="tumors per organ and size (default: %(default)s)")
    parser.add_argument("--presets", nargs="+", default=["realistic"], choices=PRESETS)
    parser.add_argument(
        "--clear-of-vessels", action="store_true", help="tumors of every size; then only tiny and small ones have bars"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.data is None or not args.data.is_dir():
        parser.error("name the folder of the scans, by --data or DIFFTUMOR_TEST_DATA")

    scans_per_organ = Counter(place.organ for place in PLACES)
    tasks = [
        (args.data, preset, place, size, -(-args.count // scans_per_organ[place.organ]), args.clear_of_vessels)
        for preset in args.presets
        for place in PLACES
        for size in BANDS_MM
    ]
    print(HEADER)
    missed = 0
    with ProcessPoolExecutor(args.jobs) as pool:
        for row in pool.map(measure, *zip(*tasks, strict=True)) if args.jobs > 1 else (measure(*t) for t in tasks):
            print(row.line(), flush=True)
            missed += bool(row.missed())
    print(f"{missed} rows MISSED their bar" if missed else "all bars held")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
