"""Raw datasets that are not CT in HU are refused, and no plans are kept that were made with them."""

import json
import os
import shutil

import ct_files
import nibabel as nib
import numpy as np
import pytest

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.preparation.preprocessing.raw_images import check_case_hu

LABELS = {"background": 0, "liver": 1, "liver_tumor": 2}


def body_with_liver(seed=0) -> tuple[np.ndarray, np.ndarray]:
    """HU and labels (z, y, x): every tissue, and a smooth liver with a tumor whose voxels run from 40 to 150 HU."""
    hu = ct_files.body_hu((20, 20, 20), seed).astype(np.float32)
    labels = np.zeros(hu.shape, np.uint8)
    labels[5:15, 5:15, 5:15], labels[8:10, 8:10, 8:10] = 1, 2
    rng = np.random.default_rng(seed)
    hu[labels == 1] = np.clip(rng.normal(110, 10, np.count_nonzero(labels == 1)), 80, 150)
    hu[labels == 2] = rng.uniform(40, 60, 8)
    return np.rint(hu), labels


def test_a_smooth_organ_in_hu_passes():
    hu, labels = body_with_liver()
    assert hu[labels > 0].min() >= 40 and hu[labels > 0].max() <= 150
    check_case_hu(hu, labels, {"labels": LABELS}, where="case")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda hu: np.clip((hu + 175) * 0.6, 0, 255), "not grey values from 0 to 255"),
        (lambda hu: (hu - hu.mean()) / hu.std(), "less than 100 HU apart"),
        (lambda hu: hu * 0, "less than 100 HU apart"),
        (lambda hu: np.maximum(hu, -1024) + 1024, "lack their intercept"),
        (lambda hu: np.where(np.indices(hu.shape)[0] < 2, -900, hu + 1024), "liver median 113. HU.*subtract 1024"),
        (lambda hu: hu - 1024, r"applied twice|liver median -91"),
    ],
)
def test_rescaled_images_are_refused(change, reason):
    hu, labels = body_with_liver()
    with pytest.raises(InputError, match=f"^case: .*{reason}"):
        check_case_hu(change(hu), labels, {"labels": LABELS}, where="case")


@pytest.mark.slow
def test_the_command_refuses_a_case_without_its_intercept_and_keeps_no_plans(
    prepared_phantom, nnunet_folders, capsys, monkeypatch
):
    """Plans hold statistics of all cases: those that were made with this one would outlive its mending."""
    raw, folder = (nnunet_folders / part / "Dataset505_Offset" for part in ("raw", "preprocessed"))
    # Loaders in the process itself, as some set it for all commands.
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    shutil.copytree(prepared_phantom.raw, raw, ignore=shutil.ignore_patterns("phantom_00[023]*"))
    try:
        dataset_json = json.loads((raw / "dataset.json").read_text())
        (raw / "dataset.json").write_text(json.dumps({**dataset_json, "numTraining": 3}))
        path = raw / "imagesTr" / "phantom_001_0000.nii.gz"
        image = nib.load(path)
        hu = np.asarray(image.dataobj)
        stored = np.where(hu < -1000, -2000, np.maximum(hu, -1024) + 1024).astype(np.int16)
        nib.save(nib.Nifti1Image(stored, image.affine, image.header), path)
        assert main(["prepare", "-d", "505", "-np", "1"]) == 2
        error = capsys.readouterr().err
        assert "phantom_001_0000.nii.gz" in error and "intercept" in error
        assert os.environ["nnUNet_n_proc_DA"] == "0"
        left = {path.name for path in folder.iterdir()}
        assert not left & {"difftumor.json", "nnUNetPlansDiffTumor.json", "dataset_fingerprint.json"}
    finally:
        shutil.rmtree(raw)
        shutil.rmtree(folder, ignore_errors=True)
