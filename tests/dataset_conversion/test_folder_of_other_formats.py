"""`convert folder` on cases whose CT is a DICOM series, MetaImage or NRRD."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from dicom_series import ORIGIN_MM, SPACING_MM, save_dicom

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.ct import read_ct

DIFFTUMOR = Path(sys.executable).with_name("difftumor")
WORDS = ["convert", "folder", "-d", "7", "--labels", "liver=1"]


def liver_and_fat() -> tuple[np.ndarray, np.ndarray]:
    """HU and labels, (z, y, x)."""
    labels = np.zeros((8, 20, 24), np.uint8)
    labels[2:6, 5:15, 6:18] = 1
    noise = np.random.default_rng(0).integers(-15, 15, labels.shape)
    hu = np.where(labels, 100, -100) + noise
    hu[:, :2] = -1000
    return hu, labels


@pytest.fixture
def cases(tmp_path) -> Path:
    """One case of each kind; a's series lies in a sub-folder, beside an overview."""
    hu, labels = liver_and_fat()
    for case, suffix in (("a", ".nii.gz"), ("b", ".nrrd"), ("c", ".mha")):
        folder = tmp_path / "in" / case
        folder.mkdir(parents=True)
        for name, values in (("ct", hu.astype(np.int16)), ("labels", labels)):
            image = SimpleITK.GetImageFromArray(values)
            image.SetSpacing(SPACING_MM[::-1])
            image.SetOrigin(ORIGIN_MM)
            if case != "a" or name == "labels":
                SimpleITK.WriteImage(image, str(folder / f"{name}{suffix}"))
    save_dicom(tmp_path / "in" / "a" / "dicom" / "DOE_JOHN", hu, number=4)
    save_dicom(tmp_path / "in" / "a" / "dicom" / "DOE_JOHN", hu[:1], number=1)
    return tmp_path / "in"


def test_all_become_the_same_nifti(cases, raw, capsys):
    words = [DIFFTUMOR, *WORDS, "-i", cases]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and "3 cases, 0 rejected" in done.stdout, done.stderr
    assert "[1/3] a: 8 x 20 x 24 voxels of 4 x 3 x 3 mm; liver 17.3 ml; taken is series 4 of 8 slices" in done.stdout
    dataset = raw / "Dataset007_in"
    hu, labels = liver_and_fat()
    for case in ("a", "b", "c"):
        scan = read_ct(dataset / "imagesTr" / f"{case}_0000.nii.gz")
        np.testing.assert_array_equal(scan.hu, hu)
        np.testing.assert_allclose(scan.affine @ [0, 0, 0, 1], np.multiply([*ORIGIN_MM, 1], [-1, -1, 1, 1]), atol=1e-4)
        assert scan.spacing_mm == pytest.approx(SPACING_MM) and scan.header.get_data_dtype() == np.int16
        np.testing.assert_array_equal(nib.load(dataset / "labelsTr" / f"{case}.nii.gz").dataobj, labels.T)
    assert main([*WORDS, "-i", str(cases)]) == 0
    assert "finished before" in capsys.readouterr().out
    # A slice has changed.
    slices = sorted((cases / "a" / "dicom" / "DOE_JOHN").iterdir())
    slices[3].unlink()
    assert main([*WORDS, "-i", str(cases), "--overwrite"]) == 0
    assert "2 cases, 1 rejected" in capsys.readouterr().out


def test_what_cannot_be_taken_rejects_its_case_alone(cases, raw, capsys):
    damaged = cases / "a" / "dicom" / "DOE_JOHN" / "000_4.dcm"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    shutil.copy(cases / "c" / "ct.mha", cases / "b" / "ct.mha")
    assert main([*WORDS, "-i", str(cases)]) == 0
    said = capsys.readouterr().out
    assert "a: REJECTED: " in said and "000_4.dcm: is no sound DICOM file" in said
    assert "b: REJECTED: " in said and "has ct.mha, ct.nrrd, of which one was expected" in said
    assert "2 rejected" in said


def test_anonymous_cases_are_named_after_their_slices(cases, raw, capsys):
    assert main([*WORDS, "-i", str(cases), "--anonymous", "--name", "Names"]) == 0
    report = json.loads((raw / "Dataset007_Names" / "conversion_report.json").read_text())
    assert len(report["cases"]) == 3 and "DOE" not in json.dumps(report) + capsys.readouterr().out
    (noted,) = [case["note"] for case in report["cases"].values() if "note" in case]
    assert "taken is series 4" in noted and "left out: series 1 (the folder of case_" in noted
