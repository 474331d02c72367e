"""Works on all runs of an experiment: one after another, or some at a time in processes of their own."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from nnunet_difftumor.demonstration.commands import CommandFailedError
from nnunet_difftumor.experiments.runs import Run
from nnunet_difftumor.experiments.started import PLAN_FILE
from nnunet_difftumor.experiments.working import work

_LOOK_S = 0.2
_OUTPUT = "output.log"
_TAIL_LINES = 25


def work_on_all(runs: Sequence[Run], output: Path, *, jobs: int, report: Callable[[str], None]) -> None:
    """Does every run that is not finished.

    Args:
        runs: of the experiment.
        output: of the experiment, absolute.
        jobs: runs at the same time.
        report: gets lines.

    Raises:
        InputError, CommandFailedError: of the first run that failed; those that run then are waited for.
    """
    left = [run for run in runs if not run.evaluation.is_file()]
    if len(left) < len(runs):
        report(f"{len(runs) - len(left)} of {len(runs)} runs are finished, and kept")
    if jobs > 1 and len(left) > 1:
        _Jobs(output, jobs, report).work(left)
        return
    for number, run in enumerate(left, 1):
        report(f"[{number}/{len(left)}] {run.name}")
        work(run, report=report)


class _Jobs:
    """Runs as processes of this command with --run."""

    def __init__(self, output: Path, jobs: int, report: Callable[[str], None]) -> None:
        self.output, self.jobs, self.report = output, jobs, report
        self.working: dict[str, subprocess.Popen] = {}
        self.failed: list[tuple[Run, int]] = []

    def work(self, runs: Sequence[Run]) -> None:
        waiting = list(runs)
        try:
            while self.working or (waiting and not self.failed):
                while waiting and not self.failed and len(self.working) < self.jobs:
                    self._start(waiting.pop(0), len(runs) - len(waiting), len(runs))
                self._look({run.name: run for run in runs})
                time.sleep(_LOOK_S)
        finally:
            for process in self.working.values():
                process.terminate()
            for process in self.working.values():
                process.wait()
        if self.failed:
            run, status = self.failed[0]
            path = run.folder / _OUTPUT
            tail = path.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
            raise CommandFailedError("\n".join([f"{run.name} failed:", *tail, f"(all of it: {path})"]), status)

    def _start(self, run: Run, number: int, total: int) -> None:
        self.report(f"[{number}/{total}] {run.name}")
        run.folder.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "nnunet_difftumor.cli.main", "experiment", self.output / PLAN_FILE]
        words += ["-o", self.output, "--run", run.name]
        with open(run.folder / _OUTPUT, "ab") as log:
            self.working[run.name] = subprocess.Popen(list(map(str, words)), stdout=log, stderr=subprocess.STDOUT)

    def _look(self, runs: dict[str, Run]) -> None:
        for name, process in list(self.working.items()):
            if process.poll() is None:
                continue
            del self.working[name]
            if process.returncode:
                self.failed.append((runs[name], process.returncode))
            else:
                self.report(f"finished: {name}")
