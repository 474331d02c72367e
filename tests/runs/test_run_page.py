"""The page of a training, from what lies in its folder."""

import json

import numpy as np
import pytest
from browser import check_page, chromium
from matplotlib.image import imsave
from synthetic_runs import write_epoch

from nnunet_difftumor.files import write_json
from nnunet_difftumor.runs.page import write_page
from nnunet_difftumor.runs.run_record import run_path

MODEL = "nnUNetTrainerDiffTumor__nnUNetPlansDiffTumor__3d_fullres"


@pytest.fixture
def fold(tmp_path):
    folder = tmp_path / "Dataset003_Liver" / MODEL / "fold_0"
    write_json(run_path(folder, 0), {"version": "1", "trainer": "nnUNetTrainerDiffTumor", "fold": 0})
    for epoch in range(40):
        write_epoch(folder, epoch, refused={"large: <no room>": 3})
    return folder


def test_what_is_there_is_shown_and_what_is_missing_left_out(fold):
    assert write_page(fold) is None
    text = (fold / "report.html").read_text()
    assert "40 epochs, the last 30" in text and "Validation" not in text and "<img" not in text
    assert (
        "nnUNetv2_predict -i INPUT_FOLDER -o OUTPUT_FOLDER -d 3 -c 3d_fullres -f 0 -tr nnUNetTrainerDiffTumor" in text
    )

    mean = {"1": {"Dice": 0.9567}, "2": {"Dice": float("nan")}}
    summary = {"difftumor_validation": "SYNTHETIC", "mean": mean, "foreground_mean": {"Dice": 0.5}}
    (fold / "validation").mkdir()
    (fold / "validation" / "summary.json").write_text(json.dumps(summary))
    write_json(fold / "difftumor.json", {"preset": "realistic"})
    imsave(fold / "progress.png", np.zeros((300, 2400, 3)))
    assert write_page(fold) is None
    text = (fold / "report.html").read_text()
    assert "0.957" in text and "nan" not in text and "SYNTHETIC" in text and "realistic" in text
    assert text.count("<img") == 1


def test_no_page_is_worth_a_training(tmp_path):
    problem = write_page(tmp_path / "Dataset003_Liver" / MODEL / "fold_0")
    assert "report.html could not be written (FileNotFoundError" in problem


@pytest.mark.slow
def test_in_a_browser(fold):
    imsave(fold / "progress.png", np.zeros((300, 2400, 3)))
    assert write_page(fold) is None
    with chromium() as browser:
        check_page(browser, fold / "report.html")
