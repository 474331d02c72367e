"""The lesion file: one rendered tumor on disk, as a change to the scan that it was made for."""

import json
import zipfile
from pathlib import Path

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import atomic_path
from nnunet_difftumor.synthesis.handcrafted import RenderedTumor
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import Volume

SUFFIX = ".lesion.npz"
_KEYS = {"spec", "start", "grid_shape", "grid_spacing_mm", "change_hu", "mask"}


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
            mask=tumor.mask,
        )


def read_lesion(path: str | Path, volume: Volume) -> RenderedTumor:
    """Reads a lesion file and puts its change onto the scan.

    Args:
        path: the file.
        volume: the scan that it was made for, on the same grid.

    Raises:
        InputError: if the file is damaged or belongs to another grid. Nothing in it is executed.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            missing = _KEYS - set(stored.files)
            if missing:
                raise InputError(f"{path}: is not a lesion file, {sorted(missing)} are missing")
            values = {key: stored[key] for key in _KEYS}
        spec = TumorSpec.from_dict(json.loads(str(values["spec"])))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as a lesion file ({error}); delete it and make it again") from error
    change, mask, start = values["change_hu"], values["mask"], values["start"]
    if tuple(values["grid_shape"]) != tuple(volume.shape) or not np.allclose(
        values["grid_spacing_mm"], volume.spacing_mm, rtol=1e-4
    ):
        raise InputError(
            f"{path}: made for a grid of {values['grid_shape']} voxels of {values['grid_spacing_mm']} mm, but the case "
            f"has {volume.shape} of {volume.spacing_mm} mm; make the lesions again after `difftumor prepare`"
        )
    stop = start + change.shape if change.ndim == 3 and start.shape == (3,) else None
    if (
        stop is None
        or mask.shape != change.shape
        or mask.dtype != bool
        or change.dtype != np.float32
        or not np.isfinite(change).all()
        or (start < 0).any()
        or (stop > volume.shape).any()
        or not mask.any()
    ):
        raise InputError(f"{path}: is damaged (shapes, types or values do not fit); delete it and make it again")
    box = tuple(slice(int(first), int(last)) for first, last in zip(start, stop, strict=True))
    return RenderedTumor(spec, box, volume.hu(box) + change, mask)
