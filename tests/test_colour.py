"""Colour on terminals, and nowhere else: what a user sees who runs the installed command."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_difftumor.cli.main import main

DIFFTUMOR = Path(sys.executable).with_name("difftumor")
RED, YELLOW, GREEN, PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"
ERROR = f"{RED}difftumor export:{PLAIN} "


def on_a_terminal(*words: str, **variables: str) -> str:
    """What a command prints whose output is a terminal."""
    names = ("NO_COLOR", "FORCE_COLOR", "TERM")
    environment = {key: value for key, value in os.environ.items() if key not in names}
    ours, theirs = pty.openpty()
    environment |= {"TERM": "xterm", **variables}
    with subprocess.Popen([DIFFTUMOR, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment):
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 4096):
                said += part
        except OSError:  # how Linux says that the other side has closed it
            pass
    os.close(ours)
    return said.decode().replace("\r\n", "\n")


def test_a_terminal_gets_the_verb_in_red_and_the_note_in_yellow():
    note, error = on_a_terminal("export", "nowhere", "--output", "x").splitlines()
    assert note == f"{YELLOW}difftumor export:{PLAIN} --output is now --out; the old name works until 0.3"
    assert error.startswith(ERROR)
    assert on_a_terminal("export", "--nothing").startswith(ERROR)


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}])
def test_there_are_ways_to_have_none(variables):
    assert "\x1b" not in on_a_terminal("export", "nowhere", **variables)


def test_empty_variables_say_nothing():
    assert on_a_terminal("export", "nowhere", NO_COLOR="", FORCE_COLOR="").startswith(ERROR)


@pytest.fixture(autouse=True)
def no_wishes(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_terminal_there_is_none_unless_it_is_asked_for(monkeypatch, capsys):
    assert main(["export", "nowhere"]) == 2
    assert "\x1b" not in capsys.readouterr().err
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["export", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith(ERROR)


def test_a_log_file_never_has_any(tmp_path, monkeypatch, capsys):
    log = tmp_path / "log.txt"
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["export", "nowhere", "--log-file", str(log)]) == 2
    assert capsys.readouterr().err.startswith(ERROR)
    assert "\x1b" not in log.read_text() and "difftumor export: " in log.read_text()


def test_findings_are_in_colours(monkeypatch, capsys):
    from nnunet_difftumor.cli import check, doctor
    from nnunet_difftumor.installation.finding import Finding

    monkeypatch.setenv("FORCE_COLOR", "1")
    found = [Finding("ok", "good"), Finding("problem", "bad", "fix it"), Finding("note", "so so")]
    monkeypatch.setattr(doctor, "findings", lambda: found)
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{GREEN}ok{PLAIN}       good",
        f"{RED}problem{PLAIN}  bad. To do: fix it",
        f"{YELLOW}note{PLAIN}     so so",
    ]
    lines = ["ERROR case: bad", "WARNING case: odd", "NOTE unseen", "      NOTE: of prepare", "NOTEs of others"]
    monkeypatch.setattr(check, "run", lambda args: [args.say(line) for line in lines] and 0)
    assert main(["check", "-d", "3"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{RED}ERROR{PLAIN} case: bad",
        f"{YELLOW}WARNING{PLAIN} case: odd",
        f"{YELLOW}NOTE{PLAIN} unseen",
        f"      {YELLOW}NOTE{PLAIN}: of prepare",
        "NOTEs of others",
    ]
