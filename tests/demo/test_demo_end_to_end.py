"""`difftumor demo` from scans to scores, on coarse phantoms, with two iterations of training."""

import json

import nibabel as nib
import numpy as np
import pytest

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.ct import scan_from_array, write_ct, write_labels
from nnunet_difftumor.dataset_conversion.phantom import phantom_case

SPACING_MM = (8.0, 6.0, 6.0)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    z, y, x = SPACING_MM
    for name, lesions in (("healthy", 0), ("ill", 2)):
        hu, labels = phantom_case(3, spacing_mm=SPACING_MM, lesions=lesions)
        scan = scan_from_array(hu, affine=np.diag([-x, -y, z, 1.0]))
        write_ct(folder / name / "ct.nii.gz", hu, scan, description=None)
        write_labels(folder / name / "labels.nii.gz", labels, scan)
    return folder


@pytest.mark.slow
def test_demo_runs_from_scans_to_scores_and_then_keeps_what_is_done(scans, tmp_path, capfd, monkeypatch):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    out = tmp_path / "out"
    call = ["demo", "--data", str(scans), "--out", str(out), "--epochs", "1", "--iterations-per-epoch", "2"]
    status = main(call)
    printed = capfd.readouterr().out

    manifest = json.loads((out / "manifest.json").read_text())
    dice = manifest["scores"]["dice"]
    raised = [dice["trained"][name] > dice["untrained"][name] for name in ("foreground", "liver_tumor")]
    assert status == int(not all(raised))
    assert ("FAILED" in printed) == bool(status)
    assert set(dice["trained"]) == {"liver", "liver_tumor", "foreground"}

    assert manifest["test_cases"] == ["ill"] and manifest["tested_on_training_cases"]
    assert "TRAINED ON THE CASES THAT IT IS TESTED ON" in printed
    assert (out / "table.txt").read_text() in printed
    assert "[1/8]" in printed and "[8/8]" in printed
    assert "$ nnUNetv2_train 2 3d_fullres 0 -tr nnUNetTrainerDiffTumorDemo" in printed

    truth = np.asarray(nib.load(scans / "ill" / "labels.nii.gz").dataobj)
    predicted = {n: np.asarray(nib.load(out / "predictions" / n / "ill.nii.gz").dataobj) for n in dice}
    for network, label_map in predicted.items():
        overlap = 2 * np.sum((label_map == 1) & (truth == 1)) / (np.sum(label_map == 1) + np.sum(truth == 1))
        assert dice[network]["liver"] == pytest.approx(overlap)
    assert not np.array_equal(predicted["untrained"], predicted["trained"])

    for size in ("tiny", "small", "medium", "large"):
        assert (out / "synthetic" / size / "preview.png").stat().st_size > 5_000
    for picture in ("predictions.png", "training_samples.png"):
        assert (out / picture).stat().st_size > 5_000
    script = (out / "commands.sh").read_text()
    assert script.count("\nnnUNetv2_predict ") == 2 and f"export nnUNet_raw={out}/nnUNet_raw" in script
    assert list(scans.glob("*/*")) == list(scans.glob("*/*.nii.gz"))

    assert main(call) == status
    again = capfd.readouterr().out
    assert "$ " not in again and again.count("done before") == 8
