"""Cases of healthy pools in a preprocessed dataset: beside nnU-Net's own cases, not among them.

nnU-Net's trainers take every case in their folder for `-f all` and for folds that splits_final.json does not have, and
its preprocessing empties that folder. In a folder of their own, pools are seen by the trainers of this package only.
"""

from collections.abc import Sequence
from pathlib import Path

from nnunet_difftumor.prepared.nnunet.preprocessed_dataset import PreprocessedDataset

_FOLDER = "difftumor_pools"


def pools_folder(dataset_folder: str | Path) -> Path:
    """Holds a folder per preprocessed configuration, `pools.json` and `made_from/`."""
    return Path(dataset_folder) / _FOLDER


def pool_list(dataset_folder: str | Path) -> Path:
    """The file with the names of a dataset's healthy pools; there is none without pools."""
    return pools_folder(dataset_folder) / "pools.json"


class PooledDataset(PreprocessedDataset):
    """nnU-Net's dataset with the cases of the healthy pools.

    Args:
        folder: of the preprocessed configuration (`nnUNet_preprocessed/DatasetXXX_NAME/DATA_IDENTIFIER`).
        identifiers: of cases, of the dataset or of a pool; None: all.
    """

    def __init__(self, folder: str, identifiers: Sequence[str] | None = None) -> None:
        pools = pools_folder(Path(folder).parent) / Path(folder).name
        self.pooled = frozenset(self.get_identifiers(str(pools)) if pools.is_dir() else ())
        if identifiers is None:
            identifiers = [*self.get_identifiers(folder), *self.pooled]
        super().__init__(folder, list(identifiers))
        self._pools = PreprocessedDataset(str(pools), sorted(self.pooled))

    def load_case(self, identifier: str):
        return self._pools.load_case(identifier) if identifier in self.pooled else super().load_case(identifier)

    def path(self, identifier: str) -> Path:
        """The file with the case's image."""
        return Path((self._pools if identifier in self.pooled else self).source_folder, f"{identifier}.b2nd")
