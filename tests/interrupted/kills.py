"""Runs commands and ends them by signals at chosen moments, as a user, a scheduler or a lack of memory does."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from commands_that_write import DIFFTUMOR, Command

# Workers of a killed command notice at once; those of nnU-Net's own pools first end what they are at.
_WORKERS_END_S = 20
# An interrupted command waits for the cases that its workers are at.
_COMMAND_ENDS_S = 300


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: as Popen's `returncode`.
        said: on stderr.
        seconds: that it ran.
        outlived_by: workers that were still there long afterwards.
    """

    status: int
    said: str
    seconds: float
    outlived_by: list[str]


def run(command: Command, log: Path, *, kill: tuple[int, float] | None = None) -> Ended:
    """Runs a command.

    Args:
        command: what to run.
        log: file for what it says; its workers say it there too.
        kill: a signal, and the seconds after which it is sent; None: it is not disturbed. SIGINT goes to the workers
            too, as a terminal sends Ctrl-C.
    """
    start = time.monotonic()
    with open(log, "w") as file:
        process = subprocess.Popen(
            [DIFFTUMOR, *command.words],
            env=command.environment,
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,
            # Shells let what they start in the background ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        if kill is not None:
            try:
                process.wait(kill[1])
            except subprocess.TimeoutExpired:
                send = os.killpg if kill[0] == signal.SIGINT else os.kill
                send(process.pid, kill[0])
        status = process.wait(_COMMAND_ENDS_S)
        seconds = time.monotonic() - start
        left = _still_running(process.pid)
    finally:
        if process.poll() is None or _members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return Ended(status, log.read_text(), seconds, left)


def _still_running(session: int) -> list[str]:
    """What is left of a command after a while."""
    end = time.monotonic() + _WORKERS_END_S
    while (left := _members(session)) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def _members(session: int) -> list[str]:
    """Command lines of the processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has ended meanwhile
            continue
    return found
