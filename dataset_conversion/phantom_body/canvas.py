"""A grid onto which organs, given as signed distances in mm, are painted with partial volume at their edges."""

from collections.abc import Sequence

import numpy as np

# Distances are worked out only this near to a body; farther away they are set to FAR_MM.
MARGIN_MM, FAR_MM = 20.0, 60.0


class Canvas:
    """CT and labels under construction.

    Positions (x, y, z) are in mm: x to the patient's left, y to the back, z upwards; x = y = 0 in the middle of the
    body. Later organs cover earlier ones. Distances are negative inside.

    Attributes:
        hu: float32 (z, y, x), starts as air.
        labels: uint8 (z, y, x).
        x, y, z: coordinates in mm, shaped for broadcasting.
        coarse, medium, fine: smooth random fields of unit standard deviation, with a grain of 25, 15 and 9 mm.
    """

    def __init__(self, *, size_mm: Sequence[float], spacing_mm: Sequence[float], rng: np.random.Generator) -> None:
        # Python's floats leave float32 arrays float32; numpy's would widen them.
        size_mm, spacing_mm = [float(size) for size in size_mm], [float(step) for step in spacing_mm]
        shape = [round(size / spacing) for size, spacing in zip(size_mm, spacing_mm, strict=True)]
        self.hu = np.full(shape, -1000, np.float32)
        self.labels = np.zeros(shape, np.uint8)
        z, y, x = ((np.arange(n, dtype=np.float32) + 0.5) * step for n, step in zip(shape, spacing_mm, strict=True))
        self.z, self.y, self.x = z[:, None, None], y[:, None] - size_mm[1] / 2, x - size_mm[2] / 2
        self.spacing_mm = tuple(spacing_mm)
        # The ramp from organ to surroundings, as a soft-tissue kernel and the voxel size give it.
        self.edge_mm = max(2.0, max(spacing_mm))
        self.coarse, self.medium, self.fine = (
            smooth_field(shape, spacing_mm, grain_mm=grain_mm, rng=rng) for grain_mm in (25, 15, 9)
        )

    def box(self, centre: Sequence[float], reach_mm: float) -> tuple[slice, slice, slice]:
        """Slices (z, y, x) of the cube of half-width reach_mm around centre (x, y, z), cut to the grid."""
        slices = []
        for middle, axis in zip(reversed(centre), (self.z, self.y, self.x), strict=True):
            low, high = np.searchsorted(axis.ravel(), (middle - reach_mm, middle + reach_mm))
            slices.append(slice(int(low), int(high)))
        return tuple(slices)

    def alpha(self, distance: np.ndarray) -> np.ndarray:
        """Share of the voxel inside: 1 inside, 0 outside, 0.5 on the surface."""
        return np.clip(0.5 - distance / self.edge_mm, 0, 1)

    def paint(self, distance: np.ndarray, hu: float | np.ndarray, *, label: int = 0) -> None:
        """Covers what is inside with these HU and this label."""
        distance = np.broadcast_to(distance, self.hu.shape)
        touched = distance < self.edge_mm / 2
        alpha = self.alpha(distance[touched])
        below = self.hu[touched]
        hu = np.broadcast_to(np.asarray(hu, np.float32), self.hu.shape)[touched]
        self.hu[touched] = below + alpha * (hu - below)
        labels = self.labels[touched]
        labels[alpha >= 0.5] = label
        self.labels[touched] = labels

    def ellipsoid(
        self, centre: Sequence[float], semi_axes: Sequence[float], *, turn_degrees: Sequence[float] = (0, 0, 0)
    ) -> np.ndarray:
        """Distance to an ellipsoid with semi-axes (x, y, z), turned about x, then y, then z; FAR_MM far from it."""
        from scipy.spatial.transform import Rotation

        centre = [float(value) for value in centre]
        box = self.box(centre, max(semi_axes) + MARGIN_MM)
        x, y, z = self.x[box[2]] - centre[0], self.y[box[1]] - centre[1], self.z[box[0]] - centre[2]
        axes = Rotation.from_euler("xyz", turn_degrees, degrees=True).as_matrix().T.tolist()
        near = far = np.float32(0)
        for axis, semi_axis in zip(axes, semi_axes, strict=True):
            along = (x * axis[0] + y * axis[1] + z * axis[2]) / float(semi_axis)
            near = near + along**2
            far = far + (along / float(semi_axis)) ** 2
        near = np.sqrt(near)
        return self._far_but(box, near * (near - 1) / np.sqrt(far + 1e-12))

    def column(self, centre: Sequence[float], semi_axes: Sequence[float]) -> np.ndarray:
        """Distance (1, y, x) to an upright elliptic cylinder with centre and semi-axes (x, y)."""
        x, y = (self.x - centre[0]) / semi_axes[0], (self.y - centre[1]) / semi_axes[1]
        near = np.sqrt(x**2 + y**2)
        return (near * (near - 1) / np.sqrt((x / semi_axes[0]) ** 2 + (y / semi_axes[1]) ** 2 + 1e-12))[None]

    def tube(self, points: Sequence[Sequence[float]], radii: Sequence[float]) -> np.ndarray:
        """Distance to a bent tube through the points (n, 3) with these radii; FAR_MM far from it."""
        points = np.asarray(points, float)
        distance = np.full(self.hu.shape, FAR_MM, np.float32)
        for start, end, radius, next_radius in zip(points, points[1:], radii, radii[1:], strict=False):
            box, piece = self.tube_piece(start, end, float(radius), float(next_radius), margin_mm=MARGIN_MM)
            np.minimum(distance[box], piece, out=distance[box])
        return distance

    def tube_piece(
        self, start: np.ndarray, end: np.ndarray, radius: float, next_radius: float, *, margin_mm: float
    ) -> tuple[tuple[slice, slice, slice], np.ndarray]:
        """A box around one straight piece of tube, and the distances within it."""
        box = self.box((start + end) / 2, np.linalg.norm(end - start) / 2 + max(radius, next_radius) + margin_mm)
        start, along = start.tolist(), (end - start).tolist()
        x, y, z = self.x[box[2]] - start[0], self.y[box[1]] - start[1], self.z[box[0]] - start[2]
        share = (x * along[0] + y * along[1] + z * along[2]) / sum(step * step for step in along)
        share = np.clip(share, 0, 1)
        square = (x - share * along[0]) ** 2 + (y - share * along[1]) ** 2 + (z - share * along[2]) ** 2
        return box, np.sqrt(square) - (radius + share * (next_radius - radius))

    def _far_but(self, box: tuple[slice, slice, slice], distance: np.ndarray) -> np.ndarray:
        whole = np.full(self.hu.shape, FAR_MM, np.float32)
        whole[box] = distance
        return whole


def smooth_field(shape, spacing_mm, *, grain_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Random float32 field (z, y, x) of about unit standard deviation, smooth over grain_mm."""
    from scipy.ndimage import gaussian_filter, zoom

    step = np.maximum(grain_mm / 3 / np.asarray(spacing_mm), 1)
    coarse_shape = np.ceil(np.asarray(shape) / step).astype(int) + 2
    coarse = gaussian_filter(rng.standard_normal(coarse_shape, np.float32), 1.3)
    field = zoom(coarse / coarse.std(), step, order=1)
    return field[tuple(slice(n) for n in shape)]


def smooth_union(first: np.ndarray, second: np.ndarray, *, radius_mm: float) -> np.ndarray:
    """Union of two bodies given by distances, with the crease between them rounded."""
    overlap = np.maximum(radius_mm - np.abs(first - second), 0)
    return np.minimum(first, second) - overlap**2 / (4 * radius_mm)


def smooth_max(first: np.ndarray, second: np.ndarray, *, radius_mm: float) -> np.ndarray:
    """Intersection of two bodies given by distances, with its edge rounded."""
    return -smooth_union(-first, -second, radius_mm=radius_mm)


def without(body: np.ndarray, other: np.ndarray, *, gap_mm: float = 0.0) -> np.ndarray:
    """The body less the other one and a gap around it."""
    return np.maximum(body, gap_mm - other)


def in_one_piece(body: np.ndarray) -> np.ndarray:
    """The body without what is cut off from its largest part."""
    from scipy.ndimage import label

    pieces, count = label(body < 0)
    sizes = np.bincount(pieces.ravel())[1:]
    stray = (pieces > 0) & (pieces != np.argmax(sizes) + 1)
    return np.where(stray, FAR_MM, body) if count > 1 else body
