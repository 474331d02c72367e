"""The training cases of a raw dataset: which files are which case, by nnU-Net's rule."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError, some


@dataclass(frozen=True)
class RawFiles:
    """The raw files of a case.

    Attributes:
        images: one per channel.
        label: the label map.
    """

    images: tuple[Path, ...]
    label: Path

    @property
    def all(self) -> tuple[Path, ...]:
        return (*self.images, self.label)


def raw_cases(raw: Path, dataset_json: Mapping[str, Any]) -> dict[str, RawFiles]:
    """Cases by name, sorted: those that dataset.json lists, or else those of imagesTr.

    Args:
        raw: folder of the raw dataset.
        dataset_json: its dataset.json, as `read_dataset_json` gives it.
    """
    if "dataset" in dataset_json:
        return {
            name: RawFiles(tuple(_path(raw, image) for image in entry["images"]), _path(raw, entry["label"]))
            for name, entry in sorted(dataset_json["dataset"].items())
        }
    ending = dataset_json["file_ending"]
    images: dict[str, list[Path]] = {}
    pattern = re.compile(rf"(.+)_\d{{4}}{re.escape(ending)}")
    for path in sorted((raw / "imagesTr").glob(f"*{ending}")):
        if found := pattern.fullmatch(path.name):
            images.setdefault(found[1], []).append(path)
    return {
        name: RawFiles(tuple(paths), raw / "labelsTr" / f"{name}{ending}") for name, paths in sorted(images.items())
    }


def check_case_list(raw: Path, dataset_json: Mapping[str, Any], cases: Mapping[str, RawFiles]) -> list[str]:
    """Compares the cases with the files that lie in the raw dataset.

    Args:
        raw, dataset_json: as in `raw_cases`.
        cases: what `raw_cases` found.

    Returns:
        A sentence for each kind of file that belongs to no case, and would be left out.

    Raises:
        InputError: naming a case that nnU-Net would lose by its name, or one without its files.
    """
    if not cases:
        raise InputError(
            f"{raw / 'imagesTr'}: no training case found; expected images named CASE_0000"
            f"{dataset_json.get('file_ending', '')}, as file_ending in dataset.json says"
        )
    lost = [name for name in cases if name.endswith("_seg")]
    if lost:
        raise InputError(
            f"{cases[lost[0]].images[0]}: case {some(lost)}: nnU-Net takes preprocessed files that end in _seg for "
            "label maps and would lose the case without a word; rename its image and its label map"
        )
    for name, files in cases.items():
        missing = [path for path in files.all if not path.is_file()]
        if missing:
            raise InputError(
                f"{missing[0]}: no such file, but case {name} of {raw.name} needs it; add it, or take the case's other "
                "files away"
            )
    counted = dataset_json.get("numTraining")
    if isinstance(counted, int) and counted != len(cases):
        raise InputError(
            f"{raw / 'dataset.json'}: numTraining is {counted}, but {len(cases)} cases are there; correct the number, "
            "or find the cases that are missing or too many"
        )
    if "dataset" in dataset_json:
        return []
    used = {path for files in cases.values() for path in files.all}
    notes = []
    for part, what in (("imagesTr", "images"), ("labelsTr", "label maps")):
        folder = raw / part
        left = sorted(
            path.name for path in folder.iterdir() if path.is_file() and path not in used and path.name[0] != "."
        )
        if left:
            notes.append(
                f"{folder}: {some(left)} belong to no case and are left out; nnU-Net wants {what} named "
                f"CASE{'_0000' if part == 'imagesTr' else ''}{dataset_json['file_ending']}, with the same CASE for both"
            )
    return notes


def _path(raw: Path, text: str) -> Path:
    return Path(os.path.abspath(raw / os.path.expandvars(text)))
