"""LiTS in its own layout: what is taken, and the flaws of headers and masks that reject a case."""

import nibabel as nib
import numpy as np
import pytest

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.dataset_conversion.lits import convert
from nnunet_difftumor.errors import InputError


@pytest.fixture
def save(tmp_path, miniature):
    """Writes volume-N and segmentation-N, and returns the miniature."""

    def write(number, folder="Training Batch 1", *, suffix=".nii", affine=None, mask_affine=None, flip=False, offset=0):
        case = miniature() if affine is None else miniature(affine=affine)
        mask = case.organ.astype(int) + case.tumor
        parent = tmp_path / "LiTS" / folder
        case.save(parent / f"volume-{number}{suffix}", case.hu + offset)
        case.save(
            parent / f"segmentation-{number}{suffix}",
            mask[..., ::-1] if flip else mask,
            affine=mask_affine,
            dtype=np.uint8,
        )
        return case

    return write


def test_both_batches_become_one_dataset_that_nnunet_accepts(tmp_path, raw, save, verify, report_of):
    save(0)
    save(27, suffix=".nii.gz")
    case = save(130, "Training Batch 2")
    (tmp_path / "LiTS" / "Training Batch 2" / "._volume-130.nii").write_bytes(b"left by macOS")
    case.save(tmp_path / "LiTS" / "test-volume-3.nii", case.hu)
    assert main(["convert", "lits", "-i", str(tmp_path / "LiTS"), "-d", "17"]) == 0
    dataset = raw / "Dataset017_LiTS"
    report = report_of(dataset)
    assert list(report["cases"]) == ["lits_000", "lits_027", "lits_130"] and not report["rejected"]
    assert report["labels"] == {"background": 0, "liver": 1, "liver_tumor": 2}
    image = nib.load(dataset / "imagesTr" / "lits_130_0000.nii.gz")
    np.testing.assert_array_equal(image.dataobj, case.hu)
    np.testing.assert_array_equal(image.affine, case.affine)
    np.testing.assert_array_equal(
        nib.load(dataset / "labelsTr" / "lits_130.nii.gz").dataobj, case.organ + 1 * case.tumor
    )
    verify(dataset)


def test_flawed_cases_are_rejected_with_their_reasons(tmp_path, raw, save, report_of):
    save(0)
    save(1, flip=True)
    save(2, mask_affine=np.diag([2.0, -2.0, 3.0, 1.0]))
    save(3, offset=1024)
    save(4, offset=-300)
    save(5, affine=np.eye(4))
    (tmp_path / "LiTS/Training Batch 1/segmentation-6.nii").write_bytes(b"")
    save(7)
    (tmp_path / "LiTS/Training Batch 1/segmentation-7.nii").unlink()
    save(8)
    save(8, "again")
    rejected = report_of(convert(tmp_path / "LiTS", 17))["rejected"]
    expected = {
        "lits_001": "seems to be flipped",
        "lits_002": "orientation",
        "lits_003": "no voxel here is below 0",
        "lits_004": "liver median -20",
        "lits_005": "state the voxel size",
        "lits_007": "expected one volume and one segmentation",
        "lits_008": "expected one volume and one segmentation",
    }
    assert set(rejected) == set(expected)
    for case, reason in expected.items():
        assert reason in rejected[case]


def test_a_segmentation_without_a_header_is_taken_voxel_for_voxel_if_the_liver_is_there(tmp_path, raw, save, report_of):
    unset = [[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1]]
    case = save(53, mask_affine=np.array(unset, float))
    save(54, mask_affine=np.array(unset, float), flip=True)
    dataset = convert(tmp_path / "LiTS", 17)
    report = report_of(dataset)
    assert "header was never set" in report["cases"]["lits_053"]["note"]
    assert "seems to be flipped" in report["rejected"]["lits_054"]
    labels = nib.load(dataset / "labelsTr" / "lits_053.nii.gz")
    np.testing.assert_array_equal(labels.dataobj, case.organ + 1 * case.tumor)
    np.testing.assert_array_equal(labels.affine, case.affine)


def test_unknown_spacing_is_taken_on_request(tmp_path, raw, save, report_of):
    save(28, affine=np.eye(4))
    with pytest.raises(InputError, match="sizes in mm are unknown"):
        convert(tmp_path / "LiTS", 17)
    assert main(["convert", "lits", "-i", str(tmp_path / "LiTS"), "-d", "17", "--spacing", "1", "1", "1"]) == 0
    assert report_of(raw / "Dataset017_LiTS")["cases"]["lits_028"]["spacing_mm"] == [1, 1, 1]


def test_a_folder_without_volumes_is_named(tmp_path, raw):
    with pytest.raises(InputError, match="no volume-N"):
        convert(tmp_path, 17)


@pytest.mark.slow
def test_a_real_scan_with_metastases_converts_and_its_flipped_mask_does_not(tmp_path, raw, test_data, report_of):
    ct, labels = (nib.load(test_data / "liver_tumors" / f"{name}.nii.gz") for name in ("ct", "labels"))
    mask = np.asarray(labels.dataobj)
    for number, turned in enumerate((mask, mask[::-1], mask[:, ::-1], mask[:, :, ::-1])):
        (tmp_path / f"volume-{number}.nii.gz").symlink_to(test_data / "liver_tumors" / "ct.nii.gz")
        nib.save(nib.Nifti1Image(turned, ct.affine), tmp_path / f"segmentation-{number}.nii.gz")
    report = report_of(convert(tmp_path, 17))
    assert list(report["cases"]) == ["lits_000"]
    assert report["cases"]["lits_000"]["volume_ml"]["liver_tumor"] > 50
    assert all("seems to be flipped" in reason for reason in report["rejected"].values())
    assert len(report["rejected"]) == 3
