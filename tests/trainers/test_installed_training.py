"""What a user does: install, train, predict, export, replay, uninstall, with nnU-Net's three variables and no other."""

import os
import shutil
import sys
from pathlib import Path

import nibabel as nib
import nnunetv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from environments import Environment, copy_of_sources

pytestmark = pytest.mark.slow(file_seconds=200)

TINY = "nnUNetTrainerDiffTumorTiny"


def install_editable_nnunet(environment: Environment, folder: Path) -> None:
    """nnU-Net from a clone: its package with a minimal project file."""
    shutil.copytree(Path(nnunetv2.__path__[0]), folder / "nnunetv2", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "setup.py").write_text(
        "from setuptools import find_packages, setup\n"
        "setup(name='nnunetv2', version='2.8.1', packages=find_packages(include=['nnunetv2', 'nnunetv2.*']))\n"
    )
    # Without it older versions of pip call setup.py, which does not get the setting.
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    )
    environment.pip(
        "install", "--no-deps", "--no-build-isolation", "--config-settings", "editable_mode=compat", "-e", folder
    )


def installed(folder: Path, *, editable: bool, editable_nnunet: bool = False) -> Environment:
    environment = Environment(folder / "environment")
    if editable_nnunet:
        install_editable_nnunet(environment, folder / "nnunet_clone")
    clone = copy_of_sources(folder / "clone")
    environment.pip("install", "--no-deps", "--no-build-isolation", *(["-e", clone] if editable else [clone]))
    environment.run("from nnunet_difftumor.installation.torchvision_repair import repair; repair()")
    return environment


def nnunet(environment: Environment, module: str, *arguments: str | Path, check: bool = True):
    """Runs the module behind one of nnU-Net's console scripts."""
    assert "nnUNet_raw" in os.environ
    return environment.call([environment.python, "-m", module, *arguments], check=check)


def train(environment: Environment, trainer: str = TINY, *more: str):
    return nnunet(
        environment,
        "nnunetv2.run.run_training",
        *("501", "3d_fullres", "0", "-tr", trainer, "-p", "nnUNetPlansDiffTumor", "-device", "cpu", *more),
    )


def predict(environment: Environment, entry_point: str, images: Path, output: Path, *model: str | Path):
    """What `nnUNetv2_predict` or its sister for model folders runs."""
    code = f"import sys; from nnunetv2.inference.predict_from_raw_data import {entry_point} as run; run()"
    # Without processes of its own where nnU-Net can: it cannot for model folders.
    processes = "0" if entry_point == "predict_entry_point" else "1"
    options = ("-f", "0", "-chk", "checkpoint_final.pth", "-device", "cpu", "-npp", processes, "-nps", processes)
    command = [environment.python, "-c", code, "-i", images, "-o", output, *model, *options]
    return environment.call(command, check=False)


FIND_TRAINERS = (
    "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
    f"assert find({TINY!r}).__name__ == {TINY!r} and find('nnUNetTrainer_5epochs')"
)
OF_DATASET = ("-d", "501", "-p", "nnUNetPlansDiffTumor", "-c", "3d_fullres", "-tr", TINY)


@pytest.fixture(scope="module")
def normal(tmp_path_factory, prepared_phantom) -> Environment:
    return installed(tmp_path_factory.mktemp("normal"), editable=False)


@pytest.fixture(scope="module")
def trained(normal, prepared_phantom) -> Path:
    """Model folder of a run with the installed package."""
    output = train(normal).stdout
    assert "Synthetic share: " in output and "Training done." in output and "Mean Validation Dice" in output
    return prepared_phantom.results / f"{TINY}__nnUNetPlansDiffTumor__3d_fullres"


def test_installed_package_trains_predicts_exports_and_uninstalls(normal, trained, prepared_phantom, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(prepared_phantom.raw / "imagesTr" / "phantom_tumor_000_0000.nii.gz", images)
    with_plugin = predict(normal, "predict_entry_point", images, tmp_path / "with_plugin", *OF_DATASET)
    assert with_plugin.returncode == 0, with_plugin.stderr
    normal.call([normal.folder / "bin" / "difftumor", "export", trained, "-o", tmp_path / "exported"])

    normal.pip("uninstall", "-y", "nnunet-difftumor")
    try:
        refused = predict(normal, "predict_entry_point", images, tmp_path / "refused", *OF_DATASET)
        assert "Could not find" in refused.stderr
        exported = predict(
            normal, "predict_entry_point_modelfolder", images, tmp_path / "prediction", "-m", tmp_path / "exported"
        )
        assert exported.returncode == 0, exported.stderr
        # Stock nnU-Net still finds and builds its own trainers, the ones behind a built-in walk included.
        normal.run(
            "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
            "assert find('nnUNetTrainer_5epochs').__name__ == 'nnUNetTrainer_5epochs'"
        )
    finally:
        normal.pip("install", "--no-deps", "--no-build-isolation", normal.folder.parent / "clone")
    name = "phantom_tumor_000.nii.gz"
    first, second = (nib.load(tmp_path / folder / name) for folder in ("with_plugin", "prediction"))
    assert np.array_equal(np.asarray(first.dataobj), np.asarray(second.dataobj))
    assert np.array_equal(first.affine, second.affine)


def test_replay_makes_logged_samples_again_bit_for_bit(normal, trained, tmp_path):
    import gzip
    import json

    run = trained / "fold_0"
    with gzip.open(run / "synthesis_log" / "epoch_00001_rank_0.jsonl.gz", "rt") as file:
        record = json.loads(file.readline())
    output = tmp_path / "sample"
    done = normal.call(
        [normal.folder / "bin" / "difftumor", "replay", run, "--sample", str(record["number"]), "-o", output]
    )
    assert "bit for bit" in done.stdout
    replayed = json.loads((output / "sample.json").read_text())
    assert replayed["reproduced"] is True and replayed["logged"] == record
    assert (np.asarray(nib.load(output / "target.nii.gz").dataobj) > 0).any()
    assert (output / "sample.png").stat().st_size > 1000


def test_replay_says_when_the_data_have_changed(normal, trained, prepared_phantom, copy_of_prepared_phantom, tmp_path):
    import gzip
    import json

    with gzip.open(trained / "fold_0" / "synthesis_log" / "epoch_00000_rank_0.jsonl.gz", "rt") as file:
        record = json.loads(file.readline())
    cases = copy_of_prepared_phantom / "nnUNetPlansDiffTumor_3d_fullres"
    other = next(path for path in sorted(cases.glob("*[0-9].b2nd")) if not path.name.startswith(record["case"]))
    shutil.copy(other, cases / f"{record['case']}.b2nd")
    done = normal.call(
        [normal.folder / "bin" / "difftumor", "replay", trained / "fold_0", "--sample", str(record["number"]),
         "-o", tmp_path / "sample"], check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "NOT equal" in done.stdout


@pytest.mark.long
def test_nnunet_may_be_editable_and_a_run_goes_on_where_both_are(trained, tmp_path):
    environment = installed(tmp_path, editable=False, editable_nnunet=True)
    environment.run(FIND_TRAINERS)
    environment.pip("install", "--no-deps", "--no-build-isolation", "-e", tmp_path / "clone")
    where = environment.run(
        "import nnunetv2, nnunet_difftumor; print(nnunetv2.__file__, nnunet_difftumor.__file__)"
    ).stdout
    assert "/nnunet_clone/" in where and "/clone/" in where

    # As if it had been interrupted.
    final = trained / "fold_0" / "checkpoint_final.pth"
    final.rename(final.with_name("checkpoint_latest.pth"))
    assert "Training done." in train(environment, TINY, "--c").stdout and final.is_file()

    environment.pip("uninstall", "-y", "nnunet-difftumor")
    environment.run(
        "import os; assert 'nnUNet_extTrainer' not in os.environ\n"
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        "assert 'nnunet_clone' in __import__('sys').modules[find('nnUNetTrainer_5epochs').__module__].__file__"
    )


@pytest.mark.long
def test_this_package_alone_may_be_editable(nnunet_folders, tmp_path):
    installed(tmp_path, editable=True).run(FIND_TRAINERS)
