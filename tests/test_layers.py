"""`make lint` sees imports that go up, also in the folders that are mapped into the package."""

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from environments import REPOSITORY, copy_of_sources

CONTRACTS = REPOSITORY / "pyproject.toml"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The package as pip installs it."""
    folder = tmp_path_factory.mktemp("layers")
    sources = copy_of_sources(folder / "sources")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", folder / "installed", sources], check=True)
    return folder / "installed"


def lint(folder: Path) -> subprocess.CompletedProcess:
    script = Path(sys.executable).with_name("lint-imports")
    words = [script, "--no-logo", "--no-cache", CONTRACTS]
    return subprocess.run(words, cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True)


@pytest.mark.slow(file_seconds=20)
@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        (None, "", None),
        ("kernels/checks.py", "from nnunet_difftumor.generative.stages import STAGES", "Imports go down only"),
        ("generative/stages.py", "from nnunet_difftumor.synthesis.spec import TumorSpec", "Imports go down only"),
        ("pipeline/orphans.py", "from nnunet_difftumor.trainers import TRAINERS", "Imports go down only"),
        ("prepared/roles.py", "from nnunet_difftumor.pipeline.sources import Outcome", "Imports go down only"),
        ("generative/stages.py", "import nnunetv2", "Kernels and generative models run without nnU-Net"),
        ("synthesis/spec.py", "from nnunet_difftumor.synthesis.patch import Patch", "No circles"),
    ],
)
def test_imports_that_go_up_or_round_are_seen(installed, tmp_path, module, line, broken):
    package = shutil.copytree(installed, tmp_path / "installed") / "nnunet_difftumor"
    if module is not None:
        with open(package / module, "a") as file:
            file.write(f"\n{line}\n")
    done = lint(package.parent)
    assert done.returncode == (1 if broken else 0), done.stdout + done.stderr
    assert (f"{broken} BROKEN" in done.stdout) == bool(broken)


def test_no_folder_is_a_hall(installed):
    """More than 14 modules in a folder are more than one idea; each verb of the command line has a file."""
    folders = [path for path in (installed / "nnunet_difftumor").rglob("*") if path.is_dir()]
    assert len(folders) > 20
    for folder in folders:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= 14 or folder.name == "cli", folder


def test_no_two_helper_modules_share_a_name():
    """pytest imports helpers of tests by their bare names, in one process with the scripts of benchmarks/."""
    modules = [*(REPOSITORY / "tests").rglob("*.py"), *(REPOSITORY / "benchmarks").glob("*.py")]
    names = Counter(path.stem for path in modules if path.stem != "conftest" and not path.stem.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []
