"""The newest lesions of a training, kept as lesion files: a bank that fills while training runs."""

from dataclasses import dataclass
from pathlib import Path

from nnunet_difftumor.synthesis.lesion_file import SUFFIX, write_lesion
from nnunet_difftumor.synthesis.patch import Patch, RenderedTumor
from nnunet_difftumor.synthesis.volume import Box, box_within


@dataclass(frozen=True)
class LesionRing:
    """Writes `FOLDER/CASE/live_NAME_PLACE.lesion.npz`.

    The server, which draws for all workers, says which place a lesion gets, so that the oldest of a case goes first.

    Attributes:
        folder: of the bank.
        name: of the training's process; several may write into one bank.
    """

    folder: Path
    name: str

    def write(self, case: str, place: int, patch: Patch, tumor: RenderedTumor) -> None:
        """Writes one lesion.

        Args:
            case: its identifier.
            place: among those of the case.
            patch: the scan without the tumor.
            tumor: rendered into the patch.

        Raises:
            OSError: if it cannot be written; files that are there stay whole.
        """
        path = self.folder / case / f"live_{self.name}_{place:04d}{SUFFIX}"
        write_lesion(path, tumor, PatchVolume(patch))


class PatchVolume:
    """As much of a scan as a patch has."""

    def __init__(self, patch: Patch) -> None:
        self._patch = patch
        self.shape, self.spacing_mm, self.direction = patch.scan_shape, patch.spacing_mm, patch.direction

    def hu(self, box: Box):
        return self._patch.hu[box_within(box, self._patch.box)]

    def labels(self, box: Box):
        return self._patch.labels[box_within(box, self._patch.box)]
