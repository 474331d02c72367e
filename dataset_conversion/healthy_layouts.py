"""How collections of CT with organ masks are laid out, and which files or values mean an organ in each."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_difftumor.ct import Scan, ScanHeader, check_labels_header, read_labels
from nnunet_difftumor.dataset_conversion.checks.inside_organs import is_anatomy, lies_inside
from nnunet_difftumor.dataset_conversion.checks.label_map_file import LABEL_MAP_FILE, values_in_folder
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.label_names import is_lesion_name

CT_NAME = "ct.nii.gz"
MASKS_FOLDER = "segmentations"
LABEL_MAP_NAME = "labels.nii.gz"


@dataclass(frozen=True)
class Layout:
    """Where the masks of a case are.

    Attributes:
        one_file_per_organ: CASE/segmentations/NAME.nii.gz; else values in CASE/labels.nii.gz.
        organs: what means an organ: names of files without .nii.gz, or values.
        anatomy: values that are known not to be lesions.
    """

    one_file_per_organ: bool
    organs: Mapping[str, tuple[str | int, ...]]
    anatomy: Collection[int] = ()


def _files(**more: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Names that AbdomenAtlas and TotalSegmentator share, and more."""
    alike = ("liver", "pancreas", "spleen", "stomach", "colon", "duodenum", "esophagus", "prostate")
    paired = ("kidney", "adrenal_gland")
    sides = {organ: (f"{organ}_left", f"{organ}_right") for organ in paired}
    return {organ: (organ,) for organ in alike} | sides | more


LAYOUTS = {
    "abdomenatlas": Layout(
        one_file_per_organ=True,
        organs=_files(gallbladder=("gall_bladder",), bladder=("bladder",), lung=("lung_left", "lung_right")),
    ),
    "totalsegmentator": Layout(
        one_file_per_organ=True,
        organs=_files(
            gallbladder=("gallbladder",),
            bladder=("urinary_bladder",),
            lung=(
                *("lung_upper_lobe_left", "lung_lower_lobe_left"),
                *("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
            ),
        ),
    ),
    "btcv": Layout(
        one_file_per_organ=False,
        organs={
            "spleen": (1,),
            "kidney": (2, 3),
            "gallbladder": (4,),
            "esophagus": (5,),
            "liver": (6,),
            "stomach": (7,),
            "pancreas": (11,),
            "adrenal_gland": (12, 13),
        },
        # 8 aorta, 9 inferior vena cava, 10 portal and splenic vein
        anatomy=range(1, 14),
    ),
    "labelmap": Layout(one_file_per_organ=False, organs={}),
}


def detect_layout(folders: Collection[Path]) -> str:
    """Name of the layout of the first case that has one.

    Args:
        folders: the cases.

    Raises:
        InputError: no case has masks where they are looked for.
    """
    for folder in folders:
        if (folder / MASKS_FOLDER).is_dir():
            names = {path.name for path in (folder / MASKS_FOLDER).iterdir()}
            of_atlas = {"gall_bladder.nii.gz", "postcava.nii.gz"} & names or (
                folder / "combined_labels.nii.gz"
            ).exists()
            return "abdomenatlas" if of_atlas else "totalsegmentator"
        if (folder / LABEL_MAP_NAME).is_file():
            return "labelmap"
    parent = next(iter(folders)).parent
    raise InputError(
        f"{parent}: no sub-folder has {MASKS_FOLDER}/ with a mask for each organ, nor {LABEL_MAP_NAME}; expected "
        f"{CT_NAME} and one of them in each"
    )


def organ_parts(
    layout: str, organs: Mapping[str, Collection[str | int] | None]
) -> dict[str, tuple[str, ...] | tuple[int, ...]]:
    """Files or values for each organ: those given, else those of the layout's table.

    Args:
        layout: a name in LAYOUTS.
        organs: names of files or values by organ; None for those of the table.

    Raises:
        InputError: an organ is not in the table, a value is no number from 1 to 32767, or something is given twice.
    """
    table, owner, found = LAYOUTS[layout], {}, {}
    for organ, given in organs.items():
        parts = tuple(given) if given is not None else table.organs.get(organ)
        if not parts:
            how = f"`organs` {organ}={'FILE,FILE' if table.one_file_per_organ else 'VALUE,VALUE'}"
            known = f" (it knows {', '.join(table.organs)})" if table.organs else ""
            raise InputError(f"{organ}: the layout {layout} does not say what means it{known}; give it: {how}")
        if not table.one_file_per_organ:
            parts = tuple(_value(organ, part) for part in parts)
        for part in parts:
            if owner.setdefault(part, organ) != organ:
                raise InputError(f"`organs`: {part} is given to both {owner[part]} and {organ}")
        found[organ] = parts
    return found


def mask_files(layout: str, folder: Path, parts: Mapping[str, Collection[str | int]]) -> tuple[Path, ...]:
    """All files of a case that are looked at: those of asked organs, and what may be a lesion in them."""
    if not LAYOUTS[layout].one_file_per_organ:
        return (folder / LABEL_MAP_NAME, folder / LABEL_MAP_FILE)
    asked = tuple(_mask_file(folder, part) for organ in parts for part in parts[organ])
    return asked + tuple(_other_files(folder, parts))


def check_mask_headers(layout: str, folder: Path, scan: ScanHeader, parts: Mapping[str, Collection[str | int]]) -> None:
    """Checks of a case what `read_organs` checks before the voxels.

    Args:
        layout: a name in LAYOUTS.
        folder: of the case.
        scan: the header of its CT.
        parts: files or values by organ.

    Raises:
        InputError: as `read_organs`, as far as headers show it.
    """
    if LAYOUTS[layout].one_file_per_organ:
        _check_no_label_map(folder)
        for path in mask_files(layout, folder, parts):
            check_labels_header(path, like=scan)
    else:
        check_labels_header(folder / LABEL_MAP_NAME, like=scan)
        values_in_folder(folder, parts)


def read_organs(
    layout: str, folder: Path, scan: Scan, *, parts: Mapping[str, Collection[str | int]], values: Mapping[str, int]
) -> tuple[np.ndarray, str]:
    """Label map of a case with one value for each organ; where masks overlap, the organ that comes first has it.

    Args:
        layout: a name in LAYOUTS.
        folder: of the case.
        scan: its CT.
        parts: files or values by organ.
        values: value in the result by organ.

    Returns:
        uint8 (z, y, x), and a note on values that nobody named; empty if there are none.

    Raises:
        InputError: a mask is missing or lies elsewhere, no organ is there, there is a lesion of an asked organ, or
            something that nobody named lies inside of one.
    """
    read = _read_files if LAYOUTS[layout].one_file_per_organ else _read_label_map
    labels, note = read(layout, folder, scan, parts, values)
    if not labels.any():
        raise InputError(f"{folder}: none of {', '.join(parts)} is in the scan")
    return labels, note


def _read_files(
    layout: str, folder: Path, scan: Scan, parts: Mapping[str, Collection[str]], values: Mapping[str, int]
) -> tuple[np.ndarray, str]:
    _check_no_label_map(folder)
    labels = np.zeros(scan.hu.shape, np.uint8)
    for organ in parts:
        for part in parts[organ]:
            mask = read_labels(_mask_file(folder, part), like=scan) > 0
            labels[mask & (labels == 0)] = values[organ]
    _check_other_files(folder, scan, labels, parts, values)
    return labels, ""


def _read_label_map(
    layout: str, folder: Path, scan: Scan, parts: Mapping[str, Collection[int]], values: Mapping[str, int]
) -> tuple[np.ndarray, str]:
    path = folder / LABEL_MAP_NAME
    source, parts = read_labels(path, like=scan), values_in_folder(folder, parts)
    labels = np.zeros(scan.hu.shape, np.uint8)
    for organ in parts:
        labels[np.isin(source, list(parts[organ]))] = values[organ]
    named = {0, *LAYOUTS[layout].anatomy, *(value for organ in parts for value in parts[organ])}
    others = [int(value) for value in np.unique(source) if value not in named]
    for value in others:
        structure = source == value
        organ = next((organ for organ in parts if lies_inside(structure, labels == values[organ])), None)
        if organ is not None:
            raise InputError(
                f"{path}: value {value} lies inside the {organ} and is none of its parts; if it is a lesion, leave "
                f"the case out; if it is healthy, name it: {organ}={','.join(map(str, [*parts[organ], value]))}"
            )
    shown = ", ".join(map(str, others[:12])) + (", ..." if len(others) > 12 else "")
    return labels, f"values {shown} are named by nobody and become background" if others else ""


def _check_no_label_map(folder: Path) -> None:
    if (folder / LABEL_MAP_FILE).exists():
        raise InputError(
            f"{folder / LABEL_MAP_FILE}: is for label maps, but this case has a mask for each organ; remove the file"
        )


def _value(organ: str, part: str | int) -> int:
    if not re.fullmatch(r"[0-9]+", str(part)) or not 1 <= int(part) <= 32767:
        raise InputError(f"`organs` {organ}={part}: this layout has label values, expected 1 to 32767")
    return int(part)


def _mask_file(folder: Path, part: str | int) -> Path:
    return folder / MASKS_FOLDER / f"{part}.nii.gz"


def _check_other_files(
    folder: Path, scan: Scan, labels: np.ndarray, parts: Mapping[str, Collection[str]], values: Mapping[str, int]
) -> None:
    """Refuses lesions: by their name with that of an asked organ, and any structure inside of one with another name."""
    for path in _other_files(folder, parts):
        name = path.name.removesuffix(".nii.gz")
        structure = read_labels(path, like=scan) > 0
        if not structure.any():
            continue
        organ = next((organ for organ in parts if organ[:6] in name.lower()), None)
        if organ is not None and is_lesion_name(name):
            raise InputError(f"{path}: holds a lesion of the {organ}; a healthy pool takes scans without")
        organ = next((organ for organ in parts if lies_inside(structure, labels == values[organ])), None)
        if organ is not None:
            raise InputError(
                f"{path}: lies inside the {organ} and is none of its known parts; if it is a lesion, leave the "
                f"case out; if it is healthy, name it: {organ}={','.join([*map(str, parts[organ]), name])}"
            )


def _other_files(folder: Path, parts: Mapping[str, Collection[str | int]]) -> list[Path]:
    """Masks that nobody named, and whose names are not those of anatomy."""
    named = {part for organ in parts for part in parts[organ]}
    files = ((path.name.removesuffix(".nii.gz"), path) for path in (folder / MASKS_FOLDER).glob("*.nii.gz"))
    return sorted(path for name, path in files if name not in named and not is_anatomy(name) and name[0] != ".")
