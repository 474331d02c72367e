"""Organ statistics of a prepared dataset: one small file per case and organ, measured once, read while training."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import write_json
from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.stored import read_arrays

_PARENCHYMA = "parenchyma_hu"


class StatisticsStore:
    """The folder of organ statistics that belongs to one preprocessed configuration.

    Args:
        dataset_folder: of the preprocessed dataset (`nnUNet_preprocessed/DatasetXXX_NAME`).
        data_identifier: of the preprocessed configuration, as in the plans.
    """

    def __init__(self, dataset_folder: str | Path, data_identifier: str) -> None:
        # Beside the preprocessed cases, not among them: nnU-Net takes every file there for a case.
        self.folder = Path(dataset_folder) / "difftumor_statistics" / data_identifier

    def path(self, case: str, organ: str) -> Path:
        return self.folder / organ / f"{case}.npz"

    def cases(self, organ: str) -> set[str]:
        """Names of the cases that have the organ."""
        return {path.stem for path in (self.folder / organ).glob("[!.]*.npz")}

    def measure(
        self, case: str, hu: np.ndarray, labels: np.ndarray, *, organs: Iterable[Organ], spacing_mm: tuple[float, ...]
    ) -> list[str]:
        """Measures and stores every organ that the case has; returns their names.

        Raises:
            InputError: naming the case, for a hollow organ that is too thin.
        """
        present = []
        for organ in organs:
            if organ.mask(labels).any():
                try:
                    statistics = OrganStatistics.measure(hu, labels, organ=organ, spacing_mm=spacing_mm)
                except InputError as error:
                    raise InputError(f"case {case}: {error}") from error
                statistics.save(self.path(case, organ.name))
                present.append(organ.name)
        return present

    def recorded(self) -> set[str]:
        """Names of the cases that were measured, whether they have an organ or not."""
        return {path.name.removesuffix(".json") for path in self.folder.glob("[!.]*.json")}

    def read_record(self, case: str) -> dict[str, Any]:
        """What `write_record` wrote; empty if there is none, or a damaged one."""
        try:
            record = load_json(self.folder / f"{case}.json")
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def write_record(self, case: str, record: Mapping[str, Any]) -> None:
        """Says what was measured of a case, after it was."""
        write_json(self.folder / f"{case}.json", record)

    def are_readable(self, case: str, organs: Iterable[str]) -> bool:
        """Whether the statistics of these organs are there and whole."""
        try:
            for organ in organs:
                OrganStatistics.load(self.path(case, organ))
        except (OSError, InputError):
            return False
        return True

    def forget(self, case: str) -> None:
        """Removes all that is known of a case, the record first."""
        (self.folder / f"{case}.json").unlink(missing_ok=True)
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            if folder.is_dir():
                (folder / f"{case}.npz").unlink(missing_ok=True)

    def parenchyma_hu(self, case: str, organ: str) -> float:
        """Mean of one organ without vessels in one case, read without the large arrays beside it."""
        return float(read_arrays(self.path(case, organ), keys={_PARENCHYMA}, what="organ statistics")[_PARENCHYMA])

    def load(self, case: str, organ: str) -> OrganStatistics:
        """Reads the statistics of one organ in one case; the last few stay in memory."""
        path = self.path(case, organ)
        try:
            # `prepare` may have written the file again since it was read.
            return _load(path, path.stat().st_mtime_ns)
        except (OSError, InputError) as error:
            raise InputError(f"{path}: cannot be read ({error}); run `difftumor prepare` again") from error


@lru_cache(maxsize=16)
def _load(path: Path, changed_ns: int) -> OrganStatistics:
    return OrganStatistics.load(path)
