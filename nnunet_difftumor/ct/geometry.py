"""Where voxels lie in space: what headers must say, so that every program sees the same."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from nnunet_difftumor.errors import InputError

SPACING_LIMITS_MM = (0.1, 20.0)
# Two geometries may differ by this part of the smallest voxel size at any corner: float32 headers round to less than
# this, and a mask moved by less than this has the same voxels.
GEOMETRY_TOLERANCE_VOXELS = 0.1
# Cosine of the angle between two axes, which should be 0: above the first no grid is meant to be rectangular; below the
# second it is rounding, and ITK takes it.
_MOST_SHEAR, _ROUNDED_SHEAR = 0.01, 1e-5
_UNITS = {1: "metres", 3: "micrometres"}


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Voxel size in mm, (z, y, x), of an affine from indices (x, y, z)."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(z), float(y), float(x)


def check_affine(affine: np.ndarray, where: object) -> None:
    """Refuses affines that are not of a rectangular grid with voxels of 0.1 to 20 mm.

    Raises:
        InputError: naming `where`.
    """
    if not np.isfinite(affine).all():
        raise InputError(f"{where}: the affine holds NaN or infinite values; rewrite the header")
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = SPACING_LIMITS_MM
    if not np.all((spacing_mm >= low) & (spacing_mm <= high)):
        raise InputError(
            f"{where}: the spacing is {_mm(spacing_mm)} (x, y, z); expected {low} to {high} mm along every axis: "
            "correct the header (is it in m or um?)"
        )
    if _shear(affine) > _MOST_SHEAR:
        raise InputError(_sheared(affine, where))


def rectangular_affine(affine: np.ndarray, shape: Sequence[int], where: object) -> np.ndarray:
    """The affine itself if its axes are at right angles, else the nearest one whose axes are.

    nnU-Net's reader refuses headers that are sheared in the least.

    Args:
        affine: 4 x 4, checked.
        shape: voxels, (x, y, z).
        where: the file, for messages.

    Raises:
        InputError: the nearest one would move a voxel by more than a tenth of its size, as with a tilted gantry.
    """
    if _shear(affine) <= _ROUNDED_SHEAR:
        return affine
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / spacing_mm)
    nearest = affine.copy()
    nearest[:3, :3] = left @ right * spacing_mm
    # The middle of the scan stays where it is.
    nearest[:3, 3] += (affine[:3, :3] - nearest[:3, :3]) @ ((np.asarray(shape) - 1) / 2)
    if largest_shift_mm(nearest, affine, shape) > GEOMETRY_TOLERANCE_VOXELS * spacing_mm.min():
        raise InputError(_sheared(affine, where))
    return nearest


def with_affine(header: nib.Nifti1Header, affine: np.ndarray) -> nib.Nifti1Header:
    """A header whose qform and sform both say this (4 x 4, RAS+ mm)."""
    header = header.copy()
    code = max(int(header["sform_code"]), int(header["qform_code"]), 1)
    header.set_qform(affine, code=code)
    header.set_sform(affine, code=code)
    header.set_xyzt_units("mm")
    return header


def check_header(header: nib.Nifti1Header, affine: np.ndarray, path: Path) -> None:
    """Refuses headers that nibabel and ITK, and so this package and nnU-Net, understand otherwise.

    Args:
        header: as nibabel gives it.
        affine: 4 x 4, the one that nibabel takes.
        path: of the file, for messages.

    Raises:
        InputError: the spacing is not that of the affine, lengths are not in mm, or qform and sform differ.
    """
    zooms = np.asarray(header.get_zooms()[:3], np.float64)
    spacing_mm = np.asarray(spacing_of(affine))[::-1]
    if not np.allclose(zooms, spacing_mm, rtol=0.01):
        raise InputError(
            f"{path}: the header's pixdim gives a spacing of {_mm(zooms)}, its affine {_mm(spacing_mm)}; programs "
            "would disagree on sizes: rewrite the header"
        )
    unit = _UNITS.get(int(header["xyzt_units"]) & 7)
    if unit is not None:
        raise InputError(
            f"{path}: the header gives lengths in {unit} ({_numbers(spacing_mm)} along x, y, z), which ITK converts "
            "and nibabel does not; expected mm: set xyzt_units to mm, and the numbers with it"
        )
    if header["qform_code"] > 0 and header["sform_code"] > 0:
        try:
            qform = header.get_qform()
        except ValueError as error:
            raise InputError(f"{path}: the header's qform is not valid ({error}); rewrite the header") from error
        shift_mm = largest_shift_mm(qform, affine, header.get_data_shape()[:3])
        if shift_mm > GEOMETRY_TOLERANCE_VOXELS * spacing_mm.min():
            raise InputError(
                f"{path}: qform and sform differ by up to {shift_mm:.4g} mm, and programs take one or the other; find "
                "out which is right, and set both to it"
            )


def is_header_unset(affine: np.ndarray, shape: Sequence[int]) -> bool:
    """Whether a header gives 1 mm along every axis and either no place in space or a field of view of 512 mm.

    Args:
        affine: 4 x 4, from indices to mm.
        shape: voxels, in any order.
    """
    of_identity = np.allclose(np.abs(affine[:3, :3]), np.eye(3), atol=1e-4)
    return bool(of_identity and (np.abs(affine[:3, 3]).max() <= 1 or sorted(shape)[1:] == [512, 512]))


def has_no_form(header: nib.Nifti1Header) -> bool:
    """Whether the header has neither qform nor sform: then place, orientation and often voxel size are unknown."""
    return header["qform_code"] <= 0 and header["sform_code"] <= 0


def with_stated_spacing(
    header: nib.Nifti1Header, affine: np.ndarray, spacing_mm: Sequence[float]
) -> tuple[nib.Nifti1Header, np.ndarray]:
    """Header and affine of a file whose header was never set, with this voxel size.

    Axes and origin are those of the file, or those that nnU-Net's reader assumes where it has none: LPS, at 0.

    Args:
        header, affine: as nibabel gives them.
        spacing_mm: (z, y, x).
    """
    axes = np.diag([-1.0, -1.0, 1.0]) if has_no_form(header) else np.rint(affine[:3, :3])
    stated = np.eye(4)
    stated[:3, :3] = axes * np.asarray(spacing_mm, np.float64)[::-1]
    stated[:3, 3] = 0 if has_no_form(header) else affine[:3, 3]
    return with_affine(header, stated), stated


def check_stated_spacing(spacing_mm: Sequence[float] | None) -> None:
    """Refuses voxel sizes that no CT has.

    Raises:
        InputError: unless it is None or three numbers from 0.1 to 20.
    """
    low, high = SPACING_LIMITS_MM
    if spacing_mm is not None and not (len(spacing_mm) == 3 and all(low <= step <= high for step in spacing_mm)):
        raise InputError(
            f"`spacing_mm` is {tuple(spacing_mm)}, expected three voxel sizes (z, y, x) of {low} to {high}"
        )


def check_same_grid(shape: tuple[int, ...], affine: np.ndarray, like: Any, path: Path, *, unset: bool) -> None:
    """Refuses a label map that does not lie on the scan's grid.

    Args:
        shape, affine: of the label map, (x, y, z).
        like: the `Scan`, or its `ScanHeader`.
        path: of the label map, for messages.
        unset: its header has neither qform nor sform.

    Raises:
        InputError: saying what differs.
    """
    expected, ct = like.shape_xyz, like.path or "the CT"
    if shape != expected:
        raise InputError(f"{path}: {shape} voxels (x, y, z), but {ct} has {expected}; resample it to the CT's grid")
    if like.spacing_was_stated and (unset or is_header_unset(affine, shape)):
        return
    orientation, expected_orientation = ("".join(nib.aff2axcodes(a)) for a in (affine, like.affine))
    if unset:
        raise InputError(
            f"{path}: the header has no place in space (qform and sform codes are 0), but that of {ct} has; copy the "
            "CT's header if the voxels do correspond"
        )
    if orientation != expected_orientation:
        raise InputError(
            f"{path}: stored in the orientation {orientation}, but {ct} in {expected_orientation}; bring the label map "
            "onto the CT's own voxel grid"
        )
    shift_mm = largest_shift_mm(affine, like.affine, shape)
    if shift_mm > GEOMETRY_TOLERANCE_VOXELS * min(like.spacing_mm):
        raise InputError(
            f"{path}: lies up to {shift_mm:.3g} mm away from {ct} (affines differ); resample it to the CT's grid, or "
            "copy the CT's header if the voxels do correspond"
        )


def largest_shift_mm(first: np.ndarray, second: np.ndarray, shape: Sequence[int]) -> float:
    """How far two affines (4 x 4) put a corner voxel of a grid (x, y, z) from each other at most."""
    corners = np.array([(*index, 1) for index in itertools.product(*((0, n - 1) for n in shape))])
    return float(np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max())


def _shear(affine: np.ndarray) -> float:
    """Largest cosine between two axes of an affine; 1 if one is singular."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(axes.T @ axes - np.eye(3)).max())


def _sheared(affine: np.ndarray, where: object) -> str:
    return (
        f"{where}: the affine is sheared or singular (two axes have an angle of "
        f"{np.degrees(np.arccos(min(_shear(affine), 1.0))):.1f} degrees, expected 90), as from a tilted gantry: "
        "resample scan and masks to a rectangular grid (docs/own_data.md, Tilted gantry)"
    )


def _mm(spacing_mm: np.ndarray) -> str:
    return f"{_numbers(spacing_mm)} mm"


def _numbers(spacing_mm: np.ndarray) -> str:
    return " x ".join(f"{float(number):.4g}" for number in spacing_mm)
