"""Whoever stops a command, and when: the same command again makes what it would have made undisturbed."""

import json
import signal
from pathlib import Path

import pytest
from commands_that_write import make_inputs
from kill_totals import RESULT, table
from trials import SIGNALS, VERBS, Trials, moments, trials_of


@pytest.fixture(scope="session")
def trials(nnunet_folders, prepared_phantom, tmp_path_factory):
    inputs = make_inputs(tmp_path_factory.mktemp("inputs"))
    made: dict[str, Trials] = {}

    def of(verb: str) -> Trials:
        if verb not in made:
            made[verb] = trials_of(verb, inputs, tmp_path_factory.mktemp("interrupted") / "trial")
        return made[verb]

    return of


# Of `prepare`, what an interruption leaves is made on purpose in preparation/test_interrupted_prepare.py.
@pytest.mark.slow(file_seconds=70)
@pytest.mark.parametrize(
    "verb", [pytest.param(verb, marks=pytest.mark.long) if verb == "prepare" else verb for verb in VERBS]
)
def test_a_command_that_is_killed_by_each_signal_in_turn_ends_well(trials, verb):
    trial = trials(verb)
    kills = [(number, *moments(verb, number, count=1, until_s=trial.seconds)) for number in SIGNALS]
    assert not trial.killed_and_run_again(kills)[1]


@pytest.mark.long
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("verb", VERBS)
def test_a_command_that_is_killed_at_any_moment_ends_well(trials, verb, number):
    trial = trials(verb)
    times = moments(verb, number, count=20, until_s=trial.seconds)
    assert not [fault for after_s in times for fault in trial.killed_and_run_again([(number, after_s)])[1]]


@pytest.mark.long
@pytest.mark.parametrize("verb", VERBS)
def test_a_command_that_is_killed_twice_ends_well(trials, verb):
    trial = trials(verb)
    pairs = zip(*(moments(verb, 100 + turn, count=5, until_s=trial.seconds) for turn in range(2)), strict=True)
    kills = [[(signal.SIGKILL, after_s) for after_s in pair] for pair in pairs]
    assert not [fault for both in kills for fault in trial.killed_and_run_again(both)[1]]


def test_the_page_has_the_stored_totals():
    page = Path(__file__).parents[2] / "docs" / "security.md"
    assert table(json.loads(RESULT.read_text())["totals"]) in page.read_text()
