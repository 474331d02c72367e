"""`difftumor demo` from scans to scores: the installed command, on a healthy scan and one with metastases."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from browser import check_page, chromium
from scipy.ndimage import find_objects

# Label values of the liver with its tumors; voxels kept around it.
LIVER = {"abdomen_3mm": [5], "liver_tumors": [1, 2]}
MARGIN = 5
# One voxel of so many along x, y and z: about 3 mm, of slices of 1.6 mm and pixels of 0.57 mm as well.
STRIDE = {"abdomen_3mm": (1, 1, 1), "liver_tumors": (5, 5, 2)}


@pytest.fixture(scope="module")
def scans(test_data, tmp_path_factory):
    """The livers with what is around them, at about 3 mm, so that the demo takes minutes."""
    folder = tmp_path_factory.mktemp("scans")
    for name, (x, y, z) in STRIDE.items():
        (folder / name).mkdir()
        ct, labels = (nib.load(test_data / name / f"{file}.nii.gz").slicer[::x, ::y, ::z] for file in ("ct", "labels"))
        (box,) = find_objects(np.isin(labels.get_fdata(), LIVER[name]).astype(np.uint8))
        around = tuple(slice(max(0, side.start - MARGIN), side.stop + MARGIN) for side in box)
        ct.slicer[around].to_filename(folder / name / "ct.nii.gz")
        labels.slicer[around].to_filename(folder / name / "labels.nii.gz")
    (folder / "abdomen_3mm" / "label_map.json").write_text('{"liver": 5}')
    return folder


def demo(scans, out, *more: str) -> subprocess.CompletedProcess:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")}
    command = Path(sys.executable).with_name("difftumor")
    options = ["--data", scans, "--out", out, "--epochs", "2", "--iterations-per-epoch", "80", *more]
    return subprocess.run([command, "demo", *options], env=variables, text=True, capture_output=True)


@pytest.mark.slow(file_seconds=170)
def test_demo_raises_the_dice_on_real_ct_and_then_keeps_what_is_done(scans, tmp_path):
    out = tmp_path / "out"
    pictures = demo(scans, out, "--no-training")
    assert pictures.returncode == 0 and "[3/3]" in pictures.stdout, pictures.stderr
    assert f"{out}/synthetic/large/report.html" in pictures.stdout and not (out / "manifest.json").exists()
    done = demo(scans, out)
    printed = done.stdout
    assert done.returncode == 0, printed + done.stderr

    manifest = json.loads((out / "manifest.json").read_text())
    dice = manifest["scores"]["dice"]
    assert all(dice["trained"][name] > dice["untrained"][name] for name in ("foreground", "liver_tumor"))
    assert set(dice["trained"]) == {"liver", "liver_tumor", "foreground"}

    assert manifest["test_cases"] == ["liver_tumors"] and manifest["tested_on_training_cases"]
    assert "TRAINED ON THE CASES THAT IT IS TESTED ON" in printed
    assert (out / "table.txt").read_text() in printed
    assert printed.count("done before") == 3 and "[1/8]" in printed and "[8/8]" in printed
    assert "$ nnUNetv2_train 2 3d_fullres 0 -tr nnUNetTrainerDiffTumorDemo" in printed

    truth = np.asarray(nib.load(scans / "liver_tumors" / "labels.nii.gz").dataobj)
    predicted = {n: np.asarray(nib.load(out / "predictions" / n / "liver_tumors.nii.gz").dataobj) for n in dice}
    for network, label_map in predicted.items():
        overlap = 2 * np.sum((label_map == 1) & (truth == 1)) / (np.sum(label_map == 1) + np.sum(truth == 1))
        assert dice[network]["liver"] == pytest.approx(overlap)
    assert not np.array_equal(predicted["untrained"], predicted["trained"])

    for size in ("tiny", "small", "medium", "large"):
        assert (out / "synthetic" / size / "preview.png").stat().st_size > 5_000
    for picture in ("predictions.png", "training_samples.png"):
        assert (out / picture).stat().st_size > 5_000
    page = (out / "report.html").read_text()
    assert (
        "TRAINED ON THE CASES" in page and page.count("<img") == 6 and f"{dice['trained']['liver_tumor']:.3f}" in page
    )
    with chromium() as browser:
        check_page(browser, out / "report.html")
        check_page(browser, out / "synthetic" / "small" / "report.html")
    script = (out / "commands.sh").read_text()
    assert script.count("\nnnUNetv2_predict ") == 2 and f"export nnUNet_raw={out}/nnUNet_raw" in script
    assert sorted(path.name for path in scans.glob("liver_tumors/*")) == ["ct.nii.gz", "labels.nii.gz"]

    again = demo(scans, out)
    assert again.returncode == 0 and "$ " not in again.stdout and again.stdout.count("done before") == 8
