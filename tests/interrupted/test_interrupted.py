"""Whoever stops a command, and when: the same command again makes what it would have made undisturbed."""

import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from commands_that_write import Command, commands, make_inputs
from folder_contents import contents, differences, hidden
from kills import Ended, run

VERBS = ("synthesize", "synthesize folder", "convert", "prepare", "bank", "export", "import-weights")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# Python itself has hardly begun.
FIRST_S = 0.05


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@dataclass(frozen=True)
class Trials:
    """A command, and what it makes undisturbed.

    Attributes:
        verb: its name.
        inputs: of all commands.
        folder: for what it writes, which is made anew for each trial.
        expected: contents.
        seconds: that it takes.
    """

    verb: str
    inputs: Path
    folder: Path
    expected: dict
    seconds: float

    def start_anew(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        # nnU-Net's own folders are there.
        (self.folder / "out" if self._command.variables else self.folder).mkdir(parents=True)

    def run(self, kill: tuple[int, float] | None = None) -> Ended:
        return run(self._command, self.folder.with_suffix(".log"), kill=kill)

    @property
    def _command(self) -> Command:
        return commands(self.inputs, self.folder / "out")[self.verb]

    def killed_and_run_again(self, kills: list[tuple[int, float]]) -> list[Ended]:
        """Kills the command, as often as is said, then lets it run."""
        self.start_anew()
        ended = [self.run(kill) for kill in kills]
        again = self.run()
        about = f"{self.verb}, {kills}: {ended}, then {again}"
        assert again.status == 0, about
        assert not differences(contents(self.folder), self.expected), about
        assert not hidden(self.folder), about
        for (number, _), one in zip(kills, ended, strict=True):
            assert one.status in {0, -number} | ({128 + number} if number != signal.SIGKILL else set()), about
            assert "Traceback" not in one.said, about
        return ended


@pytest.fixture(scope="session")
def trials(nnunet_folders, prepared_phantom, inputs, tmp_path_factory):
    made: dict[str, Trials] = {}

    def of(verb: str) -> Trials:
        if verb not in made:
            folder = tmp_path_factory.mktemp("interrupted") / "trial"
            first = Trials(verb, inputs, folder, {}, 0)
            first.start_anew()
            done = first.run()
            assert done.status == 0, done
            made[verb] = Trials(verb, inputs, folder, contents(folder), done.seconds)
        return made[verb]

    return of


def moments(verb: str, number: int, count: int, until_s: float) -> list[float]:
    rng = np.random.default_rng([crc32(verb.encode()), number])
    return rng.uniform(FIRST_S, max(until_s, 2 * FIRST_S), count).tolist()


@pytest.mark.slow(file_seconds=60)
@pytest.mark.parametrize("verb", VERBS)
def test_a_command_that_is_killed_by_each_signal_in_turn_ends_well(trials, verb):
    trial = trials(verb)
    kills = [(number, *moments(verb, number, 1, trial.seconds)) for number in SIGNALS]
    trial.killed_and_run_again(kills)


@pytest.mark.long
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("verb", VERBS)
def test_a_command_that_is_killed_at_any_moment_ends_well(trials, verb, number, record_property):
    trial = trials(verb)
    times = moments(verb, number, 20, trial.seconds)
    ended = [one for after_s in times for one in trial.killed_and_run_again([(number, after_s)])]
    record_property("stopped", sum(one.status != 0 for one in ended))


@pytest.mark.long
@pytest.mark.parametrize("verb", VERBS)
def test_a_command_that_is_killed_twice_ends_well(trials, verb):
    trial = trials(verb)
    for after_s in zip(*(moments(verb, 100 + turn, 5, trial.seconds) for turn in range(2)), strict=True):
        trial.killed_and_run_again([(signal.SIGKILL, one) for one in after_s])
