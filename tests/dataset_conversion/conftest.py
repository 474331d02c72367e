import json

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """An empty nnUNet_raw; the other two variables are unset."""
    folder = tmp_path / "nnUNet_raw"
    folder.mkdir()
    monkeypatch.setenv("nnUNet_raw", str(folder))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    monkeypatch.delenv("nnUNet_results", raising=False)
    return folder


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
        folder.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image((hu * scale).astype(np.int16), affine), folder / f"{ct}{suffix}")
        nib.save(nib.Nifti1Image(label, affine), folder / f"{labels}{suffix}")
        if label_map is not None:
            (folder / "label_map.json").write_text(json.dumps(label_map))
        return folder

    return save
