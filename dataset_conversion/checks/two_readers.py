"""Whether nnU-Net's reader sees in a file what this package does: SimpleITK trains, nibabel checks."""

from pathlib import Path

import numpy as np

from nnunet_difftumor.ct.geometry import GEOMETRY_TOLERANCE_VOXELS, largest_shift_mm, spacing_of

# float32 HU that were scaled in float32 or float64.
_TOLERANCE_HU = 0.01
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def difference_for_simpleitk(path: Path, voxels: np.ndarray, affine: np.ndarray) -> str:
    """What SimpleITK sees otherwise in a file; empty if nothing.

    Compared are shape, origin, spacing and direction, and the voxels of the first, the middle and the last slice:
    scaling and byte order are the same in all.

    Args:
        path: of the file.
        voxels: (z, y, x), what it is to hold.
        affine: 4 x 4, from indices (x, y, z) to RAS+ mm, where it is to lie.
    """
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        if reader.GetSize() != voxels.shape[::-1]:
            return f"nnU-Net's reader, SimpleITK, sees {reader.GetSize()} voxels, not {voxels.shape[::-1]}"
        theirs = _affine_of(reader)
        shift_mm = largest_shift_mm(theirs, affine, voxels.shape[::-1])
        if shift_mm > GEOMETRY_TOLERANCE_VOXELS * min(spacing_of(affine)):
            return (
                f"nnU-Net's reader, SimpleITK, puts voxels up to {shift_mm:.3g} mm elsewhere (its spacing is "
                f"{_rounded(spacing_of(theirs))} mm, that of the affine {_rounded(spacing_of(affine))})"
            )
        reader.SetExtractSize([*voxels.shape[:0:-1], 1])
        for z in sorted({0, len(voxels) // 2, len(voxels) - 1}):
            reader.SetExtractIndex([0, 0, z])
            plane = SimpleITK.GetArrayFromImage(reader.Execute())[0]
            if not np.allclose(plane, voxels[z], rtol=1e-5, atol=_TOLERANCE_HU):
                return f"nnU-Net's reader, SimpleITK, sees other values in slice {z}"
    except RuntimeError as error:
        return f"nnU-Net's reader, SimpleITK, refuses it ({str(error).strip().splitlines()[-1]})"
    return ""


def _affine_of(reader) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * reader.GetSpacing()
    affine[:3, 3] = reader.GetOrigin()
    return _LPS_TO_RAS @ affine


def _rounded(spacing_mm: tuple[float, ...]) -> str:
    return " x ".join(f"{size:.4g}" for size in spacing_mm)
