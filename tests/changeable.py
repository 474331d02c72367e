"""A prepared dataset that a test may change, raw and preprocessed."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

ARRAYS = "nnUNetPlansDiffTumor_3d_fullres"
# What the phantoms are prepared with.
REQUEST = ("--spacing", "4", "3", "3", "--patch-size", "32", "32", "32")


@dataclass(frozen=True)
class ChangeableDataset:
    """A prepared dataset that a test may change."""

    raw: Path
    folder: Path

    @property
    def arrays(self) -> Path:
        return self.folder / ARRAYS

    def image(self, case: str) -> Path:
        return self.raw / "imagesTr" / f"{case}_0000.nii.gz"

    def label(self, case: str) -> Path:
        return self.raw / "labelsTr" / f"{case}.nii.gz"

    def mend(self, case: str, *, old: int, new: int) -> None:
        """Redraws a label."""
        image = nib.load(self.label(case))
        values = np.asarray(image.dataobj).copy()
        assert (values == old).any()
        values[values == old] = new
        nib.save(nib.Nifti1Image(values, image.affine, image.header), self.label(case))

    def add(self, case: str, *, like: str) -> None:
        shutil.copy(self.image(like), self.image(case))
        shutil.copy(self.label(like), self.label(case))
        self.count()

    def withdraw(self, case: str) -> None:
        self.image(case).unlink()
        self.label(case).unlink()
        self.count()

    def count(self) -> None:
        self.write(numTraining=len(list((self.raw / "imagesTr").iterdir())))

    def write(self, **values) -> None:
        path = self.raw / "dataset.json"
        content = {**json.loads(path.read_text()), **values}
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    def splits(self) -> list[dict]:
        return json.loads((self.folder / "splits_final.json").read_text())

    def times(self) -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in sorted((self.folder / ARRAYS).iterdir())}

    def names_of(self, case: str) -> list[str]:
        """Every file that speaks of a case."""
        return [str(path) for path in self.folder.rglob("*") if path.is_file() and path.name.startswith(f"{case}.")]

    def texts_about(self, case: str) -> list[str]:
        """Every text in the preprocessed dataset that names a case."""
        return [str(path) for path in self.folder.rglob("*.json") if case in path.read_text()]


def start(dataset: ChangeableDataset) -> list[str]:
    """Begins a training; returns what it wrote into its log before its loaders began."""
    from trainer_of import trainer_of

    from nnunet_difftumor.trainers.tiny import nnUNetTrainerDiffTumorTiny

    trainer = trainer_of(dataset.folder, nnUNetTrainerDiffTumorTiny)
    said: list[str] = []
    trainer.print_to_log_file = lambda *words, **_: said.append(" ".join(map(str, words)))
    trainer.get_dataloaders = None  # where nnU-Net's own start begins
    with pytest.raises(TypeError, match="NoneType"):
        trainer.on_train_start()
    return said
