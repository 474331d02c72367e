"""What a diffusion model sees of a scan around a tumor, known from its description alone: no network is needed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.networks.grid import NetworkGrid, grid_around
from nnunet_difftumor.synthesis.networks.sketch import Sketch, sketch_of
from nnunet_difftumor.synthesis.patch import Patch, Site
from nnunet_difftumor.synthesis.shape.survey import region_of, survey
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import Box, Volume

# The networks see of the scan what they were trained on, and more for tumors that come closer than this to the rim.
CONTEXT_MM = 8.0


@dataclass(frozen=True)
class NetworkView:
    """The grid that a model works on.

    Attributes:
        axes: of the network, for example SRA (see `generative.weights.Volumes`).
        spacing_mm: along the network's axes.
        least_size: voxels of the patch that the model was trained on.
        multiples: a patch has a multiple of these voxels.
    """

    axes: str
    spacing_mm: tuple[float, float, float]
    least_size: tuple[int, int, int]
    multiples: tuple[int, int, int]

    def grid(self, spec: TumorSpec, spacing_mm: Sequence[float], direction: np.ndarray | None) -> NetworkGrid:
        """The patch around a tumor.

        Args:
            spec: the tumor.
            spacing_mm: the scan's voxel size, (z, y, x).
            direction: as in `Volume`.

        Raises:
            InputError: for a scan of unknown orientation.
        """
        if direction is None:
            raise InputError(
                "the scan's direction is not known, so the networks cannot be shown the patient as they know it; give "
                "the volume its direction"
            )
        # What is blended has a margin of two voxels, and the grid stands on one, up to half a voxel from the centre.
        context = np.maximum(CONTEXT_MM, 4 * np.asarray(spacing_mm))
        # As `region_of`, a wall has its surface in the picture.
        reach = survey(spec).half_extents_mm.max(0) + spec.wall_mm + context
        return grid_around(
            spec.centre_mm,
            extent_mm=2 * reach,
            spacing_mm=spacing_mm,
            direction=direction,
            axes=self.axes,
            network_spacing_mm=self.spacing_mm,
            least_size=self.least_size,
            multiples=self.multiples,
        )

    def region(self, volume: Volume, spec: TumorSpec) -> Box:
        """What a renderer must see of a scan: the networks' patch, and what mass effect reaches."""
        grid = self.grid(spec, volume.spacing_mm, volume.direction)
        boxes = grid.box(volume.shape), region_of(spec, volume.shape, volume.spacing_mm)
        return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(*boxes, strict=True))

    def sketch(self, site: Site, patch: Patch) -> Sketch:
        """What the networks are told of a tumor that has room, with a patch of `region`."""
        return sketch_of(site, patch, self.grid(site.spec, patch.spacing_mm, patch.direction))
