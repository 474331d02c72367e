"""Writes an nnU-Net raw dataset from cases, whole or not at all, and reports on every case."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_difftumor import __version__
from nnunet_difftumor.ct import Scan, ScanHeader, write_ct, write_labels
from nnunet_difftumor.ct.anonymous import anonymous_name, without_paths, without_text
from nnunet_difftumor.ct.hounsfield import check_organs_hu
from nnunet_difftumor.dataset_conversion.checks.case_names import unusable_names
from nnunet_difftumor.dataset_conversion.checks.two_readers import difference_for_simpleitk
from nnunet_difftumor.dataset_conversion.unfinished import (
    FILE_ENDING,
    UnfinishedDataset,
    is_resumed,
    remove_traces,
    state_of,
    unfinished_dataset,
)
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import atomic_path, free_bytes, in_words_of_bytes, only_writer, write_json
from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.nnunet_folders import RAW, dataset_name, nnunet_folder


@dataclass(frozen=True, eq=False)
class RawCase:
    """One case ready to be written.

    Attributes:
        scan: the CT. If its file can serve as it is, it is copied byte for byte.
        labels: integers (z, y, x), values of the dataset to be made.
        source: where it came from, for the report.
        note: what the user should know of it, for the report.
    """

    scan: Scan
    labels: np.ndarray
    source: str
    note: str = ""


@dataclass(frozen=True)
class SourceCase:
    """One case to be converted.

    Attributes:
        load: makes the case; raises InputError if it is to be rejected.
        look: reads headers only, and returns that of the CT; raises InputError if they show that `load` will. None:
            there is nothing to be seen before.
        files: what it reads, the CT first, whether they exist or not. A case of an interrupted run is kept if none has
            changed.
        hidden_name: of an anonymous case, what it is called on disk. Neither this nor the files' names are told, and
            nothing is copied from headers but what voxels and geometry need.
    """

    load: Callable[[], RawCase]
    look: Callable[[], ScanHeader] | None = None
    files: tuple[Path, ...] = ()
    hidden_name: str = ""

    def said(self, text: str, case: str) -> str:
        """A message or note about the case, without what is to be hidden."""
        if not self.hidden_name:
            return text
        names = {path.parent: f"the folder of {case}" for path in self.files}
        names |= {path: f"file {number} of {case}" for number, path in enumerate(self.files, 1)}
        text = without_paths(text, names)
        return re.sub(rf"(?<!\w){re.escape(self.hidden_name)}(?!\w)", case, text)


def anonymous(cases: Mapping[str, SourceCase]) -> dict[str, SourceCase]:
    """The same cases by names made of their CTs' content, in the same order.

    Raises:
        InputError: a CT is missing, or there twice.
    """
    renamed: dict[str, SourceCase] = {}
    for case, source in cases.items():
        name = anonymous_name(source.files[0])
        if name in renamed:
            raise InputError(f"{source.files[0]}: is the same as {renamed[name].files[0]}; keep one of them")
        renamed[name] = replace(source, hidden_name=case)
    return renamed


def write_raw_dataset(
    cases: Mapping[str, SourceCase],
    dataset_id: int,
    *,
    name: str,
    labels: Mapping[str, int | Sequence[int]],
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    about: Mapping[str, Any] | None = None,
    test_images: Path | None = None,
    dry_run: bool = False,
) -> Path:
    """Writes `nnUNet_raw/DatasetXXX_Name` with one channel, CT, and `conversion_report.json` beside dataset.json.

    The dataset is built in a hidden folder beside its place and renamed at the end. After an interruption the same call
    keeps the cases that are there; when it was finished before, from the same files, nothing is done. Prints a line for
    each case.

    Args:
        cases: what to convert, by case name.
        dataset_id: 1 to 999.
        name: the Name in DatasetXXX_Name.
        labels: label values by name, with background 0, consecutive; several values make a region.
        settings: JSON; what beside files and labels decides the content of the cases.
        overwrite: replaces a dataset of the same id and name, after the new one is complete.
        about: more for dataset.json: description, reference, release, license, or nnU-Net's regions_class_order and
            overwrite_image_reader_writer.
        test_images: a folder that becomes imagesTs; it is moved.
        dry_run: only print what would be done, as far as headers show it; nothing is written.

    Returns:
        The dataset's folder.

    Raises:
        InputError: nnUNet_raw is not set, id or name are not free, no case is left, or the disk is full.
    """
    converted_by = f"difftumor {__version__}"
    request = {"converted_by": converted_by, "labels": dict(labels), "settings": dict(settings or {})}
    made_from = _made_from(request, cases)
    target = dataset_folder(dataset_id, name, overwrite=True)
    finished = f"{target}: finished before"
    if dry_run:
        if not overwrite and _made_from_of(target) == made_from:
            print(f"{finished}; nothing would be done", flush=True)
            return target
        dataset_folder(dataset_id, name, overwrite=overwrite)
        _say_what_would_be_done(cases, target, request)
        return target
    try:
        with only_writer(target):
            if not overwrite and _made_from_of(target) == made_from:
                remove_traces(target)
                print(finished, flush=True)
                return target
            dataset_folder(dataset_id, name, overwrite=overwrite)
            unfinished = unfinished_dataset(target, request)
            reader = (about or {}).get("overwrite_image_reader_writer")
            facts, rejected = _convert(cases, unfinished, labels, reader=reader)
            if not facts:
                unfinished.discard()
                raise _no_case_left(target, rejected)
            report = {
                "converted_by": converted_by,
                "made_from_sha256": made_from,
                "labels": dict(labels),
                "cases": facts,
                "rejected": rejected,
            }
            if test_images is not None:
                shutil.rmtree(unfinished.folder / "imagesTs", ignore_errors=True)
                shutil.move(test_images, unfinished.folder / "imagesTs")
            _write_dataset_json(unfinished.folder, name, report, about or {})
            write_json(unfinished.folder / "conversion_report.json", report)
            unfinished.finish(facts)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error}); {_RESUMES}") from error
    print(f"{target}: {len(facts)} cases, {len(rejected)} rejected", flush=True)
    return target


def _say_what_would_be_done(cases: Mapping[str, SourceCase], target: Path, request: Mapping[str, Any]) -> None:
    """Prints what a conversion would make of the cases, as far as headers show it.

    Raises:
        InputError: no case would be left.
    """
    unfinished = UnfinishedDataset(target) if is_resumed(target, request) else None
    found, rejected, unusable = [], {}, unusable_names(cases)
    for number, (case, source) in enumerate(cases.items(), 1):
        progress = f"[{number}/{len(cases)}] {case}:"
        try:
            if case in unusable:
                raise InputError(unusable[case])
            if unfinished is not None and unfinished.kept_facts(case, source.files) is not None:
                print(f"{progress} would be kept from the interrupted run", flush=True)
            elif source.look is None:
                print(f"{progress} would be made", flush=True)
            else:
                header = source.look()
                print(f"{progress} {_grid(header.shape_xyz[::-1], header.spacing_mm)}", flush=True)
        except InputError as error:
            rejected[case] = source.said(str(error), case)
            print(f"{progress} REJECTED: {rejected[case]}", flush=True)
            continue
        found.append(case)
    if not found:
        raise _no_case_left(target, rejected)
    read = sum(path.stat().st_size for case in found for path in cases[case].files if path.is_file())
    labels = ", ".join(f"{name} {value}" for name, value in request["labels"].items() if name != "background")
    done = "replaced" if target.exists() else "made"
    free = in_words_of_bytes(free_bytes(target))
    by_headers = " by their headers; voxels were not looked at" if read else ""
    from_files = f"the files that are read have {in_words_of_bytes(read)}, " if read else ""
    print(
        f"{target} would be {done} with the labels {labels}: {len(found)} cases, {len(rejected)} rejected{by_headers}; "
        f"{from_files}{free} are free there. Dry run: nothing was written",
        flush=True,
    )


def _no_case_left(target: Path, rejected: Mapping[str, str]) -> InputError:
    reasons = "".join(f"\n  {case}: {reason}" for case, reason in rejected.items())
    return InputError(f"no case is left for {target.name}, nothing was written{reasons or ': none was found'}")


def _made_from(request: Mapping[str, Any], cases: Mapping[str, SourceCase]) -> str:
    """Changes with the request, and with the files of any case."""
    files = {name: state_of(case.files) for name, case in cases.items()}
    # 6 mm are 6.0 mm.
    content = json.loads(json.dumps([request, files]), parse_int=float)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _made_from_of(target: Path) -> str | None:
    """What a finished dataset was made from; None if there is none, or of an earlier version."""
    try:
        return load_json(target / "conversion_report.json").get("made_from_sha256")
    except (OSError, ValueError, AttributeError):
        return None


# They see what this package does, which reads by nibabel too.
_READERS_BY_NIBABEL = ("NibabelIO", "NibabelIOWithReorient")
_RESUMES = "the cases that are done are kept, the same command resumes there"


def _convert(
    cases: Mapping[str, SourceCase],
    unfinished: UnfinishedDataset,
    labels: Mapping[str, int | Sequence[int]],
    *,
    reader: str | None,
) -> tuple[dict[str, dict], dict[str, str]]:
    """Writes the cases; returns facts of those that are there, and why the others were rejected.

    `reader` is nnU-Net's, by name; None: SimpleITK's.
    """
    facts, rejected, unusable = {}, {}, unusable_names(cases)
    organs = {name: _values(value) for name, value in labels.items() if name not in ("background", "ignore")}
    for number, (case, source) in enumerate(cases.items(), 1):
        progress = f"[{number}/{len(cases)}] {case}:"
        kept = unfinished.kept_facts(case, source.files)
        if kept is not None and case not in unusable:
            facts[case] = kept
            print(f"{progress} kept from the interrupted run", flush=True)
            continue
        try:
            if case in unusable:
                raise InputError(unusable[case])
            loaded = source.load()
            if source.hidden_name:
                loaded = replace(loaded, scan=without_text(loaded.scan), note=source.said(loaded.note, case))
            check_organs_hu(loaded.scan.hu, loaded.labels, organs, where=loaded.scan.path or case)
            copied, note = (False, "") if source.hidden_name else _copied(loaded.scan)
            _write_case(unfinished, case, loaded, copied=copied)
            if reader not in _READERS_BY_NIBABEL:
                _check_written(unfinished, case, loaded, copied=copied)
        except InputError as error:
            rejected[case] = source.said(str(error), case)
            print(f"{progress} REJECTED: {rejected[case]}", flush=True)
            continue
        facts[case] = _facts(loaded, labels, note)
        if source.hidden_name:
            del facts[case]["source"]
        unfinished.record(case, source.files, facts[case])
        print(f"{progress} {_line(facts[case])}", flush=True)
    return facts, rejected


def _write_dataset_json(folder: Path, name: str, report: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json

    generate_dataset_json(
        str(folder),
        channel_names={"0": "CT"},
        labels=report["labels"],
        num_training_cases=len(report["cases"]),
        file_ending=FILE_ENDING,
        dataset_name=name,
        converted_by=report["converted_by"],
        **{"license": "see the source of the images", **about},
    )


def dataset_folder(dataset_id: int, name: str, *, overwrite: bool) -> Path:
    """The place of a new raw dataset, after checking that it may be written there.

    Raises:
        InputError: nnUNet_raw is not set, the id or the name is not valid or belongs to another dataset, or the
            dataset exists and overwrite is false.
    """
    from nnunetv2.utilities.dataset_name_id_conversion import find_candidate_datasets

    raw = nnunet_folder(RAW)
    if not 1 <= dataset_id <= 999:
        raise InputError(f"dataset id {dataset_id}: expected 1 to 999")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) or "__" in name:
        raise InputError(f"dataset name {name!r}: expected letters, digits, '-', '.' and single '_'")
    target = raw.absolute() / f"{dataset_name(dataset_id)}{name}"
    prefix = dataset_name(dataset_id)
    others = [str(other) for other in find_candidate_datasets(dataset_id) if str(other).startswith(prefix)]
    others = [other for other in others if other != target.name]
    if others:
        raise InputError(
            f"dataset id {dataset_id} is taken by {', '.join(others)} (in nnUNet_raw, nnUNet_preprocessed or "
            "nnUNet_results); choose another id"
        )
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists; choose another id, or replace it with `overwrite`")
    return target


def _copied(scan: Scan) -> tuple[bool, str]:
    """Whether the scan's file can be copied byte for byte, and a note where it is rewritten because of its header.

    A header that nnU-Net's reader sees otherwise is written as this package sees it; what was read was checked.
    """
    if scan.path is None or scan.path.is_dir():
        return False, ""
    if scan.spacing_was_stated:
        return False, "the header was never set, the voxel size is the one that was stated"
    if not scan.path.name.endswith(FILE_ENDING) or len(scan.header.get_data_shape()) > 3:
        return False, ""
    difference = difference_for_simpleitk(scan.path, scan.hu, scan.affine)
    return not difference, f"the header was rewritten: {difference}" if difference else ""


def _write_case(unfinished: UnfinishedDataset, case: str, loaded: RawCase, *, copied: bool) -> None:
    """Writes both files.

    Raises:
        OSError: they cannot be written; the conversion ends there.
    """
    scan = loaded.scan
    try:
        if copied:
            with atomic_path(unfinished.image(case)) as temporary:
                shutil.copyfile(scan.path, temporary)
        else:
            write_ct(unfinished.image(case), scan.hu, scan, description=None)
        write_labels(unfinished.labels(case), loaded.labels, scan)
    except InputError as error:
        raise OSError(str(error)) from error


def _check_written(unfinished: UnfinishedDataset, case: str, loaded: RawCase, *, copied: bool) -> None:
    """nnU-Net's reader must see what was checked, in both files; else they are removed.

    Raises:
        InputError: it does not.
    """
    scan, image, labels = loaded.scan, unfinished.image(case), unfinished.labels(case)
    # A copy was compared already.
    difference = "" if copied else difference_for_simpleitk(image, scan.hu, scan.affine)
    difference = difference or difference_for_simpleitk(labels, loaded.labels, scan.affine)
    if difference:
        for path in (image, labels):
            path.unlink()
        raise InputError(f"{loaded.source}: {difference}; rewrite its header")


def _facts(loaded: RawCase, labels: Mapping[str, int | Sequence[int]], note: str) -> dict:
    scan = loaded.scan
    voxel_ml = float(np.prod(scan.spacing_mm)) / 1000
    voxels = np.bincount(loaded.labels.ravel())
    volumes = {
        name: sum(int(voxels[v]) for v in _values(value) if v < len(voxels)) * voxel_ml
        for name, value in labels.items()
        if name != "background"
    }
    facts = {
        "source": loaded.source,
        "shape": list(scan.hu.shape),
        "spacing_mm": [round(spacing, 4) for spacing in scan.spacing_mm],
        "hu_range": [float(scan.hu.min()), float(scan.hu.max())],
        "volume_ml": {name: round(volume, 3) for name, volume in volumes.items()},
    }
    notes = [text for text in (loaded.note, note) if text]
    return facts | ({"note": "; ".join(notes)} if notes else {})


def _values(value: int | Sequence[int]) -> Collection[int]:
    return (value,) if isinstance(value, int) else value


def _line(facts: dict) -> str:
    volumes = ", ".join(f"{name} {volume:.1f} ml" for name, volume in facts["volume_ml"].items() if volume)
    note = f"; {facts['note']}" if "note" in facts else ""
    return f"{_grid(facts['shape'], facts['spacing_mm'])}; {volumes or 'no label'}{note}"


def _grid(shape: Sequence[int], spacing_mm: Sequence[float]) -> str:
    return f"{' x '.join(map(str, shape))} voxels of {' x '.join(f'{step:.3g}' for step in spacing_mm)} mm"
