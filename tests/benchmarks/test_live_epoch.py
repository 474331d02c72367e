"""The benchmark of live training: its phantoms, and that it runs to its end without SimpleITK."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pages import REPOSITORY

from nnunet_difftumor.dataset_conversion import phantom

BENCHMARKS = REPOSITORY / "benchmarks"
WITHOUT_SIMPLEITK = {**os.environ, "PYTHONPATH": str(BENCHMARKS / "stand_ins")}


@pytest.fixture(scope="module")
def module():
    """Imports a module of benchmarks/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module


def test_it_says_where_it_hangs(module, capsys):
    with module("live_epoch").saying(lambda: "waits for batch 3 of 40", every_s=0.05):
        time.sleep(0.3)
    assert "waits for batch 3 of 40\n" * 2 in capsys.readouterr().out


@pytest.mark.slow
def test_phantoms_are_those_of_convert_and_read_by_nibabel(module, raw):
    coarse = (8.0, 8.0, 8.0)
    made = module("phantom_dataset").write_phantoms(601, cases=2, spacing_mm=coarse)
    expected = phantom.convert(602, cases=2, tumor_cases=2, spacing_mm=coarse)
    assert json.loads((made / "dataset.json").read_text())["overwrite_image_reader_writer"] == "NibabelIO"
    files = sorted(path.relative_to(expected) for path in expected.glob("*Tr/*"))
    assert len(files) == 8 and files == sorted(path.relative_to(made) for path in made.glob("*Tr/*"))
    for file in files:
        ours, theirs = nib.load(made / file), nib.load(expected / file)
        assert np.array_equal(ours.dataobj, theirs.dataobj)
        # Where a phantom lies in space decides nothing; how its axes lie does.
        assert np.array_equal(ours.affine[:3, :3], theirs.affine[:3, :3])


def test_phantoms_of_another_voxel_size_are_refused(module, tmp_path):
    live_epoch = module("live_epoch")
    folder = tmp_path / "preprocessed" / live_epoch.DATASET
    folder.mkdir(parents=True)
    (folder / "difftumor.json").write_text("{}")
    plans = {"configurations": {"3d_fullres": {"spacing": [2.0, 2.0, 2.0]}}}
    (folder / "nnUNetPlansDiffTumor.json").write_text(json.dumps(plans))
    with pytest.raises(ValueError, match="name another folder"):
        live_epoch.prepared(tmp_path, live_epoch.SMALL)


def test_the_stand_in_raises_for_whatever_is_asked_of_it():
    code = "import SimpleITK\nfor name in ('ReadImage', 'Image', 'sitkUInt8'):\n    getattr(SimpleITK, name)"
    asked = subprocess.run(
        [sys.executable, "-c", code], env=WITHOUT_SIMPLEITK, capture_output=True, text=True, check=False
    )
    assert "RuntimeError: SimpleITK.ReadImage: SimpleITK is not here" in asked.stderr


@pytest.mark.long
def test_it_runs_without_simpleitk_also_with_phantoms_that_were_carried(tmp_path):
    made = small_run(tmp_path / "made")
    assert "makes and prepares phantoms, after 10 s" in made
    shutil.move(tmp_path / "made", tmp_path / "carried")
    shutil.rmtree(tmp_path / "carried" / "raw")
    assert "phantom_000" not in small_run(tmp_path / "carried")


def small_run(folder: Path) -> str:
    """Its output, after it has held its bars."""
    command = [sys.executable, BENCHMARKS / "live_epoch.py", "--small", "--runs", "1", "--workers", "1"]
    done = subprocess.run(
        [*command, "--folder", folder],
        env=WITHOUT_SIMPLEITK,
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "held   0 tumors refused by the server" in done.stdout
    return done.stdout
