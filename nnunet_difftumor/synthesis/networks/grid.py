"""Maps a region of a scan to a network's grid, and back: axes, orientation and voxel size, nothing else.

A network sees the patient along its own axes (`Volumes.axes`, for example SRA) and voxel size. Axes of a scan are
taken for the patient's axis that is nearest, so an oblique scan is not turned; the published models were trained so.
Interpolation is linear in both directions. The grid stands on a voxel of the scan: where voxel sizes are equal, or the
scan's a multiple of the network's, network voxels meet every voxel of the scan, and going there and back changes
nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation
from scipy.sparse import csr_array

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.separable import along_axes
from nnunet_difftumor.synthesis.spec import Triple
from nnunet_difftumor.synthesis.volume import Box, clipped_box


@dataclass(frozen=True)
class NetworkGrid:
    """A network's patch in a scan. Vectors are in the order of the scan's axes (z, y, x), if nothing else is said.

    Attributes:
        axes: for each axis of the network, the scan's.
        size: voxels of the patch.
        first_mm: position of its first voxel, from the centre of the scan's first voxel.
        step_mm: from one voxel to the next, below 0 where the network's axis runs against the scan's.
        spacing_mm: the scan's voxel size.
    """

    axes: tuple[int, int, int]
    size: tuple[int, int, int]
    first_mm: Triple
    step_mm: Triple
    spacing_mm: Triple

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the patch, in the order of the network's axes."""
        return tuple(self.size[axis] for axis in self.axes)

    def box(self, scan_shape: Sequence[int]) -> Box:
        """The scan's voxels that the patch covers, as far as there are any."""
        ends = np.array([self._positions_mm(axis)[[0, -1]] for axis in range(3)]) / np.asarray(self.spacing_mm)[:, None]
        return clipped_box(np.floor(ends.min(1)), np.ceil(ends.max(1)) + 1, scan_shape)

    def to_network(self, values: np.ndarray, box: Box, *, repeat_rim: bool) -> np.ndarray:
        """A region of the scan on the network's grid, float32 of `shape`.

        Args:
            values: float32 (z, y, x) of the box.
            box: of the scan; at least `box(scan_shape)`, or what lies beyond is not seen.
            repeat_rim: beyond the box the voxels at its rim are repeated, as the networks' convolutions do it;
                otherwise there is 0.
        """
        matrices = [csr_array(matrix) for matrix in self.network_from_scan(box, repeat_rim=repeat_rim)]
        return np.ascontiguousarray(along_axes(values.astype(np.float32, copy=False), matrices).transpose(self.axes))

    def to_scan(self, values: np.ndarray, box: Box) -> np.ndarray:
        """What is on the network's grid at the scan's voxels, float32 (z, y, x) of the box.

        Args:
            values: float32 of `shape`.
            box: of the scan; beyond the patch the values at its rim are repeated.
        """
        matrices = [csr_array(matrix) for matrix in self.scan_from_network(box)]
        return along_axes(values.astype(np.float32, copy=False).transpose(np.argsort(self.axes)), matrices)

    def network_from_scan(self, box: Box, *, repeat_rim: bool) -> list[np.ndarray]:
        """`to_network` as a product with a matrix along each of the scan's axes, (size, voxels of the box) float32."""
        return [
            _interpolation(
                self._positions_mm(axis) / self.spacing_mm[axis] - part.start,
                part.stop - part.start,
                repeat_rim=repeat_rim,
            )
            for axis, part in enumerate(box)
        ]

    def scan_from_network(self, box: Box) -> list[np.ndarray]:
        """`to_scan` as a product with a matrix along each of the scan's axes, (voxels of the box, size) float32."""
        matrices = []
        for axis, part in enumerate(box):
            positions = np.arange(part.start, part.stop) * self.spacing_mm[axis]
            index = (positions - self.first_mm[axis]) / self.step_mm[axis]
            matrices.append(_interpolation(index, self.size[axis], repeat_rim=True))
        return matrices

    def nearest(self, position_mm: Sequence[float]) -> tuple[int, int, int]:
        """Index, along the scan's axes, of the patch's voxel that is nearest to a position in the scan."""
        index = np.rint(np.subtract(position_mm, self.first_mm) / self.step_mm)
        return tuple(np.clip(index, 0, np.subtract(self.size, 1)).astype(int).tolist())

    def part_in(self, box: Box) -> Box:
        """The patch's voxels with centres in the voxels of a box of the scan, in the order of the network's axes."""
        parts = []
        for axis in self.axes:
            index = self._positions_mm(axis) / self.spacing_mm[axis]
            (found,) = np.nonzero((index >= box[axis].start - 0.5) & (index < box[axis].stop - 0.5))
            parts.append(slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0))
        return tuple(parts)

    def _positions_mm(self, axis: int) -> np.ndarray:
        return self.first_mm[axis] + self.step_mm[axis] * np.arange(self.size[axis])


def grid_around(
    centre_mm: Sequence[float],
    *,
    extent_mm: Sequence[float],
    spacing_mm: Sequence[float],
    direction: np.ndarray,
    axes: str,
    network_spacing_mm: Sequence[float],
    least_size: Sequence[int],
    multiples: Sequence[int],
) -> NetworkGrid:
    """The patch around a position.

    Args:
        centre_mm: from the centre of the scan's first voxel, (z, y, x); the patch stands on the voxel nearest to it.
        extent_mm: least extent of the patch along the scan's axes.
        spacing_mm: the scan's voxel size, (z, y, x).
        direction: (3, 3), its columns the unit vectors of the scan's axes (z, y, x) in RAS+ space.
        axes: the network's axes, three letters, one each of SI, RL and AP: where the index grows to.
        network_spacing_mm: along the network's axes.
        least_size: the patch has at least these voxels, along the network's axes.
        multiples: the patch has a multiple of these voxels, along the network's axes.

    Raises:
        InputError: for axes that are no axes, or a direction without three different axes.
    """
    order, signs = _matching_axes(tuple(np.asarray(direction, float).ravel().tolist()), axes)
    size, first, step = [0] * 3, [0.0] * 3, [0.0] * 3
    for network_axis, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        spacing, own, multiple = spacing_mm[axis], network_spacing_mm[network_axis], multiples[network_axis]
        # A part of a voxel is left to rounding.
        voxels = max(np.ceil(extent_mm[axis] / own - 1e-6), least_size[network_axis])
        size[axis] = max(1, int(np.ceil(voxels / multiple))) * multiple
        step[axis] = sign * own
        first[axis] = float(round(centre_mm[axis] / spacing)) * spacing - step[axis] * (size[axis] // 2)
    return NetworkGrid(order, tuple(size), tuple(first), tuple(step), tuple(float(value) for value in spacing_mm))


# Of a scan the same for every tumor.
@lru_cache(maxsize=64)
def _matching_axes(direction: tuple[float, ...], axes: str) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """For each axis of the network the scan's axis, and whether they run the same way (1) or not (-1).

    The direction is (3, 3), row after row.
    """
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(direction, (3, 3))
    scan = io_orientation(affine)
    try:
        network = axcodes2ornt(axes)
    except ValueError:
        network = np.zeros((0, 2))
    if sorted(network[:, 0]) != [0, 1, 2]:
        raise InputError(f"axes of the weights: {axes!r}, expected three letters, one each of SI, RL and AP")
    if sorted(scan[:, 0]) != [0, 1, 2]:
        raise InputError(f"direction of the scan: its columns are no three axes: {affine[:3, :3].tolist()}")
    order, signs = [], []
    for patient_axis, sign in network:
        (axis,) = np.flatnonzero(scan[:, 0] == patient_axis)
        order.append(int(axis))
        signs.append(int(sign * scan[axis, 1]))
    return tuple(order), tuple(signs)


def _interpolation(index: np.ndarray, size: int, *, repeat_rim: bool) -> np.ndarray:
    """Linear interpolation of `size` values at fractional indices, (len(index), size) float32."""
    if repeat_rim:
        index = np.clip(index, 0, size - 1)
    lower = np.floor(index)
    share = index - lower
    matrix, rows = np.zeros((len(index), size), np.float32), np.arange(len(index))
    lower = lower.astype(np.int64)
    for column, weight in ((lower, 1 - share), (lower + 1, share)):
        inside = (column >= 0) & (column < size)
        matrix[rows[inside], column[inside]] = weight[inside]
    return matrix
