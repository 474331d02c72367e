"""nnU-Net's reader sees in a raw dataset what was checked: headers that it sees otherwise are rewritten."""

import gzip
import re
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.ct import read_ct
from nnunet_difftumor.dataset_conversion.checks.two_readers import difference_for_simpleitk
from nnunet_difftumor.evaluation.evaluate import evaluate


@pytest.fixture
def case(tmp_path, miniature):
    """A folder with one case of plain NIfTI files, and a function that changes bytes of both headers."""
    made, folder = miniature(), tmp_path / "in" / "a"
    made.save(folder / "ct.nii", made.hu)
    made.save(folder / "labels.nii", made.organ + 1 * made.tumor, dtype=np.uint8)

    def patch(at, form, *numbers):
        for name in ("ct", "labels"):
            content = bytearray((folder / f"{name}.nii").read_bytes())
            struct.pack_into(f"<{form}", content, at, *numbers)
            (folder / f"{name}.nii").write_bytes(content)

    patch.folder, patch.made = folder, made
    return patch


def convert(folder) -> None:
    for name in ("ct", "labels"):
        image = folder / f"{name}.nii"
        (folder / f"{name}.nii.gz").write_bytes(gzip.compress(image.read_bytes()))
    words = ["-i", str(folder.parent), "-d", "7", "--name", "A", "--labels", "liver=1", "liver_tumor=2"]
    assert main(["convert", "folder", *words]) == 0


def test_negative_voxel_sizes_are_written_again(case, raw, report_of):
    """ITK turns the axes, nibabel does not."""
    case(80, "3f", -2.0, -2.0, -3.0)
    scan = read_ct(case.folder / "ct.nii")
    assert "SimpleITK, puts voxels up to" in difference_for_simpleitk(case.folder / "ct.nii", scan.hu, scan.affine)
    convert(case.folder)
    dataset = raw / "Dataset007_A"
    assert "rewritten" in report_of(dataset)["cases"]["a"]["note"]
    for path, values in ((dataset / "imagesTr/a_0000.nii.gz", case.made.hu), (dataset / "labelsTr/a.nii.gz", None)):
        image = SimpleITK.ReadImage(str(path))
        assert image.GetDirection() == pytest.approx(np.eye(3).ravel())
        np.testing.assert_allclose(nib.load(path).affine, case.made.affine, atol=1e-5)
        if values is not None:
            np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), values.T)


def test_trailing_axes_are_not_in_the_dataset(case, raw):
    image = nib.load(case.folder / "ct.nii")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj).copy()[..., None], image.affine), case.folder / "ct.nii")
    convert(case.folder)
    path = raw / "Dataset007_A" / "imagesTr" / "a_0000.nii.gz"
    assert nib.load(path).shape == case.made.hu.shape
    np.testing.assert_array_equal(nib.load(path).dataobj, case.made.hu)


def test_what_both_see_alike_is_copied_and_predictions_of_it_are_evaluated(case, raw, tmp_path):
    convert(case.folder)
    dataset = raw / "Dataset007_A"
    assert (dataset / "imagesTr/a_0000.nii.gz").read_bytes() == (case.folder / "ct.nii.gz").read_bytes()
    # As nnU-Net writes a prediction: the geometry that SimpleITK saw in the image.
    image = SimpleITK.ReadImage(str(dataset / "imagesTr/a_0000.nii.gz"))
    predicted = SimpleITK.GetImageFromArray((case.made.organ + 1 * case.made.tumor).astype(np.uint8).T)
    predicted.CopyInformation(image)
    (tmp_path / "predicted").mkdir()
    SimpleITK.WriteImage(predicted, str(tmp_path / "predicted" / "a.nii.gz"))
    result = evaluate(dataset / "labelsTr", tmp_path / "predicted", tumor_label=2)
    assert result["tumors"]["label 2"]["cases"]["a"]["dsc"] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda hu, affine: (hu[:-1], affine), "sees .* voxels, not"),
        (lambda hu, affine: (hu, affine * [[1.1], [1], [1], [1]]), "elsewhere"),
        (lambda hu, affine: (hu, affine + np.eye(4)[[3, 1, 2, 3]] * [[1], [0], [0], [0]]), "elsewhere"),
        (lambda hu, affine: (hu + np.float32(1), affine), "other values in slice 0"),
        (lambda hu, affine: (hu[:, :, ::-1], affine), "other values"),
    ],
)
def test_every_difference_is_said(case, change, said):
    scan = read_ct(case.folder / "ct.nii")
    assert difference_for_simpleitk(case.folder / "ct.nii", scan.hu, scan.affine) == ""
    assert re.search(said, difference_for_simpleitk(case.folder / "ct.nii", *change(scan.hu, scan.affine)))
