"""Real CT from anywhere: each sub-folder is a case with ct.nii.gz and labels.nii.gz.

Both may also be .nii, .mha or .nrrd files of these names, and the CT a DICOM series, in the sub-folder or below.

--labels gives the dataset's labels in their order and, for each, the values that mean it in the files, for instance
`--labels liver=1 tumor=2` or `--labels kidney=2,3 kidney_tumor=4`. A label that no case has is declared without values,
for instance `liver_tumor=` where all scans are healthy. A sub-folder whose files use other values says so in a
`label_map.json`, for instance {"liver": 5, "kidney": [2, 3]}.
"""

import argparse
import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from nnunet_difftumor.ct import ScanHeader, check_labels_header, read_ct, read_ct_header, read_labels
from nnunet_difftumor.ct.dicom.study import files_of_study
from nnunet_difftumor.ct.images import in_any_format
from nnunet_difftumor.ct.scan_folder import scan_of_case
from nnunet_difftumor.dataset_conversion import raw_dataset
from nnunet_difftumor.dataset_conversion.case_folders import case_folders, dataset_name_after
from nnunet_difftumor.dataset_conversion.checks.label_map_file import LABEL_MAP_FILE, check_values, values_in_folder
from nnunet_difftumor.dataset_conversion.raw_dataset import RawCase, SourceCase, write_raw_dataset
from nnunet_difftumor.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels",
        type=_label,
        nargs="+",
        required=True,
        metavar="NAME=[VALUE,...]",
        help="the dataset's labels, numbered 1, 2, ... in this order, and the values that mean them in the files; none "
        "for a label that no case has",
    )
    parser.add_argument(
        "--ignore-other-labels",
        action="store_true",
        help="values that are not listed become background; without this they reject the case",
    )
    parser.add_argument(
        "--ct-name",
        default="ct.nii.gz",
        metavar="NAME",
        help="file name of the CT in each sub-folder (default: %(default)s)",
    )
    parser.add_argument(
        "--labels-name",
        default="labels.nii.gz",
        metavar="NAME",
        help="file name of the label map (default: %(default)s)",
    )


def convert(
    input_folder: str | Path,
    dataset_id: int,
    *,
    labels: Mapping[str, Collection[int]] | Iterable[tuple[str, Collection[int]]],
    name: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    ignore_other_labels: bool = False,
    ct_name: str = "ct.nii.gz",
    labels_name: str = "labels.nii.gz",
    spacing_mm: Sequence[float] | None = None,
    anonymous: bool = False,
) -> Path:
    """Makes a raw dataset from sub-folders with a CT and a label map each.

    Args:
        input_folder: its sub-folders are the cases; their names become the case names.
        dataset_id: 1 to 999.
        labels: the values in the files by label name; the dataset numbers the names 1, 2, ... in this order. Without
            values a label is declared that no case has, if no `label_map.json` says otherwise.
        name: name of the dataset; by default that of input_folder.
        overwrite: replaces the dataset if it exists.
        dry_run: only say what would be done, as far as headers show it.
        ignore_other_labels: values that are not listed become background instead of rejecting the case.
        ct_name, labels_name: file names in each sub-folder; if there is none of this name, one of another format
            (.nii.gz, .nii, .mha, .nrrd), and, for the CT, DICOM files in the sub-folder or below.
        spacing_mm: voxel size (z, y, x) of scans whose header was never set; without it they are rejected.
        anonymous: names cases after the content of their CTs, and leaves names of files, and text in headers, out.

    Returns:
        The dataset's folder.

    Raises:
        InputError: the arguments are wrong, or no case is good.
    """
    input_folder = Path(input_folder).absolute()
    labels = list(labels.items() if isinstance(labels, Mapping) else labels)
    names = [label for label, _ in labels]
    if len(set(names)) < len(names) or "background" in names:
        raise InputError(f"labels {', '.join(names)}: expected each name once, and no background (it is always 0)")
    values_by_name = dict(labels)
    check_values(values_by_name, "labels")
    folders = case_folders(input_folder, ct_name=ct_name)
    load = functools.partial(
        _load,
        values_by_name=values_by_name,
        ignore_others=ignore_other_labels,
        spacing_mm=spacing_mm,
    )
    look = functools.partial(_look, values_by_name=values_by_name, spacing_mm=spacing_mm)
    cases = {folder.name: _case(folder, ct_name, labels_name, load=load, look=look) for folder in folders}
    return write_raw_dataset(
        raw_dataset.anonymous(cases) if anonymous else cases,
        dataset_id,
        name=dataset_name_after(input_folder) if name is None else name,
        labels={"background": 0} | {label: number for number, label in enumerate(names, 1)},
        settings={
            "values": values_by_name,
            "ignore_other_labels": ignore_other_labels,
            "spacing_mm": spacing_mm,
            "anonymous": anonymous,
        },
        overwrite=overwrite,
        dry_run=dry_run,
    )


def _case(
    folder: Path,
    ct_name: str,
    labels_name: str,
    *,
    load: Callable[..., RawCase],
    look: Callable[..., ScanHeader],
) -> SourceCase:
    try:
        ct, labels = scan_of_case(folder, ct_name), in_any_format(folder / labels_name)
    except InputError as error:
        refuse = functools.partial(_refuse, error)
        return SourceCase(refuse, refuse, files=(folder / ct_name, folder / labels_name))
    slices = files_of_study(ct) if ct.is_dir() else ()
    return SourceCase(
        functools.partial(load, folder, ct, labels),
        functools.partial(look, folder, ct, labels),
        files=(ct, labels, folder / LABEL_MAP_FILE, *slices),
    )


def _refuse(error: InputError) -> NoReturn:
    raise error


def _look(
    folder: Path,
    ct: Path,
    labels_file: Path,
    *,
    values_by_name: dict[str, Collection[int]],
    spacing_mm: Sequence[float] | None,
) -> ScanHeader:
    scan = read_ct_header(ct, spacing_mm=spacing_mm)
    check_labels_header(labels_file, like=scan)
    values_in_folder(folder, values_by_name)
    return scan


def _load(
    folder: Path,
    ct: Path,
    labels_file: Path,
    *,
    values_by_name: dict[str, Collection[int]],
    ignore_others: bool,
    spacing_mm: Sequence[float] | None,
) -> RawCase:
    scan = read_ct(ct, spacing_mm=spacing_mm)
    source = read_labels(labels_file, like=scan)
    values_here = values_in_folder(folder, values_by_name)
    table = np.zeros(32768, np.uint8)
    for number, label in enumerate(values_by_name, 1):
        table[list(values_here.get(label, ()))] = number
    others = [int(value) for value in np.unique(source) if value and not table[value]]
    if others and not ignore_others:
        shown = ", ".join(map(str, others[:12])) + (", ..." if len(others) > 12 else "")
        raise InputError(
            f"{labels_file}: holds the values {shown}, which no label lists; list them, or make them "
            "background with `ignore_other_labels`"
        )
    labels = table[source]
    if not labels.any():
        raise InputError(f"{labels_file}: holds none of the labels' values ({values_here}); is the map right?")
    return RawCase(scan, labels, str(folder), note=scan.note)


def parse_label(text: str) -> tuple[str, list[int]]:
    """Reads NAME=VALUE[,VALUE], or NAME= for a label that no case has.

    Raises:
        InputError: if the text does not have that form.
    """
    match = re.fullmatch(r"([^=]+)=(\d+(?:,\d+)*)?", text)
    if match is None:
        raise InputError(
            f"`labels` {text!r}: expected NAME=VALUE or NAME=VALUE,VALUE, such as kidney=2,3, or NAME= if no case has "
            "it"
        )
    return match[1], [int(value) for value in match[2].split(",")] if match[2] else []


def _label(text: str) -> tuple[str, list[int]]:
    try:
        return parse_label(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("`labels` ")) from error
