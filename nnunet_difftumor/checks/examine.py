"""Everything that can be seen of one raw case, remembered as long as its files and what is looked for stay the same."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_difftumor.checks.coarse import coarse_hu, coarse_labels
from nnunet_difftumor.checks.finding import ERROR, NOTE, Finding
from nnunet_difftumor.checks.hounsfield import FAT_RANGE_HU, has_fat_in_place, wrong_hu
from nnunet_difftumor.checks.label_content import label_findings, wrong_side
from nnunet_difftumor.checks.organ_fit import FitMeasure, misplaced_labels
from nnunet_difftumor.checks.same_scan import Fingerprint, fingerprint
from nnunet_difftumor.ct import IMAGE_SUFFIXES, read_ct, read_labels
from nnunet_difftumor.ct.hounsfield import organ_medians_hu
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import write_json
from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.synthesis.organ import Organ

# Goes up when anything that is looked for changes: what is remembered is then looked at again.
_VERSION = 4
_FOLDER = "difftumor_checks"
_RESULT = "result.json"


@dataclass(frozen=True, eq=False)
class Examined:
    """What was seen of a case.

    Attributes:
        findings: about the case by itself.
        fingerprint: None where the image could not be read.
        labels: values that its label map holds.
    """

    findings: tuple[Finding, ...]
    fingerprint: Fingerprint | None
    labels: tuple[int, ...]


def examine(case: str, image: Path, label: Path, *, organs: Sequence[Organ]) -> Examined:
    """Reads a case and looks at it.

    Args:
        case: name.
        image, label: raw files.
        organs: whose labels are looked at.
    """
    if not image.name.endswith(IMAGE_SUFFIXES):
        seen = f"{image}: is of a format that is not read here, so that only its file was looked at"
        return Examined((Finding("unreadable", case, NOTE, seen, ""),), None, ())
    try:
        scan = read_ct(image)
    except InputError as error:
        return Examined((Finding("unreadable", case, ERROR, str(error), ""),), None, ())
    hu = coarse_hu(scan.hu, scan.affine)
    found = fingerprint(hu)
    try:
        labels = read_labels(label, like=scan)
    except InputError as error:
        return Examined((Finding("unreadable", case, ERROR, str(error), ""),), found, ())
    counts = {value: int(count) for value, count in enumerate(np.bincount(labels.ravel())) if count}
    if not organs:
        return Examined((), found, tuple(counts))
    findings = label_findings(
        case,
        labels,
        scan.spacing_mm,
        counts=counts,
        organs={organ.name: organ.organ_labels for organ in organs},
        tumors={organ.name: (organ.tumor_label,) for organ in organs},
    )
    if not {finding.kind for finding in findings} & {"empty-organ", "specks"}:
        coarse = coarse_labels(labels, scan.affine)
        masks = {organ.name: np.isin(coarse, organ.organ_labels) for organ in organs}
        tissue = coarse_hu(scan.hu, scan.affine, range_hu=FAT_RANGE_HU)
        organs_hu = organ_medians_hu(scan.hu, labels, {organ.name: organ.organ_labels for organ in organs})
        findings += organ_findings(case, masks, FitMeasure(hu), tissue, organs_hu=organs_hu)
    return Examined(tuple(findings), found, tuple(counts))


def organ_findings(
    case: str,
    masks: Mapping[str, np.ndarray],
    measure: FitMeasure,
    tissue_hu: np.ndarray,
    *,
    organs_hu: Mapping[str, float],
) -> list[Finding]:
    """Whether organs lie where they are labelled, and are of HU.

    Labels in the wrong place make organs' HU wrong, and wrong HU make places look wrong: the cause is named.

    Args:
        case: name.
        masks: by organ, on the coarse grid.
        measure: of the case's scan.
        tissue_hu: the scan as `coarse_hu` gives it for `FAT_RANGE_HU`.
        organs_hu: median of each organ, in the scan itself.
    """
    fits = {organ: fit for organ, mask in masks.items() if (fit := measure.fit(mask)) is not None}
    aside = [finding for organ in fits for finding in wrong_side(case, organ, masks[organ], measure.hu)]
    misplaced = [finding for organ, fit in fits.items() for finding in misplaced_labels(case, organ, fit)]
    organs_hu = {organ: organs_hu[organ] for organ in fits}
    intensities = wrong_hu(case, organs_hu, tissue_hu)
    in_air = all(fit.foreign > 0.9 for fit in fits.values())
    # In labels that lie in air there is nothing else, and the scan is in HU all the same.
    if not misplaced or (intensities and in_air and not has_fat_in_place(tissue_hu, organs_hu.values())):
        return aside + intensities
    return aside + misplaced


class Remembered:
    """What was seen, by name, as long as it is asked for with the same key.

    Args:
        dataset_folder: `nnUNet_preprocessed/DatasetXXX_NAME`.
    """

    def __init__(self, dataset_folder: Path) -> None:
        self.folder = dataset_folder / _FOLDER

    def get(self, name: str, key: str, make: Callable[[], Examined]) -> Examined:
        """What is remembered, or what `make` gives."""
        found = self.read(name, key)
        if found is None:
            found = make()
            self.write(name, key, found)
        return found

    def read(self, name: str, key: str) -> Examined | None:
        """None if nothing is remembered for this key."""
        content = _read(self.folder / f"{name}.json")
        if content is None or content.get("key") != key:
            return None
        marks = content["fingerprint"]
        return Examined(
            tuple(Finding(**finding) for finding in content["findings"]),
            None if marks is None else Fingerprint.from_json(marks),
            tuple(content["labels"]),
        )

    def write(self, name: str, key: str, found: Examined) -> None:
        """Remembers; a folder that cannot be written to only costs the next call time."""
        content = {
            "key": key,
            "findings": [asdict(finding) for finding in found.findings],
            "labels": list(found.labels),
            "fingerprint": None if found.fingerprint is None else found.fingerprint.to_json(),
        }
        with suppress(OSError):
            write_json(self.folder / f"{name}.json", content)

    def forget(self, case: str) -> None:
        """Removes all that was seen of a case, and what was found about others because of it."""
        for path in self.folder.glob("*/*.json"):
            if path.stem == case:
                path.unlink()
        keys, findings = self._read_result()
        if keys.pop(case, None) is not None:
            named = re.compile(rf"(?<![\w.-]){re.escape(case)}(?![\w-])")
            self.write_result(keys, [one for one in findings if one.case != case and not named.search(one.seen)])

    def write_result(self, keys: Mapping[str, str], findings: Sequence[Finding]) -> None:
        """What a whole check found, for the trainings that follow."""
        content = {"keys": dict(keys), "findings": [asdict(finding) for finding in findings]}
        with suppress(OSError):
            write_json(self.folder / _RESULT, content)

    def result(self, keys: Mapping[str, str]) -> tuple[list[Finding], int]:
        """What the last check found about cases that are as they were then; and how many others there are."""
        known, findings = self._read_result()
        same = {case for case, key in keys.items() if known.get(case) == key}
        return [finding for finding in findings if finding.case in same], len(keys) - len(same)

    def _read_result(self) -> tuple[dict[str, str], list[Finding]]:
        content = _read(self.folder / _RESULT) or {"keys": {}, "findings": []}
        return content["keys"], [Finding(**finding) for finding in content["findings"]]


def content_key(files: Mapping[str, str]) -> str:
    """Of a raw case, by its files' hashes."""
    return _digest([_VERSION, *files.values()])


def examination_key(files: Mapping[str, str], organs: Sequence[Organ]) -> str:
    """Changes with whatever changes what `examine` sees."""
    return _digest([_VERSION, list(files.values()), [organ.to_dict() for organ in organs]])


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = load_json(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
