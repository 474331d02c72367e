"""`difftumor synthesize` and `reconstruct` on DICOM, MetaImage and NRRD."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import tiny_networks
from dicom_series import AXIAL, ORIGIN_MM, save_dicom
from scans import SPACING_XYZ, body, content, files_below

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.ct import read_ct
from nnunet_difftumor.evaluation.reconstruction import reconstruct

DIFFTUMOR = Path(sys.executable).with_name("difftumor")
SPACING_MM = SPACING_XYZ[::-1]
OPTIONS = ["--organ", "liver", "--organ-label", "1", "--size", "tiny", "--count", "1"]


def itk_image(values: np.ndarray) -> SimpleITK.Image:
    """On the grid of the series."""
    image = SimpleITK.GetImageFromArray(values)
    image.SetSpacing(SPACING_XYZ)
    image.SetOrigin(ORIGIN_MM)
    return image


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """A study with an overview, and the same scan as ct.nrrd; the mask as liver.mha."""
    folder = tmp_path_factory.mktemp("scans")
    hu, labels = (array.T for array in body())
    save_dicom(folder / "study" / "abdomen", hu, spacing_mm=SPACING_MM, number=2)
    save_dicom(folder / "study" / "overview", hu[:1], number=1, axes=AXIAL[::-1])
    SimpleITK.WriteImage(itk_image(hu.astype(np.int16)), str(folder / "ct.nrrd"))
    SimpleITK.WriteImage(itk_image(labels), str(folder / "liver.mha"))
    return folder


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_a_study_gets_tumors_as_nifti_and_again_from_its_manifest(scans, tmp_path, capsys):
    words = ["synthesize", scans / "study", "--organ-mask", scans / "liver.mha"]
    command = [DIFFTUMOR, *words, *OPTIONS, "-o", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "NOTE: taken is series 2 of 40 slices, 48 x 46 voxels" in done.stdout and "series 1 (" in done.stdout
    assert files_below(tmp_path / "out") == {
        *("ct.nii.gz", "tumor_mask.nii.gz", "labels.nii.gz"),
        *("preview.png", "report.html", "manifest.json"),
    }
    before, after = read_ct(scans / "study"), read_ct(tmp_path / "out" / "ct.nii.gz")
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-4)
    mask = np.asarray(nib.load(tmp_path / "out" / "tumor_mask.nii.gz").dataobj).T == 1
    assert 0 < (after.hu != before.hu).sum() < 20 * mask.sum() and (after.hu != before.hu)[mask].mean() > 0.9
    assert run(*words, *OPTIONS, "-o", tmp_path / "out") == 0
    assert capsys.readouterr().out.endswith("finished before\n")
    assert run(*words, "--from-spec", tmp_path / "out" / "manifest.json", "-o", tmp_path / "again") == 0
    assert "the same voxels" in capsys.readouterr().out
    # The same scan in another format gets the same tumors.
    words[1] = scans / "ct.nrrd"
    assert run(*words, *OPTIONS, "-o", tmp_path / "nrrd") == 0
    one, other = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("out", "nrrd"))
    assert one["outputs"] == other["outputs"] and one["inputs"]["ct"]["file"] == "study"
    assert [note for note in one["notes"] if note not in other["notes"]] == [before.note]


def test_a_folder_of_cases_may_hold_any_of_them(scans, tmp_path, capsys):
    cases = tmp_path / "cases"
    for name in ("a", "b", "c"):
        (cases / name).mkdir(parents=True)
        shutil.copy(scans / "liver.mha", cases / name)
    shutil.copytree(scans / "study", cases / "a" / "study")
    shutil.copy(scans / "ct.nrrd", cases / "b")
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(scans / "ct.nrrd")), str(cases / "c" / "ct.mha"))
    words = ["synthesize", cases, "--organ-mask", "liver.nii.gz", *OPTIONS, "-o", tmp_path / "out"]
    assert run(*words) == 0
    assert all((tmp_path / "out" / name / "manifest.json").is_file() for name in ("a", "b", "c"))
    assert run(*words) == 0
    assert capsys.readouterr().out.count("finished before") == 3
    # A study without its mask is missing one, beside cases that have theirs.
    (cases / "a" / "liver.mha").unlink()
    assert run(*words) == 2
    assert f"1 organ masks are missing, the first is {cases / 'a' / 'liver.nii.gz'}" in capsys.readouterr().err


def test_a_folder_of_files_may_hold_any_format(scans, tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    shutil.copy(scans / "ct.nrrd", tmp_path / "images" / "x_0000.nrrd")
    shutil.copy(scans / "liver.mha", tmp_path / "masks" / "x.mha")
    words = [tmp_path / "images", "--organ-mask", tmp_path / "masks", *OPTIONS, "-o", tmp_path / "out"]
    assert run("synthesize", *words) == 0
    assert (tmp_path / "out" / "x" / "ct.nii.gz").is_file()


def test_anonymous_results_do_not_name_the_files_of_a_study(scans, tmp_path, capsys):
    patient = tmp_path / "DOE_JOHN"
    shutil.copytree(scans / "study", patient / "DOE_JOHN_1")
    shutil.copy(scans / "liver.mha", patient)
    words = ["synthesize", "--anonymous", *OPTIONS, "--organ-mask"]
    assert run(*words, patient / "liver.mha", patient, "-o", tmp_path / "one") == 0
    (tmp_path / "cases").mkdir()
    shutil.move(patient, tmp_path / "cases")
    damaged = shutil.copytree(tmp_path / "cases" / "DOE_JOHN", tmp_path / "cases" / "DOE_JANE")
    (damaged / "DOE_JOHN_1" / "abdomen" / "007_2.dcm").unlink()
    assert run(*words, "liver.mha", tmp_path / "cases", "-o", tmp_path / "several") == 1
    said = capsys.readouterr().out
    assert "1 of 2 scans failed" in said and "and a slice of case_" in said and "lie 5.00 mm apart" in said
    for folder in ("one", "several"):
        assert all(b"DOE" not in data for name, data in content(tmp_path / folder).items() if name.endswith("json"))
    assert "DOE" not in said


def test_results_are_not_written_into_the_folder_of_a_study(scans, tmp_path, capsys):
    shutil.copytree(scans / "study", tmp_path / "study")
    words = ["synthesize", tmp_path / "study", "--organ-mask", scans / "liver.mha", *OPTIONS]
    for output in (tmp_path / "study", tmp_path / "study" / "out"):
        assert run(*words, "-o", output) == 2
        assert "which holds the scan; choose another folder" in capsys.readouterr().err


def test_an_autoencoder_is_checked_on_a_study(scans, tmp_path, monkeypatch):
    monkeypatch.setattr(reconstruct, "_likely_wrong", lambda *_, **__: [])  # a network that has learned nothing
    weights = tiny_networks.write_weights(tmp_path / "weights", "liver_early")
    description = weights / "autoencoder.json"
    smaller = json.loads(description.read_text()) | {"source": {"settings": {"patch_size": [24, 24, 24]}}}
    description.write_text(json.dumps(smaller))
    hu, labels = (array.T for array in body())
    save_dicom(tmp_path / "study", hu[14:26, 0:12, 14:26], spacing_mm=SPACING_MM)
    SimpleITK.WriteImage(itk_image(labels[14:26, 0:12, 14:26]), str(tmp_path / "liver.nrrd"))
    words = ["--organ-mask", tmp_path / "liver.nrrd", "--weights", weights, "--save-ct", "-o", tmp_path / "out"]
    assert run("reconstruct", tmp_path / "study", *words) == 0
    record = json.loads((tmp_path / "out" / "reconstruction.json").read_text())
    assert record["inputs"]["ct"]["file"] == "study" and record["notes"] == []
    made = read_ct(tmp_path / "out" / "reconstruction.nii.gz")
    np.testing.assert_allclose(made.affine, read_ct(tmp_path / "study").affine, atol=1e-4)
