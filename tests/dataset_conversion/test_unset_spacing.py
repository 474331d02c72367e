"""A voxel size that was never set is refused by every converter and by synthesize, or stated by the user."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.ct import read_ct, read_labels
from nnunet_difftumor.errors import InputError

SPACING = ("--spacing", "3", "2", "2")


def save_unset(path, values, kind, *, dtype=np.int16):
    """Both codes 0 (`none`), codes 0 with the voxel size in pixdim (`pixdim`), or the unit matrix (`unit`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values.astype(dtype), np.eye(4) if kind == "unit" else None)
    if kind == "pixdim":
        image.header.set_zooms((2, 2, 3))
    nib.save(image, path)


@pytest.fixture(params=["none", "pixdim", "unit"])
def case(request, tmp_path, miniature):
    """A folder with one case, for several converters, whose headers were never set."""
    made = miniature()
    for name, values, dtype in (("ct", made.hu, np.int16), ("labels", made.organ + 0, np.uint8)):
        save_unset(tmp_path / "in" / "a" / f"{name}.nii.gz", values, request.param, dtype=dtype)
    for name, values in (("imaging", made.hu), ("segmentation", made.organ + 0)):
        save_unset(tmp_path / "kits" / "case_00001" / f"{name}.nii.gz", values, request.param)
    for name, values in (("volume", made.hu), ("segmentation", made.organ + 0)):
        save_unset(tmp_path / "lits" / f"{name}-1.nii", values, request.param)
    return tmp_path


CONVERSIONS = {
    "folder": ["folder", "-i", "in", "--labels", "liver=1"],
    "healthy": ["healthy", "-i", "in", "--organs", "liver=1", "--no-crop"],
    "kits23": ["kits23", "-i", "kits"],
    "lits": ["lits", "-i", "lits"],
}


@pytest.mark.parametrize("converter", CONVERSIONS)
def test_converters_refuse_it_or_take_what_is_stated(case, raw, capsys, monkeypatch, converter):
    monkeypatch.chdir(case)
    words = ["convert", *CONVERSIONS[converter], "-d", "7", "--name", "Unset"]
    assert main(words) == 2
    assert "so sizes in mm are unknown; correct the header, or state the voxel size: --spacing Z Y X" in (
        capsys.readouterr().err
    )
    assert main([*words, *SPACING]) == 0
    assert "the voxel size is the one that was stated" in capsys.readouterr().out
    dataset = raw / "Dataset007_Unset"
    for path in (*(dataset / "imagesTr").iterdir(), *(dataset / "labelsTr").iterdir()):
        image = SimpleITK.ReadImage(str(path))
        assert image.GetSpacing() == pytest.approx((2, 2, 3))
        ours = nib.load(path)
        np.testing.assert_allclose(np.abs(ours.affine[:3, :3]), np.diag([2, 2, 3]), atol=1e-6)
        np.testing.assert_allclose(ours.affine[:3, 3], np.multiply(image.GetOrigin(), (-1, -1, 1)), atol=1e-6)
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), np.asarray(ours.dataobj).T)


def test_synthesize_refuses_it_or_takes_what_is_stated_and_repeats_it(case, capsys):
    ct, mask = (str(case / "in" / "a" / f"{name}.nii.gz") for name in ("ct", "labels"))
    words = ["synthesize", ct, "--organ-mask", mask, "--size", "tiny", "--count", "1"]
    assert main([*words, "-o", str(case / "out")]) == 2
    assert "state the voxel size: --spacing Z Y X" in capsys.readouterr().err and not (case / "out").exists()
    assert main([*words, "-o", str(case / "out"), *SPACING]) == 0
    assert read_ct(case / "out" / "ct.nii.gz").spacing_mm == pytest.approx((3, 2, 2))
    capsys.readouterr()
    assert main([*words, "-o", str(case / "out"), *SPACING]) == 0
    assert "finished before" in capsys.readouterr().out
    assert main([*words, "-o", str(case / "out"), "--spacing", "3", "2", "1"]) == 2
    again = ["synthesize", ct, "--organ-mask", mask, "-o", str(case / "again")]
    assert main([*again, "--from-spec", str(case / "out" / "manifest.json")]) == 0
    assert "the same voxels" in capsys.readouterr().out


def test_a_header_that_was_set_is_taken_at_its_word(tmp_path, miniature):
    made = miniature()
    made.save(tmp_path / "ct.nii.gz", made.hu)
    assert read_ct(tmp_path / "ct.nii.gz", spacing_mm=(1, 1, 1)).spacing_mm == pytest.approx((3, 2, 2))


def test_a_label_map_without_a_header_does_not_fit_a_scan_that_has_one(tmp_path, miniature):
    made = miniature()
    made.save(tmp_path / "ct.nii.gz", made.hu)
    save_unset(tmp_path / "labels.nii.gz", made.organ, "none", dtype=np.uint8)
    with pytest.raises(InputError, match=r"labels\.nii\.gz: the header has no place in space .*copy the CT's header"):
        read_labels(tmp_path / "labels.nii.gz", like=read_ct(tmp_path / "ct.nii.gz"))


@pytest.mark.parametrize("stated", [("0", "1", "1"), ("1", "1", "25"), ("nan", "1", "1")])
def test_voxel_sizes_that_no_ct_has_are_refused(case, raw, capsys, monkeypatch, stated):
    monkeypatch.chdir(case)
    assert main(["convert", *CONVERSIONS["folder"], "-d", "7", "--spacing", *stated]) == 2
    assert "--spacing is (" in capsys.readouterr().err
