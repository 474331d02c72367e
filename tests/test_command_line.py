"""Options with choices: they are shown, others are refused, and the parsers stay light."""

import subprocess
import sys

import pytest

from nnunet_difftumor.cli import env
from nnunet_difftumor.cli.main import main
from nnunet_difftumor.synthesis.look.preset import SIZES
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.look.realistic import ORGANS

WITH_CHOICES = {
    ("prepare", "-d", "1", "--preset"): PRESETS,
    ("synthesize", "ct", "--organ-mask", "mask", "-o", "out", "--preset"): PRESETS,
    ("synthesize", "ct", "--organ-mask", "mask", "-o", "out", "--size"): SIZES,
}


@pytest.mark.parametrize(("words", "choices"), WITH_CHOICES.items(), ids=["prepare", "synthesize", "size"])
def test_another_value_is_refused_with_all_choices(capsys, words, choices):
    with pytest.raises(SystemExit) as stop:
        main([*words, "best"])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert f"{words[-1]} best is unknown, expected " in error
    assert all(choice in error.rpartition("expected")[2] for choice in choices)


MISTAKES = {
    "synthesise": "difftumor: VERB synthesise is unknown; did you mean synthesize?",
    "train_autoencoder -d 3": "difftumor: VERB train_autoencoder is unknown; did you mean train-autoencoder?",
    "--versoin": "difftumor: there is no option --versoin; did you mean --version?",
    "nonsense": "VERB nonsense is unknown, expected convert, prepare, ",
    "convert": "difftumor convert: missing: NAME; `difftumor convert --help` says what there is",
    "convert folders -i x": "difftumor convert: NAME folders is unknown; did you mean folder?",
    "convert folder -i x": "missing: -d/--dataset-id, --labels; `difftumor convert folder --help` says what there is",
    "convert folder -i x -d 3 --labels liver=1 --overwrit x": "x: more than is asked for",
    "convert folder -i x -d 3 --labels liver=1 --labelsname y": "no option --labelsname; did you mean --labels-name?",
    "prepare": "difftumor prepare: missing: -d/--dataset-id; `difftumor prepare --help` says what there is",
    "prepare -d abc": "prepare: -d/--dataset-id is 'abc', expected a whole number; `difftumor prepare --help`",
    "prepare -d 3 --preset realistc": "--preset realistc is unknown; did you mean realistic?",
    "prepare -d 3 --spacing 1 1": "--spacing: expected 3 arguments",
    "prepare -d 3 --patch-size 96 96 x": "--patch-size is 'x', expected a whole number",
    "synthesize ct.nii.gz --orgn liver": "there is no option --orgn; did you mean --organ?",
    "synthesize ct.nii.gz --size smal": "--size smal is unknown; did you mean small?",
    "synthesize ct.nii.gz --organ-label one": "--organ-label is 'one', expected a whole number",
    "synthesize one two three": "difftumor synthesize: two three: more than is asked for",
    "synthesize ct.nii.gz --contrast-hu": "--contrast-hu: expected at least one argument",
    "synthesize ct.nii.gz --seed=x": "--seed is 'x', expected a whole number",
    "synthesize ct.nii.gz --s 1": "ambiguous option: --s could match --size, --spacing, ",
    "synthesize ct.nii.gz --fast --exact": "--exact: not allowed with argument --fast",
    "preview -d 3 --sweeps": "there is no option --sweeps; did you mean --sweep?",
    "evaluate truth": "difftumor evaluate: missing: PRED; ",
    "monitor": "difftumor monitor: missing: RUN; ",
    "train-diffusion -d 3 --preset": "--preset: expected one argument",
    "doctor --fixx": "there is no option --fixx; did you mean --fix?",
}


@pytest.mark.parametrize(("words", "said"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_one_line_that_says_what_to_type(capsys, words, said):
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert said in error and error.rstrip().endswith(("?", "says what there is"))


def test_without_a_verb_the_verbs_are_listed(capsys):
    assert main([]) == 2
    assert "put synthetic tumors into a CT scan" in capsys.readouterr().err


def test_quiet_prints_errors_only(capsys):
    assert main(["env", "--quiet"]) == 0 and capsys.readouterr().out == ""
    assert main(["export", "nowhere", "--quiet"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("difftumor export: ") and "nowhere" in said.err


def test_a_log_file_gets_the_output_of_every_command(tmp_path, capsys):
    log = tmp_path / "log.txt"
    assert main(["env", "--log-file", str(log)]) == 0
    printed = capsys.readouterr().out
    assert main(["export", "--quiet", "--log-file", str(log), "nowhere"]) == 2
    error = capsys.readouterr().err
    first, command, second, last = log.read_text().splitlines()
    assert first.endswith(f"difftumor env --log-file {log}") and second.endswith("nowhere")
    assert f"{command}\n" == printed and f"{last}\n" == error

    assert main(["env", "--log-file", str(tmp_path / "none" / "log.txt")]) == 2
    assert "--log-file" in capsys.readouterr().err


def test_of_progress_a_log_file_gets_the_last_state(tmp_path, monkeypatch):
    def run(_):
        for step in range(5):
            print(f"\rstep {step}", end="", file=sys.stderr)
        print(file=sys.stderr)
        print("begun", end="")

    monkeypatch.setattr(env, "run", run)
    assert main(["env", "--log-file", str(tmp_path / "log.txt")]) == 0
    assert (tmp_path / "log.txt").read_text().splitlines()[1:] == ["step 4", "begun"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_shells_complete_verbs_and_options(capsys, tmp_path, shell):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("preprocess-generative", "organ-mask", "log-file"))
    if shell == "bash":
        (tmp_path / "script").write_text(script)
        complete = "source ./script; COMP_WORDS=(difftumor synthesize --organ-m); COMP_CWORD=2; _shtab_difftumor; "
        done = subprocess.run(
            ["bash", "-c", complete + 'echo "${COMPREPLY[@]}"'], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.stdout.strip() == "--organ-mask", done.stderr


def test_help_of_organ_names_the_organs_that_have_tumors_of_their_own(capsys):
    with pytest.raises(SystemExit):
        main(["synthesize", "--help"])
    text = " ".join(capsys.readouterr().out.partition("--organ NAME ")[2].partition("--organ-label")[0].split())
    assert "shapes, contrast and growth" in text
    assert all(name in text for name in ORGANS)


@pytest.mark.parametrize("words", [["--help"], ["prepare", "--help"], ["synthesize", "--help"]])
def test_help_does_not_import_torch(words):
    code = f"import sys\nfrom nnunet_difftumor.cli.main import main\ntry: main({words})\n"
    code += "finally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: difftumor"), done.stderr
