"""What placing and rendering read: a scan with its label map, by boxes, so that cost does not grow with the volume."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nnunet_difftumor.errors import InputError

Box = tuple[slice, slice, slice]


class Volume(Protocol):
    """A CT scan of shape (z, y, x) with a label map on the same grid."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels, (z, y, x)."""

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size, (z, y, x)."""

    @property
    def direction(self) -> np.ndarray | None:
        """Float (3, 3), its columns the unit vectors of the array's axes in RAS+ space; None: not known."""

    def hu(self, box: Box) -> np.ndarray:
        """HU, float32, of the box; not to be changed."""

    def labels(self, box: Box) -> np.ndarray:
        """Label values, an integer type, of the box; not to be changed."""


@dataclass(frozen=True)
class ArrayVolume:
    """A scan in memory.

    Attributes:
        hu_array: float (z, y, x).
        label_array: integer or boolean (z, y, x).
        spacing_mm: voxel size, (z, y, x).
        direction: as in `Volume`.
    """

    hu_array: np.ndarray
    label_array: np.ndarray
    spacing_mm: tuple[float, float, float]
    direction: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.hu_array.ndim != 3 or self.hu_array.shape != self.label_array.shape:
            raise InputError(
                f"the scan has shape {self.hu_array.shape} and the label map {self.label_array.shape}; "
                "both must be the same three-dimensional grid (z, y, x)"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return self.hu_array.shape

    def hu(self, box: Box) -> np.ndarray:
        return self.hu_array[box].astype(np.float32, copy=False)

    def labels(self, box: Box) -> np.ndarray:
        return self.label_array[box]


def clipped_box(lower: Sequence[int], upper: Sequence[int], shape: Sequence[int]) -> Box:
    """The box [lower, upper) cut to the grid; an axis that misses the grid gives an empty slice at its border."""
    return tuple(
        slice(min(max(int(low), 0), size), max(min(int(high), size), min(max(int(low), 0), size)))
        for low, high, size in zip(lower, upper, shape, strict=True)
    )


def box_within(box: Box, outer: Box) -> Box:
    """The indices that a box of the grid has in an array of `outer`.

    Raises:
        ValueError: if `outer` does not hold the box.
    """
    if any(a.start < b.start or a.stop > b.stop for a, b in zip(box, outer, strict=True)):
        raise ValueError(f"{box} is not inside {outer}")
    return tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, outer, strict=True))


def whole(shape: Sequence[int]) -> Box:
    """The box that covers a grid."""
    return tuple(slice(0, size) for size in shape)


def axes_mm(box: Box, spacing_mm: Sequence[float]) -> list[np.ndarray]:
    """The box's voxel centres along each axis, in mm from the centre of the grid's first voxel, float32."""
    return [
        np.arange(part.start, part.stop, dtype=np.float32) * np.float32(step)
        for part, step in zip(box, spacing_mm, strict=True)
    ]


def along(axis: int, values: np.ndarray) -> np.ndarray:
    """A vector as an array (z, y, x) that has it along one axis, and one voxel along the others."""
    return values.reshape([-1 if other == axis else 1 for other in range(3)])


def grown_box(box: Box, margin: Sequence[int], shape: Sequence[int]) -> Box:
    """The box with a margin of voxels (z, y, x) on both sides of each axis, cut to the grid."""
    lower = [part.start - more for part, more in zip(box, margin, strict=True)]
    upper = [part.stop + more for part, more in zip(box, margin, strict=True)]
    return clipped_box(lower, upper, shape)


def bounding_box(mask: np.ndarray) -> Box | None:
    """The smallest box that holds all of a boolean mask (z, y, x); None for an empty one."""
    # Much quicker than scipy's find_objects, which goes through the voxels one by one.
    box: list[slice] = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        present = np.flatnonzero(mask.any(axis=others))
        if not present.size:
            return None
        box.append(slice(int(present[0]), int(present[-1]) + 1))
        mask = mask[(*(slice(None),) * axis, box[-1])]
    return tuple(box)


def box_shape(box: Box) -> tuple[int, int, int]:
    """Voxels of a box, (z, y, x)."""
    return tuple(part.stop - part.start for part in box)


def box_to_json(box: Box) -> list[list[int]]:
    """First voxel and one past the last along each axis; `box_from_json` gives an equal box."""
    return [[int(part.start), int(part.stop)] for part in box]


def box_from_json(pairs: Sequence[Sequence[int]]) -> Box:
    """Reads what `box_to_json` wrote."""
    z, y, x = (slice(first, last) for first, last in pairs)
    return z, y, x


def nearest_axes(direction: np.ndarray) -> tuple[int, int, int]:
    """For left-right, front-back and head-foot the array axis (0, 1, 2) that is nearest to it.

    Args:
        direction: float (3, 3), its columns the directions of the array's axes in RAS+ space.
    """
    along_patient = np.abs(np.asarray(direction, float))
    nearest, remaining = [0, 0, 0], [0, 1, 2]
    for patient in np.argsort(-along_patient.max(1), kind="stable"):
        nearest[patient] = max(remaining, key=lambda axis: along_patient[patient, axis])
        remaining.remove(nearest[patient])
    return nearest[0], nearest[1], nearest[2]
