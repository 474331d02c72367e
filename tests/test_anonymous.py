"""`--anonymous`: whatever scans are called on disk and in their headers is nowhere in results and messages."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tiny_networks

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.ct.anonymous import anonymous_name
from nnunet_difftumor.dataset_conversion.phantom import phantom_case

SECRET = "DOE_JOHN"


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """Two patients' folders, and one without the organ; their headers name them too."""
    folder = tmp_path_factory.mktemp("scans")
    affine = np.diag([-5.0, -5.0, 6.0, 1.0])
    for number in range(3):
        patient = folder / f"{SECRET}_{number}"
        patient.mkdir()
        hu, labels = phantom_case([0, 0, number], spacing_mm=(6.0, 5.0, 5.0))
        for name, values in (("ct", hu), ("labels", labels.astype(np.uint8) * (number < 2))):
            image = nib.Nifti1Image(values.T, affine)
            image.header["descrip"] = f"{SECRET} descrip".encode()
            image.header["aux_file"] = f"{SECRET} aux".encode()
            image.header["db_name"] = SECRET.encode()
            image.header["intent_name"] = SECRET.encode()
            image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", f"{SECRET} comment".encode()))
            nib.save(image, patient / f"{name}.nii.gz")
    return folder


def told(folder: Path, *texts: str) -> list[str]:
    """Where the secret is told: names and contents of files, and texts."""
    found = [text for text in texts if SECRET in text]
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        content = gzip.decompress(content) if path.name.endswith(".gz") else content
        if SECRET in str(path.relative_to(folder)) or SECRET.encode() in content:
            found.append(str(path))
    return found


def run(*words: object) -> subprocess.CompletedProcess:
    script = Path(sys.executable).with_name("difftumor")
    return subprocess.run([script, *map(str, words)], capture_output=True, text=True)


def test_without_it_names_are_told(scans, tmp_path):
    patient = scans / f"{SECRET}_0"
    words = [patient / "ct.nii.gz", "--organ-mask", patient / "labels.nii.gz", "--organ-label", "1"]
    assert main(["synthesize", *map(str, words), "-o", str(tmp_path / "out")]) == 0
    assert told(tmp_path)


def test_convert_names_cases_after_their_content(scans, nnunet_folders):
    words = ["convert", "folder", "-i", scans, "-d", "61", "--name", "Names", "--labels", "liver=1", "kidney=3"]
    done = run(*words, "--ignore-other-labels", "--anonymous")
    raw = nnunet_folders / "raw"
    assert done.returncode == 0 and told(raw, done.stdout, done.stderr) == [], done.stdout + done.stderr
    report = json.loads((raw / "Dataset061_Names" / "conversion_report.json").read_text())
    assert sorted(report["cases"]) == sorted(
        path.name.removesuffix(".nii.gz") for path in (raw / "Dataset061_Names" / "labelsTr").iterdir()
    )
    (rejected,) = report["rejected"]
    assert "[3/3] " + rejected in done.stdout and f"file 2 of {rejected}: holds none" in report["rejected"][rejected]
    # Voxels and geometry are those of the files.
    for case in report["cases"]:
        image = nib.load(raw / "Dataset061_Names" / "imagesTr" / f"{case}_0000.nii.gz")
        originals = [nib.load(path) for path in sorted(scans.glob("*/ct.nii.gz"))]
        same = [np.array_equal(np.asarray(image.dataobj), np.asarray(other.dataobj)) for other in originals]
        assert sum(same) == 1 and np.array_equal(image.affine, originals[same.index(True)].affine)


def test_a_scan_that_is_there_twice_has_one_name(scans, nnunet_folders, tmp_path, capsys):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for file in ("ct.nii.gz", "labels.nii.gz"):
            (tmp_path / name / file).write_bytes((scans / f"{SECRET}_0" / file).read_bytes())
    words = [
        "convert",
        "healthy",
        "-i",
        str(tmp_path),
        "-d",
        "62",
        "--organs",
        "liver=1",
        "--layout",
        "totalsegmentator",
    ]
    assert main([*words, "--anonymous"]) == 2
    one, two = (tmp_path / name / "ct.nii.gz" for name in ("one", "two"))
    assert f"{two}: is the same as {one}" in capsys.readouterr().err


def test_synthesize_names_scans_after_their_content(scans, tmp_path):
    words = [scans, "--organ-mask", "labels.nii.gz", "--organ-label", "1", "-o", tmp_path / "out", "--count", "1"]
    done = run("synthesize", *words, "--anonymous")
    assert done.returncode == 1 and told(tmp_path, done.stdout, done.stderr) == [], done.stdout + done.stderr
    assert "[3/3]" in done.stdout and "the mask of case_" in done.stdout
    manifests = [json.loads(path.read_text()) for path in tmp_path.glob("out/case_*/manifest.json")]
    assert [manifest["inputs"]["ct"]["file"] for manifest in manifests] == ["anonymous"] * 2
    assert run("synthesize", *words, "--anonymous").stdout.count("finished before") == 2
    again = next(path.parent for path in tmp_path.glob("out/case_*/manifest.json"))
    (patient,) = [path for path in scans.iterdir() if again.name == anonymous_name(path / "ct.nii.gz")]
    words = [patient / "ct.nii.gz", "--organ-mask", patient / "labels.nii.gz", "-o", tmp_path / "again"]
    done = run("synthesize", *words, "--from-spec", again / "manifest.json", "--anonymous")
    assert done.returncode == 0 and "the same voxels" in done.stdout, done.stderr
    assert told(tmp_path, done.stdout) == []


def test_one_folder_is_not_both(scans, tmp_path, capsys):
    patient = scans / f"{SECRET}_0"
    words = ["synthesize", str(patient / "ct.nii.gz"), "--organ-mask", str(patient / "labels.nii.gz")]
    words += ["--organ-label", "1", "--count", "1", "-o", str(tmp_path)]
    assert main([*words, "--anonymous"]) == 0
    assert main(words) == 2
    assert "already holds the result of other settings" in capsys.readouterr().err


def test_reconstruct(scans, tmp_path):
    weights = tiny_networks.write_weights(tmp_path / "weights", "liver_early")
    description = weights / "autoencoder.json"
    smaller = json.loads(description.read_text()) | {"source": {"settings": {"patch_size": [24, 24, 24]}}}
    description.write_text(json.dumps(smaller))
    whole = nib.load(scans / f"{SECRET}_0" / "ct.nii.gz")
    nib.save(whole.slicer[30:36, 30:36, 10:15], tmp_path / f"{SECRET}.nii.gz")
    words = [tmp_path / f"{SECRET}.nii.gz", "--weights", weights, "-o", tmp_path / "out", "--save-ct"]
    done = run("reconstruct", *words, "--anonymous")
    assert done.returncode == 0 and told(tmp_path / "out", done.stdout, done.stderr) == [], done.stderr
    assert (tmp_path / "out" / "reconstruction.nii.gz").is_file()
