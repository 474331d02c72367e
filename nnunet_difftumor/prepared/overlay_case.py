"""A preprocessed case with synthetic tumors on top: for us a volume in HU, for nnU-Net two arrays that it crops."""

from typing import Any

import numpy as np

from nnunet_difftumor.prepared.grid import PreparedGrid
from nnunet_difftumor.prepared.intensity import CTIntensity
from nnunet_difftumor.synthesis.patch import RenderedTumor
from nnunet_difftumor.synthesis.volume import Box


class OverlayArray:
    """An array (c, z, y, x) on disk with changed voxels on top. nnU-Net only asks for its shape and slices it."""

    def __init__(self, base: Any) -> None:
        self.base = base
        self.shape, self.dtype, self.ndim = base.shape, base.dtype, len(base.shape)
        self._changes: list[tuple[Box, np.ndarray, np.ndarray]] = []

    def change(self, box: Box, values: np.ndarray, where: np.ndarray) -> None:
        """Puts `values` (z, y, x) on top of every channel of the box, where the boolean `where` says so."""
        self._changes.append((box, values, where))

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        result = self.base[index]
        if not result.flags.owndata:  # blosc2 decompresses into a new array; a plain one gives a view
            result = result.copy()
        asked = [part.indices(size)[:2] for part, size in zip(index[1:], self.shape[1:], strict=True)]
        for box, values, where in self._changes:
            shared = [
                (max(first, part.start), min(last, part.stop)) for (first, last), part in zip(asked, box, strict=True)
            ]
            if any(first >= last for first, last in shared):
                continue
            target = tuple(slice(a - first, b - first) for (a, b), (first, _) in zip(shared, asked, strict=True))
            source = tuple(slice(a - part.start, b - part.start) for (a, b), part in zip(shared, box, strict=True))
            np.copyto(result[(slice(None), *target)], values[source], where=where[source])
        return result


class OverlayCase:
    """A preprocessed case as a `Volume`; pasted tumors are seen by whoever reads it afterwards.

    Attributes:
        identifier: nnU-Net's name of the case.
        shape: (z, y, x).
        spacing_mm: voxel size, (z, y, x).
        direction: as in `Volume`.
        data: float32 (1, z, y, x), normalized.
        seg: int16 (1, z, y, x).
    """

    def __init__(
        self,
        identifier: str,
        data: Any,
        seg: Any,
        *,
        spacing_mm: tuple[float, ...],
        intensity: CTIntensity,
        direction: np.ndarray | None = None,
    ) -> None:
        self.identifier = identifier
        self.shape = tuple(data.shape[1:])
        self.spacing_mm = tuple(spacing_mm)
        self.direction = direction
        self.data, self.seg = OverlayArray(data), OverlayArray(seg)
        self._intensity = intensity
        self._last: dict[str, tuple[Box, np.ndarray]] = {}

    @classmethod
    def of(cls, identifier: str, loaded: tuple[Any, ...], grid: PreparedGrid) -> "OverlayCase":
        """A case as nnU-Net's dataset loads it: data, segmentation, that of a previous stage, properties."""
        data, seg, _, properties = loaded
        return cls(
            identifier,
            data,
            seg,
            spacing_mm=grid.spacing_mm,
            intensity=grid.intensity,
            direction=grid.direction(properties),
        )

    def hu(self, box: Box) -> np.ndarray:
        return self._read("hu", box)

    def labels(self, box: Box) -> np.ndarray:
        return self._read("labels", box)

    def _read(self, what: str, box: Box) -> np.ndarray:
        """Reads a box, or returns the last one again: rendering and pasting ask for the same."""
        last, values = self._last.get(what, (None, None))
        if last != box:
            index = (slice(0, 1), *box)
            values = self._intensity.to_hu(self.data[index][0]) if what == "hu" else self.seg[index][0]
            values.flags.writeable = False
            self._last[what] = (box, values)
        return values

    def paste(self, tumor: RenderedTumor) -> None:
        """Puts a tumor on top. Voxels that it does not reach keep their exact value."""
        changed = tumor.hu != self.hu(tumor.box)
        relabelled = tumor.labels != self.labels(tumor.box)
        self.data.change(tumor.box, self._intensity.to_normalized(tumor.hu), changed)
        self.seg.change(tumor.box, tumor.labels, relabelled)
        self._last.clear()
