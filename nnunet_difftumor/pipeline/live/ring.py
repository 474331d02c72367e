"""The newest lesions of a server, kept as lesion files: a bank that fills while training runs."""

from collections import Counter
from pathlib import Path

from nnunet_difftumor.synthesis.lesion_file import SUFFIX, write_lesion
from nnunet_difftumor.synthesis.patch import Patch, RenderedTumor
from nnunet_difftumor.synthesis.volume import Box, box_within


class LesionRing:
    """Writes `FOLDER/CASE/live_NAME_NUMBER.lesion.npz`, the oldest of a case being replaced first.

    Args:
        folder: of the bank.
        size: files of each case.
        name: of the writer; several trainings may write into one bank.
    """

    def __init__(self, folder: str | Path, *, size: int, name: str) -> None:
        self.folder, self.size, self.name = Path(folder), size, name
        self._written: Counter = Counter()

    def write(self, case: str, patch: Patch, tumor: RenderedTumor) -> None:
        """Writes one lesion.

        Raises:
            OSError: if it cannot be written; files that are there stay whole.
        """
        number = self._written[case] % self.size
        write_lesion(self.folder / case / f"live_{self.name}_{number:04d}{SUFFIX}", tumor, _PatchVolume(patch))
        self._written[case] += 1


class _PatchVolume:
    """As much of a scan as was sent to the server."""

    def __init__(self, patch: Patch) -> None:
        self._patch = patch
        self.shape, self.spacing_mm, self.direction = patch.scan_shape, patch.spacing_mm, patch.direction

    def hu(self, box: Box):
        return self._patch.hu[box_within(box, self._patch.box)]

    def labels(self, box: Box):
        return self._patch.labels[box_within(box, self._patch.box)]
