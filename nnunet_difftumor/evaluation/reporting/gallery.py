"""Slices of tumors that were found or missed, and of false positives, from the files of an evaluation."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation, find_objects

from nnunet_difftumor.ct import IMAGE_SUFFIXES, Scan, read_ct, read_labels
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.label_maps import label_maps
from nnunet_difftumor.evaluation.measures.matching import Components, MatchingRule, match
from nnunet_difftumor.pages import SliceStack
from nnunet_difftumor.synthesis.scans.stacks import around, axial_stack

KINDS = {"missed": "Tumors that were missed", "found": "Tumors that were found", "false": "False positives"}
# Brighter than any tissue in a soft tissue window.
_OUTLINE_HU = 250.0


@dataclass(frozen=True)
class _Place:
    """A lesion: of which case and kind, how large, and which one of its kind there, counted as the result does."""

    case: str
    kind: str
    diameter_mm: float


def gallery(result: Mapping[str, Any], tumor: str, images: Path, *, each: int) -> dict[str, list[SliceStack]]:
    """Slices around lesions, the truth outlined in one picture and the prediction in the other.

    Missed and found tumors are those nearest to 20 mm from below, where it matters most: early ones by falling size,
    then the others. False positives are the largest.

    Args:
        result: of `evaluate`.
        tumor: name of its label.
        images: folder of the CTs, CASE_0000.nii.gz or CASE.nii.gz.
        each: at most, of each kind.

    Returns:
        By kind, a key of `KINDS`.

    Raises:
        InputError: a scan or label map is missing or damaged.
    """
    wanted = {kind: some[:each] for kind, some in _ranked(result["tumors"][tumor]["cases"]).items()}
    found: dict[str, list[SliceStack]] = {kind: [] for kind in KINDS}
    for case in dict.fromkeys(place.case for some in wanted.values() for place in some):
        scene = _Scene.load(result, tumor, case, images)
        for kind, some in wanted.items():
            sizes = [place.diameter_mm for place in some if place.case == case]
            found[kind] += scene.stacks(kind, sizes)
    return found


def _ranked(cases: Mapping[str, Any]) -> dict[str, list[_Place]]:
    places: dict[str, list[_Place]] = {kind: [] for kind in KINDS}
    for name, case in cases.items():
        for tumor in case["tumors"]:
            kind = "found" if tumor["detected"] else "missed"
            places[kind].append(_Place(name, kind, tumor["diameter_mm"]))
        places["false"] += [_Place(name, "false", finding["diameter_mm"]) for finding in case["false_positives"]]

    def early_first(place: _Place) -> tuple[bool, float]:
        return place.diameter_mm >= 20, -place.diameter_mm

    for kind, some in places.items():
        some.sort(key=early_first if kind != "false" else lambda place: (False, -place.diameter_mm))
    return places


@dataclass(frozen=True)
class _Scene:
    """A case with its masks, components and which of them match."""

    case: str
    scan: Scan
    masks: tuple[np.ndarray, np.ndarray]
    components: tuple[Components, Components]
    matched: np.ndarray

    @classmethod
    def load(cls, result: Mapping[str, Any], tumor: str, case: str, images: Path) -> "_Scene":
        scan = read_ct(_image(images, case))
        settings, values = result["settings"], list(result["tumors"][tumor]["label_values"])
        masks = []
        for folder in (result["ground_truth"], result["prediction"]):
            path = label_maps(folder).get(case)
            empty = path is None and case in settings["counted_as_empty"]
            if path is None and not empty:
                raise InputError(f"{folder}: no label map of {case} any more; evaluate again, or leave `images` out")
            labels = np.zeros(scan.hu.shape, np.uint8) if path is None else read_labels(path, like=scan)
            masks.append(np.isin(labels, values))
        components = tuple(Components.of(mask, scan.spacing_mm) for mask in masks)
        rule = MatchingRule(settings["match"]["rule"], settings["match"]["min_iou"])
        return cls(case, scan, (masks[0], masks[1]), (components[0], components[1]), match(*components, rule)[1])

    def stacks(self, kind: str, sizes_mm: list[float]) -> Iterator[SliceStack]:
        """Of the lesions of a kind with these diameters."""
        of_truth = kind != "false"
        components = self.components[0 if of_truth else 1]
        hit = self.matched.any(axis=1 if of_truth else 0)
        boxes = find_objects(components.labels)
        left = [i for i in range(len(components.voxels)) if bool(hit[i]) == (kind == "found")]
        outlined = [self._outlined(mask) for mask in self.masks]
        for size_mm in sizes_mm:
            nearest = min(left, key=lambda i: abs(components.diameters_mm[i] - size_mm), default=None)
            # Where an organ's mask left predictions out, some lesions of the maps are not in the result.
            if nearest is None or abs(components.diameters_mm[nearest] - size_mm) > 0.01:
                continue
            left.remove(nearest)
            directions = self.scan.direction
            region = around(
                boxes[nearest], spacing_mm=self.scan.spacing_mm, directions=directions, shape=self.scan.hu.shape
            )
            yield axial_stack(
                f"{self.case}: {size_mm:.1f} mm",
                *outlined,
                region=region,
                spacing_mm=self.scan.spacing_mm,
                directions=directions,
                mask=components.labels == nearest + 1,
                names=("truth outlined", "prediction outlined"),
            )

    def _outlined(self, mask: np.ndarray) -> np.ndarray:
        """HU with a line around the mask, in the slices."""
        flat = np.ones((1, 3, 3), bool)
        return np.where(binary_dilation(mask, flat) & ~mask, np.float32(_OUTLINE_HU), self.scan.hu)


def _image(folder: Path, case: str) -> Path:
    for name in (f"{case}_0000", case):
        for suffix in IMAGE_SUFFIXES:
            if (folder / f"{name}{suffix}").is_file():
                return folder / f"{name}{suffix}"
    raise InputError(f"{folder}: no CT of {case}; expected {case}_0000.nii.gz or {case}.nii.gz")
