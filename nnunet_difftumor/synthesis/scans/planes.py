"""The planes of a scan as radiologists see them: the patient's right on the left, front or head at the top."""

from collections.abc import Sequence

import numpy as np

from nnunet_difftumor.synthesis.volume import nearest_axes


class View:
    """A plane of arrays of one orientation.

    Attributes:
        name: axial, coronal or sagittal.
        fixed, down, right: the array axes across it, down and to the right in it.
        sides: what lies on its left, right, top and bottom: Right, Left, Anterior, Posterior, Head or Feet.
    """

    def __init__(self, name: str, sides: str, axes: Sequence[int], turned: Sequence[bool]) -> None:
        self.name, self.sides = name, sides
        self.fixed, self.down, self.right = axes
        self._turned = tuple(slice(None, None, -1 if turn else 1) for turn in turned)

    def stack(self, image: np.ndarray) -> np.ndarray:
        """All slices of an array: (slice, down, right), a view; slices towards the head, the front and the right."""
        return np.moveaxis(image, (self.fixed, self.down, self.right), (0, 1, 2))[self._turned]

    def place(self, voxel: Sequence[int], shape: Sequence[int]) -> tuple[int, int, int]:
        """Where a voxel of an array of this shape is in `stack`."""
        axes = (self.fixed, self.down, self.right)
        slice_, down, right = (
            shape[axis] - 1 - voxel[axis] if turned.step < 0 else voxel[axis]
            for axis, turned in zip(axes, self._turned, strict=True)
        )
        return slice_, down, right

    def numbers(self, part: slice, shape: Sequence[int]) -> list[int]:
        """Indices in an array of this shape of the slices of `stack`, of a part of them that is given as there."""
        found = range(shape[self.fixed])[part]
        return list(found[:: self._turned[0].step])

    def around(
        self, image: np.ndarray, voxel: Sequence[int], *, field_mm: float, spacing_mm: Sequence[float], outside: float
    ) -> np.ndarray:
        """The plane through a voxel, (down, right), at least a field wide and with the voxel in its middle.

        Args:
            image: (z, y, x).
            voxel: its index.
            field_mm: edge of the field.
            spacing_mm: voxel size, (z, y, x).
            outside: value beyond the end of the image.
        """
        number, *middle = self.place(voxel, image.shape)
        plane = self.stack(image)[number]
        # Two more than the field holds: interpolation looks at them.
        half = [int(np.ceil(field_mm / 2 / mm)) + 2 for mm in self.pixel_mm(spacing_mm)]
        pads = [(max(n - m, 0), max(m + n + 1 - size, 0)) for m, n, size in zip(middle, half, plane.shape, strict=True)]
        part = tuple(slice(max(m - n, 0), m + n + 1) for m, n in zip(middle, half, strict=True))
        return np.pad(plane[part], pads, constant_values=outside)

    def slice_mm(self, spacing_mm: Sequence[float]) -> float:
        """Distance of the slices."""
        return float(spacing_mm[self.fixed])

    def pixel_mm(self, spacing_mm: Sequence[float]) -> tuple[float, float]:
        """Size of a pixel, (down, right)."""
        return float(spacing_mm[self.down]), float(spacing_mm[self.right])


def views(directions: np.ndarray) -> tuple[View, View, View]:
    """Axial, coronal and sagittal planes for any orientation: the array axis nearest to each axis of the patient.

    Args:
        directions: (3, 3), columns are the array axes in RAS+ space.
    """
    directions = np.asarray(directions, float)
    x, y, z = nearest_axes(directions)
    to_right, to_front, to_head = directions[0, x] > 0, directions[1, y] > 0, directions[2, z] > 0
    return (
        View("axial", "RLAP", (z, y, x), (not to_head, to_front, to_right)),
        View("coronal", "RLHF", (y, z, x), (not to_front, to_head, to_right)),
        View("sagittal", "APHF", (x, z, y), (not to_right, to_head, to_front)),
    )
