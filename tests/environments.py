"""Throw-away virtual environments for tests: they see the packages of the running one, and need no download."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

# What the running shell may have set, and what must not leak into a test of a fresh environment.
_SETTINGS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "DIFFTUMOR_NO_AUTOLOAD", "nnUNet_extTrainer")


class Environment:
    """A virtual environment in `folder` whose packages are its own plus, behind them, those of the running one.

    The .pth files of the running environment are not read: an installation of this project there stays unseen, apart
    from its metadata.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        self.python = folder / "bin" / "python"
        self.site_packages = Path(
            self.run("import sysconfig; print(sysconfig.get_paths()['purelib'])").stdout.strip()
        ).resolve()
        (self.site_packages / "zz_running_environment.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        self.fresh_files = self.files()

    def run(self, code: str, *, check: bool = True, cwd: str | os.PathLike = "/", **variables: str):
        """Runs Python code; returns the completed process with stdout and stderr as text."""
        return self.call([self.python, "-c", code], check=check, cwd=cwd, **variables)

    def call(self, command: list, *, check: bool = True, cwd: str | os.PathLike = "/", **variables: str):
        environment = {key: value for key, value in os.environ.items() if key not in _SETTINGS} | variables
        done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True)
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def pip(self, *arguments: str | os.PathLike) -> None:
        self.call([self.python, "-m", "pip", *arguments], DIFFTUMOR_NO_AUTOLOAD="1")

    def files(self) -> set[str]:
        """All files but bytecode, relative to the environment's folder."""
        return {
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }


def copy_of_sources(folder: Path) -> Path:
    """A copy of the repository's working tree in `folder`, so that building leaves no trace in the repository."""
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "__pycache__", "build", "dist", "site", "*.egg-info", "demo_out", ".*_cache", ".hypothesis"
    )
    return Path(shutil.copytree(REPOSITORY, folder, ignore=ignored))
