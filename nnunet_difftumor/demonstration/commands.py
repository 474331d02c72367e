"""Runs commands of demo and experiments, as a user would type them: shown, logged, and noted for a shell script."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.installation import trainer_folders
from nnunet_difftumor.nnunet_folders import FOLDER_VARIABLES

_TAIL_LINES = 25


class CommandFailedError(RuntimeError):
    """A command failed; `status` is its exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def nnunet_variables(folder: Path) -> dict[str, str]:
    """What the commands need beyond the caller's environment: nnU-Net's folders, and processes for few cores.

    Args:
        folder: gets nnUNet_raw, nnUNet_preprocessed and nnUNet_results.
    """
    folders = {name: str(folder / name) for name in FOLDER_VARIABLES}
    processes = str(max(1, min(4, (os.cpu_count() or 1) // 2)))
    return {
        **folders,
        "nnUNet_extTrainer": trainer_folders(),
        "nnUNet_n_proc_DA": processes,
        "nnUNet_def_n_proc": str(max(1, min(4, os.cpu_count() or 1))),
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait are slow where cores are few
    }


class Commands:
    """Runs commands with nnU-Net's variables set.

    Args:
        variables: added to the environment.
        log_folder: gets each command's full output, one file per command.
        keep_open: file descriptors that the commands keep, so that a lock lasts until the last of them has ended.
    """

    def __init__(self, variables: Mapping[str, str], log_folder: Path, *, keep_open: Sequence[int] = ()) -> None:
        self.variables, self._log_folder, self._keep_open = dict(variables), log_folder, tuple(keep_open)
        self.done: list[list[str]] = []

    def of(self, step: Callable[[], None]) -> list[list[str]]:
        """Does a step; returns the commands that it ran."""
        self.done = []
        step()
        return self.done

    def run(self, *command: object, show: str | None = None) -> None:
        """Runs a command and prints what it says.

        Args:
            command: name and arguments, such as `"difftumor", "prepare", "-d", 3`.
            show: regular expression; only lines that it finds are printed, its first group if there is one. None:
                every line.

        Raises:
            CommandFailedError: with the last lines of the output.
            KeyboardInterrupt: after the command has ended too.
        """
        words = [str(word) for word in command]
        print(f"  $ {shlex.join(words)}", flush=True)
        self._log_folder.mkdir(parents=True, exist_ok=True)
        log_path = self._log_folder / f"{len(list(self._log_folder.iterdir())) + 1:02d}_{_short_name(words)}.log"
        lines: list[str] = []
        environment = os.environ | self.variables | {"PYTHONUNBUFFERED": "1"}
        with (
            open(log_path, "w", buffering=1, encoding="utf-8") as log,
            subprocess.Popen(
                [*_executable(words[0]), *words[1:]],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                pass_fds=self._keep_open,
            ) as process,
        ):
            try:
                for line in process.stdout:
                    log.write(line)
                    lines.append(line.rstrip())
                    shown = _shown(lines[-1], show)
                    if shown:
                        print(f"      {shown}", flush=True)
            except BaseException:
                # Who was interrupted by a signal of its own has not passed it on.
                process.terminate()
                process.wait()
                raise
        if process.returncode:
            tail = "\n".join(f"      {line}" for line in lines[-_TAIL_LINES:])
            raise CommandFailedError(
                f"exit status {process.returncode} from: {shlex.join(words)}\n{tail}\n(all of it: {log_path})",
                process.returncode,
            )
        self.done.append(words)


def shell_script(variables: Mapping[str, str], commands: Sequence[Sequence[str]]) -> str:
    """The commands for a POSIX shell, with the variables that they need."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join(["set -e", *exports, *(shlex.join(command) for command in commands)]) + "\n"


def _executable(name: str) -> list[str]:
    if name == "difftumor":
        return [sys.executable, "-m", "nnunet_difftumor.cli.main"]
    beside_python = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    found = shutil.which(name, path=beside_python)
    if found is None:
        raise InputError(
            f"{name}: not found beside {sys.executable} nor on PATH; install nnU-Net: pip install nnunetv2"
        )
    return [found]


def _short_name(words: Sequence[str]) -> str:
    return "_".join(re.sub(r"\W+", "", word) for word in words[: 2 if words[0] == "difftumor" else 1])


def _shown(line: str, show: str | None) -> str:
    if show is None:
        return line
    match = re.search(show, line)
    if match is None:
        return ""
    # nnU-Net prints its figures as numpy writes them for programmers: np.float32(0.5)
    return re.sub(r"np\.float\d+\(([^)]*)\)", r"\1", match[1] if match.re.groups else line)
