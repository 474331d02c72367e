"""Healthy pools: a folder of CTs with organ masks, stored as crops around the organs, with tumor labels that are empty.

Each sub-folder is a case with ct.nii.gz and either segmentations/ORGAN.nii.gz (AbdomenAtlas, TotalSegmentator) or one
label map, labels.nii.gz. The dataset can be trained on by itself, label-free, or lend its cases to another dataset as
bases for synthetic tumors: `--like ID` gives it the labels of that one.
"""

import argparse
import functools
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib

from nnunet_difftumor.ct import ScanHeader, read_ct, read_ct_header
from nnunet_difftumor.dataset_conversion import raw_dataset
from nnunet_difftumor.dataset_conversion.case_folders import case_folders, dataset_name_after
from nnunet_difftumor.dataset_conversion.checks.organs import check_organs
from nnunet_difftumor.dataset_conversion.healthy_layouts import (
    CT_NAME,
    LAYOUTS,
    check_mask_headers,
    detect_layout,
    mask_files,
    organ_parts,
    read_organs,
)
from nnunet_difftumor.dataset_conversion.placement_in_space import crop_around_labels, reorient
from nnunet_difftumor.dataset_conversion.raw_dataset import RawCase, SourceCase, write_raw_dataset
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.label_names import is_lesion_name
from nnunet_difftumor.nnunet_folders import RAW, find_dataset

# nnU-Net's reader that brings all images into one orientation: pools mix sources.
REORIENTING_READER = "NibabelIOWithReorient"
MIN_MARGIN_MM = 10.0


@dataclass(frozen=True)
class Labelling:
    """The labels of the dataset to be made.

    Attributes:
        labels: as in dataset.json.
        values: of healthy tissue, by organ.
        about: more for dataset.json that belongs to the labels and the images.
        orientation: that the images must have, such as "LPS"; None if the reader takes care of it.
    """

    labels: Mapping[str, int | Sequence[int]]
    values: Mapping[str, int]
    about: Mapping[str, Any] = field(default_factory=lambda: {"overwrite_image_reader_writer": REORIENTING_READER})
    orientation: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--organs",
        type=_name_and_parts,
        nargs="+",
        required=True,
        metavar="ORGAN[=PART,PART]",
        help="organs to keep, such as `liver kidney`; after '=' the mask files (without .nii.gz) or label values that "
        "mean it, where the layout's own are not right: kidney=kidney_left,kidney_right or kidney=2,3",
    )
    parser.add_argument("--layout", choices=LAYOUTS, help="instead of the one that is recognized; btcv never is")
    parser.add_argument(
        "--margin-mm",
        type=float,
        default=40.0,
        metavar="MM",
        help="kept around the organs on every side (default: %(default)s)",
    )
    parser.add_argument("--no-crop", dest="crop", action="store_false", help="keep whole scans")
    parser.add_argument(
        "--like", type=int, metavar="ID", help="take labels and orientation of this raw dataset, to lend it the cases"
    )


def convert(
    input_folder: str | Path,
    dataset_id: int,
    *,
    organs: Mapping[str, Collection[str | int] | None] | Iterable[tuple[str, Collection[str | int] | None]],
    layout: str | None = None,
    margin_mm: float = 40.0,
    crop: bool = True,
    like: int | None = None,
    name: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    spacing_mm: Sequence[float] | None = None,
    anonymous: bool = False,
) -> Path:
    """Makes a raw dataset from healthy CTs with organ masks.

    Args:
        input_folder: its sub-folders are the cases; their names become the case names.
        dataset_id: 1 to 999.
        organs: by organ, the mask files without .nii.gz or the label values that mean it; None for those of the
            layout's table.
        layout: a name in `healthy_layouts.LAYOUTS`; None to recognize it.
        margin_mm: around the organs, 10 or more.
        crop: False keeps whole scans.
        like: id of a raw dataset whose labels and orientation are taken; its organs must be the ones asked for.
        name: name of the dataset; by default that of input_folder.
        overwrite: replaces the dataset if it exists.
        dry_run: only say what would be done, as far as headers show it.
        spacing_mm: voxel size (z, y, x) of scans whose header was never set; without it they are rejected.
        anonymous: names cases after the content of their CTs, and leaves names of files, and text in headers, out.

    Returns:
        The dataset's folder.

    Raises:
        InputError: the arguments are wrong, or no case is good.
    """
    input_folder = Path(input_folder).absolute()
    organs = list(organs.items() if isinstance(organs, Mapping) else organs)
    names = [organ for organ, _ in organs]
    _check_organ_names(names)
    if not margin_mm >= MIN_MARGIN_MM:
        raise InputError(f"margin {margin_mm:g} mm: expected {MIN_MARGIN_MM:g} or more, tumors need surroundings")
    folders = case_folders(input_folder, ct_name=CT_NAME)
    layout = detect_layout(folders) if layout is None else layout
    parts = organ_parts(layout, dict(organs))
    labelling = new_labelling(names) if like is None else labelling_like(like, names)
    print(f"{input_folder}: {len(folders)} cases in the layout {layout}", flush=True)
    loading = {
        "layout": layout,
        "parts": parts,
        "margin_mm": margin_mm if crop else None,
        "spacing_mm": spacing_mm,
    }
    load = functools.partial(_load, labelling=labelling, **loading)
    look = functools.partial(_look, layout=layout, parts=parts, spacing_mm=spacing_mm)
    cases = {
        folder.name: SourceCase(
            functools.partial(load, folder),
            functools.partial(look, folder),
            files=(folder / CT_NAME, *mask_files(layout, folder, parts)),
        )
        for folder in folders
    }
    return write_raw_dataset(
        raw_dataset.anonymous(cases) if anonymous else cases,
        dataset_id,
        name=dataset_name_after(input_folder) if name is None else name,
        labels=labelling.labels,
        settings={**loading, "values": labelling.values, "orientation": labelling.orientation, "anonymous": anonymous},
        overwrite=overwrite,
        dry_run=dry_run,
        about={"description": f"healthy {', '.join(names)}; no case has a tumor label", **labelling.about},
    )


def _check_organ_names(names: Sequence[str]) -> None:
    if len(set(names)) < len(names) or any(organ == "background" or is_lesion_name(organ) for organ in names):
        raise InputError(f"organs {', '.join(names)}: expected each once, without background and tumors")


def new_labelling(organs: Sequence[str]) -> Labelling:
    """Each organ is followed by its tumor, which no case has: liver 1, liver_tumor 2, kidney 3 and so on."""
    labels, values = {"background": 0}, {}
    for organ in organs:
        values[organ] = labels[organ] = len(labels)
        labels[f"{organ}_tumor"] = len(labels)
    return Labelling(labels, values)


def labelling_like(dataset_id: int, organs: Sequence[str]) -> Labelling:
    """The labels of a raw dataset, with what nnU-Net needs to read the images alike.

    Raises:
        InputError: the dataset is not there, or its organs are not the ones asked for: an organ that one of two
            merged datasets does not label would be background there.
    """
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    from nnunet_difftumor.preparation.organs import find_organs

    folder = _raw_folder(dataset_id)
    dataset = json.loads((folder / "dataset.json").read_text())
    pairs = find_organs(dataset)
    taken = {value for pair in pairs for value in (*pair.organ_labels, pair.tumor_label, *pair.avoid_labels)}
    healthy = {pair.name: pair.organ_labels for pair in pairs} | {
        name: (value,)
        for name, value in dataset["labels"].items()
        if isinstance(value, int) and name not in ("background", "ignore") and value not in taken
    }
    if sorted(healthy) != sorted(organs):
        raise InputError(
            f"`like` {dataset_id}: {folder.name} labels {', '.join(sorted(healthy))}, but `organs` names "
            f"{', '.join(sorted(organs))}; name the same organs, since one that is not labelled would be background"
        )
    several = [organ for organ in organs if len(healthy[organ]) != 1]
    if several:
        raise InputError(
            f"`like` {dataset_id}: {several[0]} has the values {healthy[several[0]]} in {folder.name}; expected one"
        )
    about = {key: dataset[key] for key in ("regions_class_order", "overwrite_image_reader_writer") if dataset.get(key)}
    orientation = None
    if about.get("overwrite_image_reader_writer") != REORIENTING_READER:
        first = next(iter(get_filenames_of_train_images_and_targets(str(folder)).values()))["images"][0]
        orientation = "".join(nib.aff2axcodes(nib.load(first).affine))
    values = {organ: healthy[organ][0] for organ in organs}
    return Labelling(dataset["labels"], values, about, orientation)


def _raw_folder(dataset_id: int) -> Path:
    return find_dataset(RAW, dataset_id, inside="dataset.json", argument="like").parent


def _look(
    folder: Path, *, layout: str, parts: Mapping[str, Collection[str | int]], spacing_mm: Sequence[float] | None
) -> ScanHeader:
    scan = read_ct_header(folder / CT_NAME, spacing_mm=spacing_mm)
    check_mask_headers(layout, folder, scan, parts)
    return scan


def _load(
    folder: Path,
    *,
    layout: str,
    parts: Mapping[str, Collection[str | int]],
    labelling: Labelling,
    margin_mm: float | None,
    spacing_mm: Sequence[float] | None,
) -> RawCase:
    scan = read_ct(folder / CT_NAME, spacing_mm=spacing_mm)
    labels, note = read_organs(layout, folder, scan, parts=parts, values=labelling.values)
    organs = {organ: (value,) for organ, value in labelling.values.items()}
    unusual = check_organs(scan.hu, labels, organs, spacing_mm=scan.spacing_mm, where=folder)
    if margin_mm is not None:
        scan, labels = crop_around_labels(scan, labels, margin_mm=margin_mm)
    if labelling.orientation is not None:
        scan, labels = reorient(scan, labels, labelling.orientation)
    return RawCase(scan, labels, str(folder), "; ".join(text for text in (note, unusual) if text))


def _name_and_parts(text: str) -> tuple[str, list[str] | None]:
    match = re.fullmatch(r"(\w+)(?:=([^,=\s]+(?:,[^,=\s]+)*))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected ORGAN or ORGAN=PART,PART, such as kidney=2,3")
    return match[1], None if match[2] is None else match[2].split(",")
