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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from nibabel import orientations

from nnunet_difftumor.ct.body import body_box
from nnunet_difftumor.ct.hounsfield import check_hu
from nnunet_difftumor.ct.scan_folder import find_scans, plain_case_name, read_scan
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import only_writer
from nnunet_difftumor.generative.stages import EARLY_BELOW_MM
from nnunet_difftumor.generative.stored_cases import (
    VERSION,
    Lesion,
    StoredCase,
    StoredIndex,
    read_case,
    write_case,
    write_index,
)
from nnunet_difftumor.generative.weights import Volumes
from nnunet_difftumor.nnunet_folders import PREPROCESSED, RAW, dataset_name, nnunet_folder
from nnunet_difftumor.preparation.datasets import check_channel, dataset_folders
from nnunet_difftumor.preparation.organs import check_declared, find_organs, parse_organ
from nnunet_difftumor.prepared.config import FILE_NAME, DiffTumorConfig
from nnunet_difftumor.prepared.made_from.hashes import FileHashes
from nnunet_difftumor.prepared.made_from.records import file_hashes, hashed
from nnunet_difftumor.prepared.nnunet.dataset_json import read_dataset_json
from nnunet_difftumor.prepared.nnunet.plans_and_folds import read_pools
from nnunet_difftumor.prepared.orientation import directions
from nnunet_difftumor.prepared.pools import pool_list
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.worker_processes import worker_processes

FOLDER = "generative"
# Half a patch of the published models: a patch around any voxel of an organ then has tissue, not padding, where the
# scan has.
MARGIN_MM = 48.0
# Components with fewer voxels of 1 mm are no lesions, as in the public code.
LEAST_VOXELS = 8
CONNECTIVITY = 26


@dataclass(frozen=True)
class _Job:
    """What a worker needs for one case.

    `files` are the CT and the label map, read by the reader of nnU-Net with that name; or those of a scan without
    labels, with nnU-Net's reader or, without a name, our own (`ct.scan_folder`).
    """

    name: str
    files: tuple[str, ...]
    reader: str | None
    labelled: bool
    organs: tuple[Organ, ...]
    volumes: Volumes
    margin_mm: float
    folder: Path
    made_from: dict[str, Any]


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
        margin_mm: kept around the organs where the scan goes on.
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
            jobs.append(_Job(name, files, reader, known, organs, volumes, margin_mm, folder, made_from))
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
    jobs: Sequence[_Job], processes: int, dataset: str, report: Callable[[str], None]
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


def _is_made(job: _Job) -> bool:
    record = read_case(job.folder, job.name)
    return record is not None and record.made_from == job.made_from


def _run(jobs: Sequence[_Job], processes: int) -> dict[str, str]:
    """Preprocesses the cases; returns why cases were rejected."""
    from tqdm import tqdm

    rejected = {}
    if processes == 1 or len(jobs) < 2:
        results = ((job, _preprocess(job)) for job in jobs)
        for job, reason in tqdm(results, total=len(jobs), unit="case", disable=None if jobs else True):
            rejected |= {job.name: reason} if reason else {}
        return rejected
    with worker_processes(min(processes, len(jobs))) as executor:
        waiting = {executor.submit(_preprocess, job): job for job in jobs}
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


def _preprocess(job: _Job) -> str | None:
    """Writes one case; returns why it cannot be used, or None."""
    try:
        hu, labels, affine = _resampled(*_cropped(*_read(job), job), job)
        record, lesions = _measured(labels, affine, job)
    except InputError as error:
        return str(error)
    low, high = job.volumes.window_hu
    ct = np.rint(np.clip(hu, low, high)).astype(np.int16)
    write_case(job.folder, record, {"ct": ct, "labels": labels, "lesions": lesions})
    return None


def _read(job: _Job) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU and labels along the networks' axes, and the affine of these indices; no label is 0."""
    if job.reader is None:
        hu, affine = read_scan([Path(file) for file in job.files])
        labels = np.zeros(hu.shape, np.int16)
    else:
        hu, labels, affine = _read_by_nnunet(job, job.reader)
    turn = orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(tuple(job.volumes.axes))
    )
    affine = affine @ orientations.inv_ornt_aff(turn, hu.shape)
    hu, labels = (orientations.apply_orientation(array, turn) for array in (hu, labels))
    return hu, labels.astype(np.int16), affine


def _read_by_nnunet(job: _Job, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU, labels and affine as the reader of that name gives them."""
    from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

    reader, ct = recursive_find_reader_writer_by_name(name)(), job.files[0]
    try:
        image, properties = reader.read_images([ct])
        labels = reader.read_seg(job.files[1])[0][0] if job.labelled else np.zeros(image.shape[1:], np.int16)
    except Exception as error:
        what = "it or its label map" if job.labelled else "it"
        raise InputError(f"{ct}: nnU-Net's {name} cannot read {what} ({error})") from error
    hu = image[0]
    if hu.shape != labels.shape:
        raise InputError(f"{job.files[1]}: has the shape {labels.shape}, its CT {hu.shape}")
    if not np.isfinite(hu).all():
        raise InputError(f"{ct}: holds NaN or infinite values")
    if not job.labelled:
        check_hu(hu, Path(ct))
    return hu, labels, _affine(properties)


def _affine(properties: Mapping[str, Any]) -> np.ndarray:
    """4 x 4 from array indices (z, y, x) to RAS+ mm."""
    affine = np.eye(4)
    affine[:3, :3] = directions(properties, (0, 1, 2)) * np.asarray(properties["spacing"], float)
    if "sitk_stuff" in properties:
        affine[:3, 3] = np.asarray(properties["sitk_stuff"]["origin"], float) * [-1, -1, 1]
    else:
        stored = properties["nibabel_stuff"]
        affine[:3, 3] = np.asarray(stored.get("reoriented_affine", stored["original_affine"]), float)[:3, 3]
    return affine


def _cropped(
    hu: np.ndarray, labels: np.ndarray, affine: np.ndarray, job: _Job
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The box around all organs, their lesions and the margin; or around the body."""
    if not job.labelled:
        return _cut(hu, labels, affine, body_box(hu, np.linalg.norm(affine[:3, :3], axis=0)))
    wanted = sorted({v for o in job.organs for v in (*o.organ_labels, o.tumor_label, *o.avoid_labels)})
    inside = np.isin(labels, wanted)
    if not inside.any():
        raise InputError(f"{job.files[1]}: has none of the labels {wanted}")
    margins = np.ceil(job.margin_mm / np.linalg.norm(affine[:3, :3], axis=0) - 1e-6).astype(int)
    return _cut(
        hu, labels, affine, [slice(max(0, a - m), b + m) for (a, b), m in zip(_bounds(inside), margins, strict=True)]
    )


def _cut(
    hu: np.ndarray, labels: np.ndarray, affine: np.ndarray, box: Sequence[slice]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    affine = affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    return hu[tuple(box)], labels[tuple(box)], affine


def _resampled(
    hu: np.ndarray, labels: np.ndarray, affine: np.ndarray, job: _Job
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """nnU-Net's resampling: cubic for the CT; labels one by one, linear. Across thick slices it takes the nearest slice
    by default, which would be steps in a volume of 1 mm; here it is linear there.
    """
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape, resample_data_or_seg_to_shape

    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    shape = np.maximum(compute_new_shape(hu.shape, spacing_mm, job.volumes.spacing_mm), 1)
    given = {"new_shape": shape, "current_spacing": spacing_mm, "new_spacing": job.volumes.spacing_mm, "order_z": 1}
    ct = resample_data_or_seg_to_shape(np.ascontiguousarray(hu[None], np.float32), is_seg=False, order=3, **given)[0]
    target = resample_data_or_seg_to_shape(np.ascontiguousarray(labels[None]), is_seg=True, order=1, **given)[0]
    # The edges of the volume stay in place, not the centres of its first voxels.
    scale = np.asarray(hu.shape) / shape
    affine = affine.copy()
    affine[:3, 3] += affine[:3, :3] @ ((scale - 1) / 2)
    affine[:3, :3] *= scale
    return ct, target, affine


def _measured(labels: np.ndarray, affine: np.ndarray, job: _Job) -> tuple[StoredCase, np.ndarray]:
    """The record of a case, and the numbers of its lesions (z, x, y)."""
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    numbers = np.zeros(labels.shape, np.int16)
    lesions, organs, specks = [], {}, 0
    for organ in job.organs:
        inside = np.isin(labels, [*organ.organ_labels, organ.tumor_label])
        if inside.any():
            organs[organ.name] = _bounds(inside)
        components = cc3d.connected_components(labels == organ.tumor_label, connectivity=CONNECTIVITY)
        statistics = cc3d.statistics(components)
        for component in range(1, len(statistics["voxel_counts"])):
            voxels = int(statistics["voxel_counts"][component])
            if voxels < LEAST_VOXELS:
                specks += 1
                continue
            box = statistics["bounding_boxes"][component]
            there = np.argwhere(components[box] == component)
            start = [part.start for part in box]
            middle = there[np.square(there - there.mean(0)).sum(1).argmin()] + start
            number = len(lesions) + 1
            numbers[box][components[box] == component] = number
            volume_mm3 = voxels * float(np.prod(spacing_mm))
            lesions.append(
                Lesion(
                    number=number,
                    organ=organ.name,
                    diameter_mm=round(float(np.cbrt(6 * volume_mm3 / np.pi)), 3),
                    voxels=voxels,
                    box=tuple((int(part.start), int(part.stop)) for part in box),
                    centre=tuple(int(index) for index in middle),
                )
            )
    record = StoredCase(
        name=job.name,
        shape=tuple(labels.shape),
        spacing_mm=tuple(float(value) for value in spacing_mm),
        affine=tuple(tuple(float(value) for value in row) for row in affine),
        organs=organs,
        lesions=tuple(lesions),
        specks=specks,
        made_from=job.made_from,
    )
    return record, numbers


def _bounds(mask: np.ndarray) -> tuple[tuple[int, int], ...]:
    """First and one past the last voxel along each axis."""
    found = (np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3))
    return tuple((int(indices[0]), int(indices[-1]) + 1) for indices in found)


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
