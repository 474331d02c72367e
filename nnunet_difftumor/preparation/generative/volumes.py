"""`preprocess-generative`: the cases of an nnU-Net raw dataset as training volumes of the generative models.

Read with nnU-Net's readers and resampled with its functions, so that every dataset that nnU-Net takes is possible; what
is written (generative/stored_cases.py) is read without nnU-Net. Scans without labels, from which autoencoders learn too
(DiffTumor's come from 9,262 of them), become crops around the body.
"""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nnunet_difftumor.ct.scan_folder import find_scans, plain_case_name
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import only_writer
from nnunet_difftumor.generative.stages import EARLY_BELOW_MM
from nnunet_difftumor.generative.stored_cases import (
    VERSION,
    StoredCase,
    StoredIndex,
    read_case,
    write_index,
)
from nnunet_difftumor.generative.weights import Volumes
from nnunet_difftumor.nnunet_folders import PREPROCESSED, RAW, dataset_name, nnunet_folder
from nnunet_difftumor.preparation.datasets import check_channel, dataset_folders
from nnunet_difftumor.preparation.generative.case import LEAST_VOXELS, Job, preprocess
from nnunet_difftumor.preparation.organs import check_declared, find_organs, parse_organ
from nnunet_difftumor.prepared.config import FILE_NAME, DiffTumorConfig
from nnunet_difftumor.prepared.made_from.hashes import FileHashes
from nnunet_difftumor.prepared.made_from.records import file_hashes, hashed
from nnunet_difftumor.prepared.nnunet.dataset_json import read_dataset_json
from nnunet_difftumor.prepared.nnunet.plans_and_folds import read_pools
from nnunet_difftumor.prepared.pools import pool_list
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.worker_processes import worker_processes

FOLDER = "generative"
# Half a patch of the published models: a patch around any voxel of an organ then has tissue, not padding, where the
# scan has.
MARGIN_MM = 48.0


def preprocess_generative(
    dataset_id: int,
    *,
    healthy: Sequence[int] = (),
    unlabelled: Sequence[str | Path] = (),
    organ: Sequence[Organ | str] | None = None,
    margin_mm: float = MARGIN_MM,
    processes: int | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Writes the cases of a raw dataset as crops around its organs: 1 mm isotropic, the networks' axes, int16 HU.

    Scans without labels become crops around the body: those of `unlabelled`, and all of a dataset whose dataset.json
    has no label but the background.

    Cases that are there already, made from files of the same content with the same settings, are kept.

    Args:
        dataset_id: of a dataset in nnUNet_raw, with one CT channel; with `unlabelled` it need not be there, and the
            result is then named after the first of these folders.
        healthy: datasets in nnUNet_raw with the same labels whose cases are added. Those of `difftumor prepare
            --healthy` are added without being named.
        unlabelled: folders of scans without labels, NIfTI or DICOM, in them or in folders below.
        organ: organ and tumor label pairs, as `Organ` or as text such as "liver=1:2"; None: those of difftumor.json, or
            else found in dataset.json.
        margin_mm: kept around the organs where the scan continues.
        processes: worker processes; None: one per core, at most 4, since each holds a whole scan.
        report: gets a line per step.

    Returns:
        `nnUNet_preprocessed/DatasetXXX_NAME/generative`.

    Raises:
        InputError: for whatever is missing or does not fit, or if no case is left.
    """
    if not 0 <= margin_mm <= 500:
        raise InputError(f"`margin_mm`: expected 0 to 500 mm, got {margin_mm}")
    volumes, scans = Volumes(), _unlabelled_scans(unlabelled)
    raw, preprocessed = _dataset_or_name(dataset_id, unlabelled)
    if raw is None and (organ or healthy):
        raise InputError(f"`organ`, `healthy`: for a dataset in nnUNet_raw, which has none of number {dataset_id}")
    dataset_json = {"labels": {"background": 0}} if raw is None else _dataset_json(raw)
    organs: tuple[Organ, ...] = ()
    if raw is not None and (_has_labels(dataset_json) or organ):
        pairs = tuple(parse_organ(pair) if isinstance(pair, str) else pair for pair in organ or ())
        organs = pairs or _organs(preprocessed / FILE_NAME, dataset_json)
        check_declared(organs, dataset_json)
    folder = preprocessed / FOLDER
    settings_sha256 = _settings_sha256(volumes, organs, margin_mm) if organs else _settings_of_bodies(volumes)
    sources: dict[str, tuple[tuple[str, ...], str | None]] = {}
    if organs:
        pools = [dataset_folders(pool, argument="healthy")[0] for pool in healthy]
        sources |= _sources(raw, [*pools, *_prepared_pools(preprocessed, raw.parent)], dataset_json)
    elif raw is not None:
        scans = _images_of(raw, dataset_json) | scans
    labelled = set(sources)
    sources |= scans
    with only_writer(folder):
        hashes = file_hashes(preprocessed)
        jobs = []
        for name, (files, reader) in sources.items():
            known = name in labelled
            made_from = _made_from(files, settings_sha256 if known else _settings_of_bodies(volumes), hashes)
            jobs.append(Job(name, files, reader, known, organs, volumes, margin_mm, folder, made_from))
        hashes.save()
        cases, rejected = _make(jobs, processes or min(4, os.cpu_count() or 1), preprocessed.name, report)
        if not cases:
            raise InputError(f"{raw or preprocessed.name}: no case is left")
        named = ({"name": o.name, "organ_labels": o.organ_labels, "tumor_label": o.tumor_label} for o in organs)
        index = StoredIndex(
            preprocessed.name, volumes, margin_mm, tuple(named), tuple(cases), rejected, settings_sha256
        )
        write_index(folder, index)
    for line in _summary(cases.values(), organs):
        report(line)
    if bodies := [name for name in cases if name not in labelled]:
        report(f"  without labels: {len(bodies)} scans, cropped to the body")
    report(f"written: {folder}\ntrain with: difftumor train-autoencoder -d {dataset_id}")
    return folder


def _settings_sha256(volumes: Volumes, organs: Sequence[Organ], margin_mm: float) -> str:
    """Changes with all that decides what a case becomes, apart from its raw files."""
    settings = {
        "version": VERSION,
        "volumes": asdict(volumes),
        "margin_mm": margin_mm,
        "least_voxels": LEAST_VOXELS,
        "organs": [organ.to_dict() for organ in organs],
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _settings_of_bodies(volumes: Volumes) -> str:
    """The same for crops around the body, which go by nothing else."""
    settings = {"version": VERSION, "volumes": asdict(volumes), "crop": "body"}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _dataset_or_name(dataset_id: int, unlabelled: Sequence[str | Path]) -> tuple[Path | None, Path]:
    """The raw dataset, None if there need be none, and the folder of the preprocessed one."""
    if not unlabelled or list(nnunet_folder(RAW).glob(f"{dataset_name(dataset_id)}*")):
        return dataset_folders(dataset_id)
    if not 1 <= dataset_id <= 999:
        raise InputError(f"`dataset_id` is {dataset_id}, expected 1 to 999")
    root, beginning = nnunet_folder(PREPROCESSED), dataset_name(dataset_id)
    # That of an earlier call, whichever folders it was for.
    there = sorted(root.glob(f"{beginning}*"))
    return None, there[0] if there else root / f"{beginning}{plain_case_name(Path(unlabelled[0]).resolve().name)}"


def _has_labels(dataset_json: Mapping[str, Any]) -> bool:
    return bool(set(dataset_json["labels"]) - {"background", "ignore"})


def _unlabelled_scans(folders: Sequence[str | Path]) -> dict[str, tuple[tuple[str, ...], None]]:
    """Files by the name that the case gets: the folder's, and the scan's."""
    found: dict[str, tuple[tuple[str, ...], None]] = {}
    for folder in map(Path, folders):
        prefix = plain_case_name(folder.resolve().name)
        for name, files in find_scans(folder).items():
            full = name if name == prefix else f"{prefix}_{name}"
            if full in found:
                raise InputError(f"`unlabelled`: two scans would be named {full}; rename one of the folders")
            found[full] = (tuple(map(str, files)), None)
    return found


def _images_of(raw: Path, dataset_json: Mapping[str, Any]) -> dict[str, tuple[tuple[str, ...], str | None]]:
    """The images of a dataset without labels, which need no label maps."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    ending = f"_0000{dataset_json['file_ending']}"
    files = sorted((raw / "imagesTr").glob(f"*{ending}"))
    if not files:
        raise InputError(f"{raw / 'imagesTr'}: holds no *{ending}")
    reader = determine_reader_writer_from_dataset_json(dataset_json, str(files[0]), verbose=False).__name__
    return {path.name.removesuffix(ending): ((str(path),), reader) for path in files}


def _make(
    jobs: Sequence[Job], processes: int, dataset: str, report: Callable[[str], None]
) -> tuple[dict[str, StoredCase], dict[str, str]]:
    """Makes the cases that are not there yet; returns all cases, and the reasons of those that were rejected."""
    missing = [job for job in jobs if not _is_made(job)]
    pairs = ", ".join(map(_describe, jobs[0].organs)) or "no organ"
    report(f"{dataset}: {len(jobs)} cases, {len(missing)} of them to preprocess; {pairs}")
    rejected = _run(missing, processes)
    for name, reason in rejected.items():
        report(f"  {name} REJECTED: {reason}")
    return {job.name: read_case(job.folder, job.name) for job in jobs if job.name not in rejected}, rejected


def _dataset_json(raw: Path) -> dict[str, Any]:
    content = read_dataset_json(raw / "dataset.json")
    check_channel(raw, content)
    return content


def _organs(config: Path, dataset_json: Mapping[str, Any]) -> tuple[Organ, ...]:
    return DiffTumorConfig.load(config).organs if config.is_file() else find_organs(dataset_json)


def _prepared_pools(preprocessed: Path, raw_root: Path) -> list[Path]:
    return [raw_root / name for name in read_pools(pool_list(preprocessed))]


def _sources(
    raw: Path, pools: Sequence[Path], dataset_json: Mapping[str, Any]
) -> dict[str, tuple[tuple[str, str], str]]:
    """CT, label map and the name of the reader's class by case; cases of pools get the pool's name in front."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    found = {}
    for folder in dict.fromkeys([raw, *pools]):
        content = dataset_json if folder == raw else _dataset_json(folder)
        if content["labels"] != dataset_json["labels"]:
            raise InputError(
                f"{folder / 'dataset.json'}: labels are {content['labels']}, expected those of {raw.name}: "
                f"{dataset_json['labels']}"
            )
        files = get_filenames_of_train_images_and_targets(str(folder), content)
        if not files:
            raise InputError(f"{folder}: has no cases")
        example = next(iter(files.values()))["images"][0]
        reader = determine_reader_writer_from_dataset_json(content, example, verbose=False).__name__
        for name, case in files.items():
            full = name if folder == raw else f"{folder.name}_{name}"
            found[full] = ((str(case["images"][0]), str(case["label"])), reader)
    return found


def _made_from(files: Sequence[str], settings_sha256: str, hashes: FileHashes) -> dict[str, Any]:
    """The content of the raw files, as everything else that is prepared knows it, and the settings."""
    try:
        return {"files": hashed([Path(file) for file in files], hashes), "settings_sha256": settings_sha256}
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such file, but the dataset names it") from error
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _is_made(job: Job) -> bool:
    record = read_case(job.folder, job.name)
    return record is not None and record.made_from == job.made_from


def _run(jobs: Sequence[Job], processes: int) -> dict[str, str]:
    """Preprocesses the cases; returns why cases were rejected."""
    from tqdm import tqdm

    rejected = {}
    if processes == 1 or len(jobs) < 2:
        results = ((job, preprocess(job)) for job in jobs)
        for job, reason in tqdm(results, total=len(jobs), unit="case", disable=None if jobs else True):
            rejected |= {job.name: reason} if reason else {}
        return rejected
    with worker_processes(min(processes, len(jobs))) as executor:
        waiting = {executor.submit(preprocess, job): job for job in jobs}
        try:
            for future in tqdm(as_completed(waiting), total=len(waiting), unit="case", disable=None):
                reason = future.result()
                rejected |= {waiting[future].name: reason} if reason else {}
        except BrokenProcessPool as error:
            raise InputError(
                "a process was killed while it preprocessed, most likely for want of memory; give fewer processes "
                "(`processes` 1), the same command resumes"
            ) from error
    return dict(sorted(rejected.items()))


def _summary(cases: Collection[StoredCase], organs: Sequence[Organ]) -> Iterator[str]:
    for organ in organs:
        diameters = [lesion.diameter_mm for case in cases for lesion in case.lesions if lesion.organ == organ.name]
        small = sum(diameter < EARLY_BELOW_MM for diameter in diameters)
        yield (
            f"  {organ.name}: in {sum(organ.name in case.organs for case in cases)} cases; {len(diameters)} lesions, "
            f"{small} below {EARLY_BELOW_MM:g} mm"
        )


def _describe(organ: Organ) -> str:
    return f"{organ.name} {list(organ.organ_labels)} with tumor {organ.tumor_label}"
