import json
import multiprocessing.dummy
from dataclasses import dataclass
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture
def save_case():
    """Writes a small CT with a label map, x, y, z, whose values are the ones given; returns its folder."""

    def save(folder, *, values=(1, 2), scale=1.0, label_map=None, suffix=".nii.gz", ct="ct", labels="labels"):
        rng = np.random.default_rng(0)
        affine = np.diag([-1.5, -1.5, 3.0, 1.0])
        hu = rng.choice([-1000, -100, 55, 110, 400], (12, 10, 8)) + rng.integers(-30, 30, (12, 10, 8))
        label = np.zeros(hu.shape, np.uint8)
        for number, value in enumerate(values):
            label[2 + number, 3:6, 2:5] = value
        hu[label > 0] = rng.integers(70, 130, np.count_nonzero(label))
        folder.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image((hu * scale).astype(np.int16), affine), folder / f"{ct}{suffix}")
        nib.save(nib.Nifti1Image(label, affine), folder / f"{labels}{suffix}")
        if label_map is not None:
            (folder / "label_map.json").write_text(json.dumps(label_map))
        return folder

    return save


@dataclass(frozen=True)
class Miniature:
    """A small CT with an organ that looks like a liver; arrays x, y, z."""

    hu: np.ndarray
    organ: np.ndarray
    tumor: np.ndarray
    affine: np.ndarray

    def save(self, path, values, *, affine=None, dtype=np.int16):
        """Writes an array of this size, by default on this grid."""
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(values.astype(dtype), self.affine if affine is None else affine), path)


@pytest.fixture
def miniature():
    """Makes a CT: fat, with air on one side, an organ of 100 HU in it and a tumor of 60 HU in the organ."""

    def make(*, affine=((-2, 0, 0, 40), (0, -2, 0, 30), (0, 0, 3, -400), (0, 0, 0, 1))):
        rng = np.random.default_rng(0)
        x, y, z = np.ogrid[:24, :20, :16]
        organ = ((x - 8) / 6) ** 2 + ((y - 8) / 5) ** 2 + ((z - 7) / 4) ** 2 <= 1
        tumor = ((x - 8) / 2) ** 2 + ((y - 8) / 2) ** 2 + ((z - 7) / 1.5) ** 2 <= 1
        hu = np.where((x > 16) | (y > 15), -1000, -100) + 0 * z
        hu[organ], hu[tumor] = 100, 60
        return Miniature(hu + rng.integers(-15, 16, hu.shape), organ, tumor, np.asarray(affine, float))

    return make


@pytest.fixture
def verify(monkeypatch):
    """nnU-Net's own check of a raw dataset, in a thread instead of a new process, which takes seconds to start."""

    def run(dataset):
        from nnunetv2.experiment_planning import verify_dataset_integrity as module

        with monkeypatch.context() as patch:
            threads = SimpleNamespace(get_context=lambda method: multiprocessing.dummy)
            patch.setattr(module, "multiprocessing", threads)
            module.verify_dataset_integrity(str(dataset), num_processes=1)

    return run


@pytest.fixture
def report_of():
    """The conversion report of a dataset."""
    return lambda dataset: json.loads((dataset / "conversion_report.json").read_text())


@pytest.fixture
def totalsegmentator_like(test_data):
    """Splits the label map of the real `abdomen_3mm` into one file for each organ, as TotalSegmentator writes them."""

    def write(case):
        (case / "segmentations").mkdir(parents=True)
        (case / "ct.nii.gz").symlink_to(test_data / "abdomen_3mm" / "ct.nii.gz")
        label_map = nib.load(test_data / "abdomen_3mm" / "labels.nii.gz")
        values = np.asarray(label_map.dataobj)
        names = {"spleen": 1, "kidney_right": 2, "kidney_left": 3, "liver": 5, "pancreas": 7}
        for name, value in names.items():
            mask = nib.Nifti1Image((values == value).astype(np.uint8), label_map.affine)
            nib.save(mask, case / "segmentations" / f"{name}.nii.gz")

    return write
