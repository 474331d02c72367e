"""Raw datasets that are damaged or not CT in HU are refused before anything is planned, whatever reader they have."""

import shutil
from types import SimpleNamespace

import ct_files
import numpy as np
import pytest
import SimpleITK

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.preparation.raw_images import check_case_hu, check_raw_case

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


@pytest.fixture(params=[".nii.gz", ".mha", ".nrrd"])
def raw_case(request, tmp_path):
    """Image and label map of one case in each of nnU-Net's formats, compressed."""
    files = [str(tmp_path / f"{name}{request.param}") for name in ("a_0000", "a")]
    for path, voxels in zip(files, body_with_liver(), strict=True):
        image = SimpleITK.GetImageFromArray(voxels.astype(np.int16))
        image.SetSpacing((2, 2, 3))
        SimpleITK.WriteImage(image, path, True)
    dataset_json = {"labels": LABELS, "file_ending": request.param}
    return SimpleNamespace(image=files[0], label=files[1], dataset_json=dataset_json)


def test_a_whole_case_of_any_format_passes(raw_case):
    check_raw_case(raw_case.image, raw_case.label, raw_case.dataset_json)


@pytest.mark.parametrize("which", ["image", "label"])
def test_a_damaged_file_of_any_format_is_named(raw_case, which):
    path = getattr(raw_case, which)
    with open(path, "rb+") as file:
        file.truncate(file.seek(0, 2) - 3)
    with pytest.raises(InputError, match=rf"{path}: .*damaged"):
        check_raw_case(raw_case.image, raw_case.label, raw_case.dataset_json)


@pytest.mark.slow
def test_the_command_refuses_a_case_without_its_intercept(prepared_phantom, nnunet_folders, capsys):
    raw = nnunet_folders / "raw" / "Dataset505_Offset"
    shutil.copytree(prepared_phantom.raw, raw)
    try:
        path = raw / "imagesTr" / "phantom_001_0000.nii.gz"
        image = SimpleITK.ReadImage(str(path))
        hu = SimpleITK.GetArrayFromImage(image)
        stored = np.where(hu < -1000, -2000, np.maximum(hu, -1024) + 1024).astype(np.int16)
        offset = SimpleITK.GetImageFromArray(stored)
        offset.CopyInformation(image)
        SimpleITK.WriteImage(offset, str(path))
        assert main(["prepare", "-d", "505", "-np", "1"]) == 2
        error = capsys.readouterr().err
        assert "phantom_001_0000.nii.gz" in error and "intercept" in error
        assert not (nnunet_folders / "preprocessed" / "Dataset505_Offset" / "difftumor.json").exists()
    finally:
        shutil.rmtree(raw)
        shutil.rmtree(nnunet_folders / "preprocessed" / "Dataset505_Offset", ignore_errors=True)
