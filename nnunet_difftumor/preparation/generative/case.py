"""One case as a training volume: read, turned, cropped, resampled and measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from nibabel import orientations

from nnunet_difftumor.ct.body import body_box
from nnunet_difftumor.ct.hounsfield import check_hu
from nnunet_difftumor.ct.scan_folder import read_scan
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.stored_cases import Lesion, StoredCase, write_case
from nnunet_difftumor.generative.weights import Volumes
from nnunet_difftumor.prepared.orientation import directions
from nnunet_difftumor.synthesis.organ import Organ

# Components with fewer voxels of 1 mm are no lesions, as in the public code.
LEAST_VOXELS = 8
CONNECTIVITY = 26


@dataclass(frozen=True)
class Job:
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


def preprocess(job: Job) -> str | None:
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


def _read(job: Job) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def _read_by_nnunet(job: Job, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    hu: np.ndarray, labels: np.ndarray, affine: np.ndarray, job: Job
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
    hu: np.ndarray, labels: np.ndarray, affine: np.ndarray, job: Job
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


def _measured(labels: np.ndarray, affine: np.ndarray, job: Job) -> tuple[StoredCase, np.ndarray]:
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
