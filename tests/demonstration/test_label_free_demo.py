"""`difftumor demo` with a healthy scan and nothing else."""

import json

import nibabel as nib
import numpy as np
import pytest

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.ct import scan_from_array, write_ct, write_labels
from nnunet_difftumor.dataset_conversion.phantom import phantom_case

SPACING_MM = (8.0, 6.0, 6.0)


@pytest.mark.long
def test_demo_with_one_healthy_scan_is_label_free_and_tested_on_synthetic_tumors(tmp_path, capfd):
    hu, labels = phantom_case(3, spacing_mm=SPACING_MM, lesions=0)
    z, y, x = SPACING_MM
    scan = scan_from_array(hu, affine=np.diag([-x, -y, z, 1.0]))
    write_ct(tmp_path / "scans" / "mine" / "ct.nii.gz", hu, scan, description=None)
    write_labels(tmp_path / "scans" / "mine" / "labels.nii.gz", labels, scan)
    out = tmp_path / "out"
    main(["demo", "--data", str(tmp_path / "scans"), "--out", str(out), "--epochs", "1", "--iterations-per-epoch", "2"])
    printed = capfd.readouterr().out
    assert "-tr nnUNetTrainerDiffTumorLabelFreeDemo" in printed
    log = next((out / "logs").glob("*_nnUNetv2_train.log")).read_text()
    assert "not real ones" in log and "Mean Validation Dice" in log
    (summary,) = (out / "nnUNet_results").rglob("validation/summary.json")
    validation = json.loads(summary.read_text())
    assert "synthetic tumors" in validation["difftumor_validation"] and validation["foreground_mean"]["n_ref"] > 0

    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["test_cases"] == ["mine_small", "mine_medium"] and manifest["tested_on_training_cases"]
    table = (out / "table.txt").read_text()
    assert "SYNTHETIC TUMORS in the test cases" in table and "TRAINED ON THE SCAN" in table
    for case in manifest["test_cases"]:
        truth = np.asarray(nib.load(out / "test_cases" / "labels" / f"{case}.nii.gz").dataobj)
        assert np.any(truth == 2)
        assert nib.load(out / "predictions" / "trained" / f"{case}.nii.gz").shape == truth.shape
    assert (out / "predictions.png").stat().st_size > 5_000
