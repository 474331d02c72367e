"""Whether tumors that grow out of an organ stop where they must, and leave no spikes.

Draws exophytic kidney tumors into CT scans with kidneys and into the phantom, renders each and looks at its mask with
means of its own:

- distance to lung: air below -500 HU, of 1 ml or more in one piece, anywhere in the scan;
- spikes outside of the organ: the mask is opened by a ball of 2 mm, at 1 mm; what it loses is thinner than 4 mm, and
  how far that sticks out of what is left is given as a multiple of 4 mm;
- uncut: share of the whole shape that found room;
- bowel, muscle and bone: mask beyond the rim of 3 mm whose mean over 5 mm was that of soft tissue before;
- capsules: each tumor again with a capsule: no voxel outside of the mask is brighter than without.

And how many grow out, of those that real ones do: 79 % of medium and 97 % of large ones. Exits 1 when a bar is missed.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import edt
import numpy as np
from scipy.ndimage import gaussian_filter, label, zoom
from tqdm import tqdm

from nnunet_difftumor.ct import read_ct, read_labels
from nnunet_difftumor.dataset_conversion.phantom import phantom_case
from nnunet_difftumor.dataset_conversion.phantom_body.anatomy import LABELS
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.placement.sampler import Placement, TumorSampler
from nnunet_difftumor.synthesis.scene import insert_tumors
from nnunet_difftumor.synthesis.shape.survey import survey
from nnunet_difftumor.synthesis.volume import ArrayVolume

TUMOR_LABEL = 200
SIZES = ("small", "medium", "large")
LEAST_GROWN = {"small": 0.4, "medium": 0.74, "large": 0.92}
LUNG_HU, LEAST_LUNG_ML, LEAST_TO_LUNG_MM = -500, 1.0, 2.0
BALL_MM, MOST_LENGTH_TO_THICKNESS = 2.0, 1.0
LEAST_UNCUT = 0.8
MOST_OVER_SOFT = 0.1
RIM_MM = 3.0


@dataclass
class Found:
    """What was measured of the exophytic tumors of one scan and size."""

    drawn: int = 0
    placed: int = 0
    grown: int = 0
    to_lung_mm: list[float] = field(default_factory=list)
    spikes: list[float] = field(default_factory=list)
    uncut: list[float] = field(default_factory=list)
    over_soft: list[float] = field(default_factory=list)
    brightened: int = 0


def scans(data: Path) -> Iterator[tuple[str, ArrayVolume, Organ]]:
    """Name, scan with labels, and its kidneys."""
    for name, file, kidneys, lesions in (
        ("liver_tumors", "anatomy.nii.gz", (3, 4), (2,)),
        ("abdomen_3mm", "labels.nii.gz", (2, 3), ()),
    ):
        ct = read_ct(data / name / "ct.nii.gz")
        labels = read_labels(data / name / file, like=ct)
        yield name, ArrayVolume(ct.hu, labels, ct.spacing_mm), Organ("kidney", kidneys, TUMOR_LABEL, lesions)
    spacing_mm = (2.0, 1.5, 1.5)
    hu, labels = phantom_case(0, spacing_mm=spacing_mm)
    yield "phantom", ArrayVolume(hu, labels, spacing_mm), Organ("kidney", (LABELS["kidney"],), TUMOR_LABEL)


def distance_to_lung_mm(volume: ArrayVolume) -> np.ndarray:
    """Of every voxel of a scan, float32 (z, y, x)."""
    air, count = label(volume.hu_array < LUNG_HU)
    millilitres = np.bincount(air.ravel(), minlength=count + 1) * np.prod(volume.spacing_mm) / 1000
    large = millilitres >= LEAST_LUNG_ML
    large[0] = False
    if not large.any():
        return np.full(volume.shape, np.inf, np.float32)
    return edt.edt(~large[air], anisotropy=list(map(float, volume.spacing_mm)))


def length_to_thickness(mask: np.ndarray, outside: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """The largest of what a ball of BALL_MM does not reach in a mask (z, y, x), outside of the organ."""
    box = tuple(slice(max(where.min() - 6, 0), where.max() + 7) for where in np.nonzero(mask))
    # Between voxels linearly, so that the steps of a coarse grid are no spikes.
    fine = (
        zoom(np.pad(mask[box], 4).astype(np.float32), spacing_mm, order=1, grid_mode=True, mode="grid-constant") >= 0.5
    )
    beyond = (
        zoom(np.pad(outside[box], 4).astype(np.uint8), spacing_mm, order=0, grid_mode=True, mode="grid-constant") > 0
    )
    beyond &= fine
    opened = edt.edt(~(edt.edt(fine) >= BALL_MM)) <= BALL_MM
    lost = beyond & ~opened
    return float(edt.edt(~opened)[lost].max(initial=0)) / (2 * BALL_MM)


def examine(found: Found, placement: Placement, scan: ArrayVolume, organ: Organ, to_lung_mm: np.ndarray) -> None:
    """Renders a tumor into a copy of the scan, with and without a capsule, and measures its mask."""
    spec = replace(placement.spec, capsule_hu=0.0, capsule_mm=0.0)
    tumor, capsuled = (
        insert_tumors(replace(scan, hu_array=scan.hu_array.copy(), label_array=scan.label_array.copy()), [one], organ)[
            0
        ]
        for one in (spec, replace(spec, capsule_hu=60.0, capsule_mm=2.0))
    )
    found.brightened += bool((capsuled.hu > tumor.hu)[~tumor.mask].any())
    kidney = organ.mask(scan.label_array[tumor.box])
    outside = tumor.mask & ~kidney
    far = outside & (edt.edt(~kidney, anisotropy=list(map(float, scan.spacing_mm))) > RIM_MM)
    soft = gaussian_filter(scan.hu_array[tumor.box], 2.5 / np.asarray(scan.spacing_mm)) > 0
    found.over_soft.append(np.count_nonzero(far & soft) / np.count_nonzero(tumor.mask))
    found.to_lung_mm.append(float(to_lung_mm[tumor.box][tumor.mask].min()))
    found.spikes.append(length_to_thickness(tumor.mask, outside, scan.spacing_mm))
    found.uncut.append(np.count_nonzero(tumor.mask) * np.prod(scan.spacing_mm) / survey(spec).volume_mm3)


def measure(volume: ArrayVolume, organ: Organ, *, size: str, count: int) -> Found:
    """Draws tumors of one size until `count` of them have grown out, or four times as many were drawn."""
    statistics = OrganStatistics.measure(volume.hu_array, volume.label_array, organ=organ, spacing_mm=volume.spacing_mm)
    to_lung_mm = distance_to_lung_mm(volume)
    sampler, found = TumorSampler(organ), Found()
    with tqdm(total=count, desc=size, leave=False, disable=None) as bar:
        while found.grown < count and found.drawn < 4 * count:
            placement = sampler.sample(volume, statistics, np.random.default_rng((3, found.drawn)), size=size)
            found.drawn += 1
            if not isinstance(placement, Placement):
                continue
            found.placed += 1
            if placement.spec.exophytic:
                found.grown += 1
                examine(found, placement, volume, organ, to_lung_mm)
                bar.update()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=34, help="exophytic tumors per scan and size (%(default)s)")
    args = parser.parse_args()
    data = Path(os.environ["DIFFTUMOR_TEST_DATA"])
    held = True
    print(
        f"{'scan':<14}{'size':<8}{'drawn':>6}{'placed':>7}{'out %':>7}{'lung mm':>9}{'spikes':>8}{'uncut':>7}"
        f"{'soft':>6}"
    )
    for name, volume, organ in scans(data):
        for size in SIZES:
            found = measure(volume, organ, size=size, count=args.count)
            share = found.grown / max(found.placed, 1)
            lung, spike, uncut = min(found.to_lung_mm), max(found.spikes), min(found.uncut)
            good = (
                share >= LEAST_GROWN[size]
                and lung >= LEAST_TO_LUNG_MM
                and spike <= MOST_LENGTH_TO_THICKNESS
                and uncut >= LEAST_UNCUT
                and max(found.over_soft) <= MOST_OVER_SOFT
                and not found.brightened
            )
            held &= good
            print(
                f"{name:<14}{size:<8}{found.drawn:6}{found.placed:7}{100 * share:7.0f}{lung:9.1f}{spike:8.2f}"
                f"{uncut:7.2f}{max(found.over_soft):6.2f}  {'ok' if good else 'MISSED'}"
                + (f", {found.brightened} capsules brighten what is around" if found.brightened else ""),
                flush=True,
            )
    print("all bars held" if held else "a bar was MISSED")
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
