"""The lesion file: one rendered tumor on disk, as a change to the scan that it was made for."""

import json
import zlib
from pathlib import Path

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import atomic_path
from nnunet_difftumor.synthesis.patch import RenderedTumor, TissueAround
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.stored import read_arrays
from nnunet_difftumor.synthesis.volume import Box, Volume

SUFFIX = ".lesion.npz"
_KEYS = {"spec", "start", "grid_shape", "grid_spacing_mm", "change_hu", "labels", "mask"}
# Between air and bone, and noise on top.
_MOST_CHANGE_HU = 5000
# Files that were made before scans were recognized, or the tissue around was measured, do not have these.
_SCAN, _AROUND = "scan_crc32", "around_hu"


def write_lesion(path: str | Path, tumor: RenderedTumor, volume: Volume) -> None:
    """Writes a lesion file atomically.

    Args:
        path: ends in `.lesion.npz`.
        tumor: rendered into `volume`.
        volume: the scan before the tumor was written into it.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            spec=np.array(json.dumps(tumor.spec.to_dict())),
            start=np.array([part.start for part in tumor.box]),
            grid_shape=np.array(volume.shape),
            grid_spacing_mm=np.array(volume.spacing_mm),
            change_hu=tumor.hu - volume.hu(tumor.box),
            labels=tumor.labels,
            mask=tumor.mask,
            scan_crc32=np.array(_crc32(volume, tumor.box), np.uint32),
            **({} if tumor.around is None else {_AROUND: np.array(tumor.around, np.float64)}),
        )


def read_lesion(path: str | Path, volume: Volume, *, same_scan: bool = False) -> RenderedTumor:
    """Reads a lesion file and puts its change onto the scan.

    Args:
        path: the file.
        volume: the scan that it was made for, on the same grid.
        same_scan: refuse a lesion if the scan has other voxels around it than when it was made; files of earlier
            versions do not say.

    Raises:
        InputError: if the file is damaged, belongs to another grid or scan, or holds what no rendered tumor does.
            Nothing in it is executed.
    """
    values = read_arrays(path, keys=_KEYS, optional={_SCAN, _AROUND}, what="a lesion file")
    change, labels, mask, start = (values[key] for key in ("change_hu", "labels", "mask", "start"))
    grid_shape, grid_spacing_mm = values["grid_shape"], values["grid_spacing_mm"]
    around = values.get(_AROUND)
    try:
        spec = TumorSpec.from_dict(json.loads(str(values["spec"])))
        sound = (
            change.dtype == np.float32
            and mask.dtype == bool
            and labels.dtype.kind in "iu"
            and change.shape == labels.shape == mask.shape
            and change.ndim == 3
            and all(array.shape == (3,) for array in (start, grid_shape, grid_spacing_mm))
            and start.dtype.kind == grid_shape.dtype.kind == "i"
            and grid_spacing_mm.dtype.kind == "f"
            and (around is None or (around.dtype.kind == "f" and around.shape == (2,) and np.isfinite(around).all()))
            and bool(np.isfinite(change).all() and mask.any())
            and bool((start >= 0).all() and (start + change.shape <= grid_shape).all())
        )
    except ValueError as error:
        raise InputError(f"{path}: is damaged ({error}); delete it and make it again") from error
    if not sound:
        raise InputError(f"{path}: is damaged (shapes, types or values do not fit); delete it and make it again")
    if tuple(grid_shape) != tuple(volume.shape) or not np.allclose(grid_spacing_mm, volume.spacing_mm, rtol=1e-4):
        raise InputError(
            f"{path}: made for a grid of {grid_shape} voxels of {grid_spacing_mm} mm, but the case has {volume.shape} "
            f"of {volume.spacing_mm} mm; make the lesions again after `difftumor prepare`"
        )
    box = tuple(slice(int(first), int(first) + size) for first, size in zip(start, change.shape, strict=True))
    if same_scan and _SCAN in values and int(values[_SCAN]) != _crc32(volume, box):
        raise InputError(
            f"{path}: made from another version of the case, whose image or labels have changed since; make the "
            "lesions of this case again"
        )
    _check_possible(path, spec, change, labels, mask, before=volume.labels(box))
    tissue = None if around is None else TissueAround(*map(float, around))
    return RenderedTumor(spec, box, volume.hu(box) + change, labels, mask, tissue)


def _check_possible(
    path: str | Path, spec: TumorSpec, change: np.ndarray, labels: np.ndarray, mask: np.ndarray, *, before: np.ndarray
) -> None:
    """Refuses what no renderer makes of a tumor: it would be learned like any other."""
    beside = labels[~mask]
    # Mass effect moves labels.
    same = np.isin(beside, before).all() if spec.mass_effect > 0 else np.array_equal(beside, before[~mask])
    if not same:
        raise InputError(
            f"{path}: its labels beside the tumor are not those of the case: it is damaged, or was made from another "
            "version of the case; delete it and make it again"
        )
    inside = labels[mask]
    if spec.kind == "tumor" and (inside != inside[0]).any():
        raise InputError(f"{path}: its tumor has several labels; delete it and make it again")
    if (most := float(np.abs(change).max())) > _MOST_CHANGE_HU:
        raise InputError(
            f"{path}: changes a voxel by {most:.3g} HU, which no tumor does (at most {_MOST_CHANGE_HU}); delete it and "
            "make it again"
        )


def _crc32(volume: Volume, box: Box) -> int:
    """Of what a scan holds in a box."""
    hu = np.ascontiguousarray(volume.hu(box), np.float32)
    return zlib.crc32(np.ascontiguousarray(volume.labels(box), np.int16), zlib.crc32(hu))
