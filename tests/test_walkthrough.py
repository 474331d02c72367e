"""The commands of docs/cpu_walkthrough.md, in their order and as they are printed, on fewer and coarser phantoms.

nnU-Net's two commands, which take half an hour there, are left to tests of trainings: the truth stands in for what they
would predict.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import REPOSITORY, blocks

SMALLER = {
    "--cases 4 --tumor-cases 8": "--cases 1 --tumor-cases 2",
    "--cases 1 --tumor-cases 2 --spacing 5 4 4 --seed 1": "--cases 0 --tumor-cases 1 --spacing 6 5 5 --seed 1",
    "5 4 4": "6 5 5",
}
TRUTH_AS_PREDICTED = """
cp -r $nnUNet_raw/Dataset005_Phantom/labelsTr predicted
cp $nnUNet_raw/Dataset005_Phantom/dataset.json predicted/
"""


@pytest.mark.slow(file_seconds=40)
def test_the_walkthrough_goes_from_files_to_figures(tmp_path):
    script = "".join(blocks(REPOSITORY / "docs" / "cpu_walkthrough.md", "sh")).replace("\\\n", " ")
    for printed, smaller in SMALLER.items():
        assert printed in script, printed
        script = script.replace(printed, smaller)
    script, trainings = re.subn(r"^nnUNetv2_train .*$", "", script, flags=re.MULTILINE)
    script, predictions = re.subn(r"^nnUNetv2_predict .*$", TRUTH_AS_PREDICTED, script, flags=re.MULTILINE)
    assert (trainings, predictions) == (1, 1)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "all well" in done.stdout
    (tumors,) = json.loads((tmp_path / "evaluation.json").read_text())["tumors"].values()
    assert tumors["summary"]["dsc"]["value"] == 1.0
