"""How small a fault `difftumor check` finds, and what it says of sound data: the figures of docs/checks.md.

Seeds faults into the four scans of the folder that DIFFTUMOR_TEST_DATA names and into ten phantoms, and counts those of
which it finds anything: every organ's labels shifted, turned about the organ's middle, mirrored left to right and
exchanged for those of other patients; all HU moved; scans cropped, resampled and turned in storage, which must be
recognized, and different scans, which must not. Exits 1 when a bar is missed.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nibabel as nib
import numpy as np
from result_rows import FOLDER, provenance
from scipy.ndimage import affine_transform, gaussian_filter, zoom
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from nnunet_difftumor.checks.coarse import GRID_MM, coarse_hu, coarse_labels
from nnunet_difftumor.checks.examine import examine, organ_findings
from nnunet_difftumor.checks.finding import Finding
from nnunet_difftumor.checks.hounsfield import FAT_RANGE_HU
from nnunet_difftumor.checks.organ_fit import FitMeasure
from nnunet_difftumor.checks.same_scan import Fingerprint, are_one, common_places, fingerprint
from nnunet_difftumor.ct import read_ct, read_labels
from nnunet_difftumor.dataset_conversion.phantom import LABELS, phantom_case
from nnunet_difftumor.files import write_json
from nnunet_difftumor.synthesis.organ import Organ

RESULT = FOLDER / "check_detection.json"
# Label values by organ; two organs with one value each are also tried as one label.
REAL = {
    "liver_healthy": {"liver": (1,)},
    "liver_thick": {"liver": (1,)},
    "liver_tumors": {"liver": (1,), "left kidney": (3,), "right kidney": (4,), "kidneys": (3, 4), "spleen": (5,)},
    "abdomen_3mm": {
        **{"liver": (5,), "left kidney": (3,), "right kidney": (2,), "kidneys": (2, 3), "spleen": (1,)},
        "pancreas": (7,),
    },
}
PHANTOM = {"liver": (LABELS["liver"],), "kidneys": (LABELS["kidney"],), "pancreas": (LABELS["pancreas"],)}
PERSONS, PHANTOM_MM = 10, (4.0, 3.0, 3.0)
# As the phantom's files: x to the left, y to the back.
PHANTOM_AFFINE = np.diag([-3.0, -3.0, 4.0, 1.0])
SHIFTS_MM, TURNS_DEGREES = (4, 8, 12, 20), (10, 15, 20, 30)
# The patient's, and two between them (z, y, x).
AXES = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (1, -1, 1))
OFFSETS_HU = tuple(offset for offset in range(-200, 201, 10) if offset)
LEAST_ML = 20.0
MOST_SECONDS = 2.0


@dataclass(frozen=True, eq=False)
class Case:
    """A scan with its organs.

    Attributes:
        name: of the case.
        hu: (z, y, x), as in the file.
        affine: of the file, x, y, z.
        masks: boolean by organ, on the coarse grid.
        measure: of the coarse scan.
        tissue_hu: the coarse scan in which fat is looked for.
    """

    name: str
    hu: np.ndarray
    affine: np.ndarray
    masks: dict[str, np.ndarray]
    measure: FitMeasure
    tissue_hu: np.ndarray

    @classmethod
    def of(cls, name: str, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray, organs: dict[str, tuple]) -> "Case":
        coarse = coarse_labels(labels, affine)
        masks = {organ: np.isin(coarse, values) for organ, values in organs.items()}
        return cls(name, hu, affine, masks, *seen(hu, affine))

    @property
    def real(self) -> bool:
        return self.name in REAL

    def organs(self) -> Iterator[tuple[str, np.ndarray]]:
        """Those that are large enough."""
        for organ, mask in self.masks.items():
            if np.count_nonzero(mask) * GRID_MM**3 / 1000 >= LEAST_ML:
                yield organ, mask


def seen(hu: np.ndarray, affine: np.ndarray) -> tuple[FitMeasure, np.ndarray]:
    """What is looked at of a scan."""
    return FitMeasure(coarse_hu(hu, affine)), coarse_hu(hu, affine, range_hu=FAT_RANGE_HU)


def load(data: Path) -> list[Case]:
    """The scans and the phantoms."""
    cases = []
    for name, organs in REAL.items():
        scan = read_ct(data / name / "ct.nii.gz")
        cases.append(Case.of(name, scan.hu, read_labels(label_file(data, name), like=scan), scan.affine, organs))
    for person in range(PERSONS):
        hu, labels = phantom_case([0, 0, person], spacing_mm=PHANTOM_MM, lesions=person % 3)
        cases.append(Case.of(f"phantom {person}", hu, labels, PHANTOM_AFFINE, PHANTOM))
    return cases


def label_file(data: Path, name: str) -> Path:
    return data / name / ("anatomy.nii.gz" if name == "liver_tumors" else "labels.nii.gz")


class Count:
    """Faults that were seeded and found, and the names of those that were not."""

    def __init__(self) -> None:
        self.seeded, self.missed = 0, []

    def add(self, found: bool, name: str) -> None:
        self.seeded += 1
        if not found:
            self.missed.append(name)

    @property
    def share(self) -> float:
        return 1 - len(self.missed) / self.seeded

    def to_dict(self) -> dict[str, Any]:
        return {"found": self.seeded - len(self.missed), "of": self.seeded, "missed": self.missed[:20]}


def findings(case: Case, masks: dict[str, np.ndarray], measure: FitMeasure, tissue_hu: np.ndarray) -> list[Finding]:
    """About organs, whose medians are those of the coarse scan here."""
    organs_hu = {organ: float(np.median(tissue_hu[mask])) for organ, mask in masks.items() if mask.any()}
    return organ_findings(case.name, masks, measure, tissue_hu, organs_hu=organs_hu)


def is_found(case: Case, organ: str, mask: np.ndarray) -> bool:
    return bool(findings(case, {organ: mask}, case.measure, case.tissue_hu))


def moved(mask: np.ndarray, voxels: Sequence[int]) -> np.ndarray:
    """What leaves the scan is lost."""
    padded = np.pad(mask, 10)
    return np.roll(padded, voxels, (0, 1, 2))[10:-10, 10:-10, 10:-10]


def turned(mask: np.ndarray, axis: Sequence[float], degrees: float) -> np.ndarray:
    """About the mask's middle."""
    middle = np.argwhere(mask).mean(0)
    axis = np.divide(axis, np.linalg.norm(axis))
    matrix = Rotation.from_rotvec(np.radians(degrees) * axis).as_matrix()
    return affine_transform(mask.astype(np.float32), matrix, middle - matrix @ middle, order=1) > 0.5


def in_the_place_of(shape: tuple[int, ...], mask: np.ndarray) -> np.ndarray:
    """A mask as it lies in the arrays of another scan that begin at the same place."""
    found = np.zeros(shape, bool)
    shared = tuple(slice(0, min(a, b)) for a, b in zip(shape, mask.shape, strict=True))
    found[shared] = mask[shared]
    return found


def shifts(cases: Sequence[Case]) -> dict[str, Count]:
    counts = {f"{mm} mm": Count() for mm in SHIFTS_MM}
    for case in tqdm(cases, desc="shifts", disable=None):
        for organ, mask in case.organs():
            for mm, axis, sign in ((mm, axis, sign) for mm in SHIFTS_MM for axis in range(3) for sign in (-1, 1)):
                step = [sign * round(mm / GRID_MM) * (axis == at) for at in range(3)]
                counts[f"{mm} mm"].add(is_found(case, organ, moved(mask, step)), f"{case.name} {organ} {step}")
    return counts


def turns(cases: Sequence[Case]) -> dict[str, Count]:
    counts: dict[str, Count] = {}
    for case in tqdm(cases, desc="turns", disable=None):
        for organ, mask in case.organs():
            group = "kidney" if organ.endswith(" kidney") else organ
            for degrees, axis, sign in (
                (degrees, axis, sign) for degrees in TURNS_DEGREES for axis in AXES for sign in (-1, 1)
            ):
                count = counts.setdefault(f"{group} {degrees} degrees", Count())
                count.add(is_found(case, organ, turned(mask, axis, sign * degrees)), f"{case.name} {organ} {axis}")
    return counts


def mirrored(cases: Sequence[Case]) -> dict[str, Count]:
    counts: dict[str, Count] = {}
    for case in cases:
        for organ, mask in case.masks.items():
            group = "kidney" if organ.endswith(" kidney") else organ
            counts.setdefault(group, Count()).add(is_found(case, organ, mask[:, :, ::-1]), f"{case.name} {organ}")
    return counts


def strangers(cases: Sequence[Case]) -> dict[str, Count]:
    """Livers of other patients, where they overlap with the scan."""
    counts = {"real": Count(), "phantoms": Count()}
    for case, other in permutations(cases, 2):
        if case.real != other.real:
            continue
        mask = in_the_place_of(case.measure.hu.shape, other.masks["liver"])
        if case.measure.fit(mask) is not None:
            counts["real" if case.real else "phantoms"].add(
                is_found(case, "liver", mask), f"{case.name} with labels of {other.name}"
            )
    return counts


def offsets(cases: Sequence[Case]) -> dict[str, list[int]]:
    """By scan, the offsets in HU at which nothing is found: of steps of 10, up to 200 in both directions."""
    missed = {}
    for case in tqdm(cases, desc="offsets", disable=None):
        missed[case.name] = []
        for offset in OFFSETS_HU:
            scan = seen(case.hu + np.float32(offset), case.affine)
            if not findings(case, case.masks, *scan):
                missed[case.name].append(offset)
    return missed


def variants(case: Case) -> Iterator[tuple[str, Fingerprint]]:
    """The same scan: halves, the middle half, coarser ones, and stored the other way round."""
    hu, affine = case.hu, case.affine
    (z, y, x), every = hu.shape, slice(None)
    edge = 0.5 ** (1 / 3)
    cuts = {
        "lower half": (slice(0, z // 2), every, every),
        "upper half": (slice(z // 2, None), every, every),
        "front or back half": (every, slice(0, y // 2), every),
        "one side": (every, every, slice(0, x // 2)),
        "other side": (every, every, slice(x // 2, None)),
        "middle half": tuple(slice(int(n * (1 - edge) / 2), n - int(n * (1 - edge) / 2)) for n in hu.shape),
        "half from a corner": tuple(slice(0, int(np.ceil(n * edge))) for n in hu.shape),
    }
    for name, cut in cuts.items():
        yield name, fingerprint(coarse_hu(hu[cut], affine))
    for factor in (1.3, 1.6, 2.0):
        coarser = zoom(gaussian_filter(hu, 0.3 * factor), 1 / factor, order=1, mode="nearest", grid_mode=True)
        steps = np.divide(hu.shape[::-1], coarser.shape[::-1])
        yield f"{factor} times the voxels", fingerprint(coarse_hu(coarser, affine @ np.diag([*steps, 1.0])))
    yield "every other row", fingerprint(coarse_hu(hu[:, ::2, ::2], affine @ np.diag([2.0, 2.0, 1.0, 1.0])))
    yield "turned in storage", fingerprint(coarse_hu(hu[:, :, ::-1], affine @ np.diag([-1.0, 1.0, 1.0, 1.0])))


def share(first: Fingerprint, second: Fingerprint) -> float:
    """Of the places of the scan that has fewer: those that are the same."""
    return common_places(first, second) / max(min(len(first.places_mm), len(second.places_mm)), 1)


def same_scans(cases: Sequence[Case]) -> dict[str, Any]:
    prints = {case.name: fingerprint(case.measure.hu) for case in cases}
    pairs = list(combinations(prints, 2))
    different = {pair: share(prints[pair[0]], prints[pair[1]]) for pair in pairs}
    kinds = {"phantoms": False, "real": True}
    found, shares, wrong = Count(), [], 0
    for case in tqdm(cases, desc="variants", disable=None):
        for name, known in variants(case):
            found.add(are_one(prints[case.name], known), f"{case.name}, {name}")
            shares.append(share(prints[case.name], known))
            wrong += sum(are_one(prints[other.name], known) for other in cases if other.name != case.name)
    return {
        "variants": found,
        "least_share_of_variants": min(shares),
        "pairs": len(pairs),
        "pairs_taken_for_one": sum(are_one(prints[a], prints[b]) for a, b in pairs) + wrong,
        "largest_share_of_pairs": {
            kind: max(value for (a, b), value in different.items() if (a in REAL) == (b in REAL) == real)
            for kind, real in kinds.items()
        },
    }


def alarms(cases: Sequence[Case], data: Path) -> list[str]:
    """What is found in sound data: phantoms, and the scans as they are and turned in storage."""
    found = []
    for case in cases:
        if not case.real:
            found += [finding.line() for finding in findings(case, case.masks, case.measure, case.tissue_hu)]
    with TemporaryDirectory() as folder:
        for name in tqdm(REAL, desc="sound scans", disable=None):
            organs = [Organ(organ, values, 250) for organ, values in REAL[name].items() if organ != "kidneys"]
            files = [data / name / "ct.nii.gz", label_file(data, name)]
            for flips in ((1, 1, 1), (-1, 1, 1), (1, -1, -1)):
                stored = [Path(folder) / file.name.removesuffix(".gz") for file in files]
                for file, path in zip(files, stored, strict=True):
                    turn = [[axis, flip] for axis, flip in enumerate(flips)]
                    nib.save(nib.load(file).as_reoriented(turn), path)
                found += [finding.line() for finding in examine(name, *stored, organs=organs).findings]
    return found


def seconds(data: Path) -> float:
    """Of one core, for 512 x 512 x 100 voxels with four organs, compressed: the quickest of five."""
    with TemporaryDirectory() as folder:
        files = [Path(folder) / "ct.nii.gz", Path(folder) / "labels.nii.gz"]
        sources = data / "liver_tumors" / "ct.nii.gz", label_file(data, "liver_tumors")
        for source, path in zip(sources, files, strict=True):
            nib.save(nib.load(source).slicer[:, :, 15:115], path)
        # The tumors are the liver's.
        organs = [
            Organ(organ, values, 2 if organ == "liver" else 250)
            for organ, values in REAL["liver_tumors"].items()
            if organ != "kidneys"
        ]
        taken = []
        for _ in range(5):
            start = time.process_time()
            examine("case", *files, organs=organs)
            taken.append(time.process_time() - start)
    return min(taken)


def measure(data: Path) -> dict[str, Any]:
    """All figures."""
    seconds_per_case = seconds(data)
    cases = load(data)
    return {
        "alarms_in_sound_data": alarms(cases, data),
        "shifts": shifts(cases),
        "turns": turns(cases),
        "mirrored": mirrored(cases),
        "labels_of_other_patients": strangers(cases),
        "offsets_hu_not_found": offsets(cases),
        "same_scans": same_scans(cases),
        "seconds_per_case": seconds_per_case,
    }


def missed_bars(result: dict[str, Any]) -> list[str]:
    """What docs/checks.md promises, and does not hold."""
    same = result["same_scans"]
    bars = {
        "alarms in sound data": not result["alarms_in_sound_data"],
        **{f"shifts by {mm} mm": result["shifts"][f"{mm} mm"].share >= 0.99 for mm in (8, 12, 20)},
        **{
            f"{organ} turned by {degrees} degrees": result["turns"][f"{organ} {degrees} degrees"].share >= 0.9
            for organ in ("liver", "kidney", "kidneys", "spleen", "pancreas")
            for degrees in (15, 20, 30)
        },
        "mirrored livers": result["mirrored"]["liver"].share == 1,
        "labels of other patients, real": result["labels_of_other_patients"]["real"].share == 1,
        "labels of other patients, phantoms": result["labels_of_other_patients"]["phantoms"].share >= 0.9,
        "crops, coarser and turned scans": same["variants"].share == 1,
        "different scans": same["pairs_taken_for_one"] == 0,
        "seconds": result["seconds_per_case"] <= MOST_SECONDS,
    }
    return [name for name, held in bars.items() if not held]


def as_plain(value: Any) -> Any:
    """For JSON."""
    if isinstance(value, Count):
        return value.to_dict()
    if isinstance(value, dict):
        return {key: as_plain(entry) for key, entry in value.items()}
    return float(f"{value:.3g}") if isinstance(value, float) else value


def lines(result: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in result.items():
        if isinstance(value, Count):
            missed = f"; not: {', '.join(value.missed[:6])}" if value.missed else ""
            yield f"{prefix}{key}: {value.seeded - len(value.missed)} of {value.seeded}{missed}"
        elif isinstance(value, dict):
            yield from lines(value, f"{prefix}{key}, ")
        else:
            yield f"{prefix}{key}: {as_plain(value)}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("DIFFTUMOR_TEST_DATA"), help="folder of the scans")
    parser.add_argument("--store", action="store_true", help=f"replace {RESULT.name} in benchmarks/results")
    args = parser.parse_args(argv)
    if args.data is None or not args.data.is_dir():
        parser.error("name the folder of the scans, by --data or DIFFTUMOR_TEST_DATA")
    result = measure(args.data)
    print("\n".join(lines(result)))
    if args.store:
        write_json(RESULT, {**provenance("cpu"), **as_plain(result)})
    missed = missed_bars(result)
    print(f"MISSED: {', '.join(missed)}" if missed else "all bars held")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
