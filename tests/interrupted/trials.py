"""A command is killed, perhaps more than once, and run again: what lies there then, and what was said."""

import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from zlib import crc32

import numpy as np
from commands_that_write import Command, commands
from folder_contents import contents, differences, hidden
from kills import Ended, run

VERBS = ("synthesize", "synthesize folder", "convert", "prepare", "bank", "export", "import-weights")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# A signal, and the seconds after which it is sent.
Kill = tuple[int, float]


@dataclass(frozen=True)
class Trials:
    """A command, and what it makes undisturbed; made by `trials_of`.

    Attributes:
        verb: its name.
        inputs: of all commands.
        folder: for what it writes, which is made again for each trial.
        expected: contents.
        seconds: that it takes.
    """

    verb: str
    inputs: Path
    folder: Path
    expected: dict
    seconds: float

    def run(self, kill: Kill | None = None) -> Ended:
        return run(self._command, self.folder.with_suffix(".log"), kill=kill)

    def start_again(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        # nnU-Net's own folders are there.
        (self.folder / "out" if self._command.variables else self.folder).mkdir(parents=True)

    def killed_and_run_again(self, kills: list[Kill]) -> tuple[list[Ended], list[str]]:
        """Kills the command, as often as is said, then lets it run; returns how it ended, and what was wrong."""
        self.start_again()
        ended = [self.run(kill) for kill in kills]
        again = self.run()
        wrong = [f"run again, it ended with {again.status}: {again.said}"] if again.status else []
        wrong += [f"other content: {name}" for name in differences(contents(self.folder), self.expected)]
        wrong += [f"left: {name}" for name in hidden(self.folder)]
        for (number, _), one in zip(kills, ended, strict=True):
            if one.status not in {0, -number} | ({128 + number} if number != signal.SIGKILL else set()):
                wrong.append(f"ended with {one.status}: {one.said}")
            wrong += [f"said {one.said}"] if "Traceback" in one.said else []
            wrong += [f"outlived by {worker}" for worker in one.outlived_by]
        return ended, [f"{self.verb}, {kills}: {one}" for one in wrong]

    @property
    def _command(self) -> Command:
        return commands(self.inputs, self.folder / "out")[self.verb]


def trials_of(verb: str, inputs: Path, folder: Path) -> Trials:
    """Runs a command undisturbed, to compare with."""
    first = Trials(verb, inputs, folder, {}, 0)
    first.start_again()
    done = first.run()
    assert done.status == 0, done
    return Trials(verb, inputs, folder, contents(folder), done.seconds)


def moments(verb: str, stream: int, *, count: int, until_s: float) -> list[float]:
    """Seconds after which a command is killed, nearly the same in every run for the same `until_s`."""
    rng, first_s = np.random.default_rng([crc32(verb.encode()), stream]), _start_of_python_s()
    return rng.uniform(first_s, max(until_s, 2 * first_s), count).tolist()


@cache
def _start_of_python_s() -> float:
    """Before, Python itself answers to signals; on a busy machine it takes long to start."""
    times = []
    for _ in range(5):
        start = time.monotonic()
        subprocess.run([sys.executable, "-c", "import nnunet_difftumor"], check=True)
        times.append(time.monotonic() - start)
    return max(times)
