"""Options: the same in every verb, mistakes in a line each, old names, logs, completion; and the parsers stay light."""

import argparse
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import REPOSITORY

from nnunet_difftumor.cli import env, synthesize
from nnunet_difftumor.cli.main import VERBS, main, module_name, with_options
from nnunet_difftumor.cli.parser import Parser
from nnunet_difftumor.synthesis.look.preset import SIZES
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.look.realistic import ORGANS

DIFFTUMOR = Path(sys.executable).with_name("difftumor")
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
    "convert folder -i": "convert folder: -i/--input: expected one argument; `difftumor convert folder --help`",
    "convert folder --inputs x -d 3 --labels liver=1": "there is no option --inputs; did you mean --input?",
    "convert folder -i x -d 3 --labels liver": "--labels: 'liver': expected NAME=VALUE or NAME=VALUE,VALUE, such as ",
    "convert healthy -i x -d 3 --organs liver --layout btvc": "--layout btvc is unknown; did you mean btcv?",
    "convert lits -i x -d 3 --dryrun": "there is no option --dryrun; did you mean --dry-run?",
    "convert msd -i x -d 3 -np 0": "convert msd: -np/--processes is 0, expected at least 1; `difftumor convert msd --h",
    "convert phantom -i x -d 3": "there is no option -i; `difftumor convert phantom --help` says what there is",
    "convert phantom -d 0": "difftumor convert phantom: -d/--dataset-id is 0, expected at least 1; ",
    "prepare -d": "difftumor prepare: -d/--dataset-id: expected one argument; ",
    "prepare -d -3": "difftumor prepare: -d/--dataset-id is -3, expected at least 1; ",
    "prepare -d 3 --healthy x": "difftumor prepare: --healthy is 'x', expected a whole number; ",
    "prepare -d 3 --out x": "difftumor prepare: there is no option --out; `difftumor prepare --help`",
    "prepare -d 3 --recipe hu": "--recipe hu is unknown, expected difftumor, scaling, hu2023; ",
    "check -d 3 -np few": "difftumor check: -np/--processes is 'few', expected a whole number; ",
    "check -d 3 --against": "difftumor check: --against: expected at least one argument; ",
    "preview -d 3 -c": "difftumor preview: -c/--configuration: expected one argument; ",
    "synthesize ct.nii.gz --device gpu": "--device gpu is unknown, expected auto, cpu, cuda; ",
    "synthesize ct.nii.gz --output": "difftumor synthesize: -o/--out: expected one argument; ",
    "synthesize ct.nii.gz --outputs x": "there is no option --outputs; did you mean --out?",
    "synthesize ct.nii.gz --sed 3": "there is no option --sed; did you mean --seed?",
    "replay run --sample -1": "difftumor replay: --sample is -1, expected at least 0; ",
    "train-autoencoder -d 3 --patch-size 96 96": "train-autoencoder: --patch-size: expected 3 arguments; ",
    "train-diffusion -d 3 --organ liver --stage erly": "--stage erly is unknown; did you mean early?",
    "reconstruct ct.nii.gz": "difftumor reconstruct: missing: -o/--out; ",
    "evaluate gt pred --tumor-label 2 --dataset-json x": "--dataset-json: not allowed with argument --tumor-label; ",
    "postprocess pred -o": "difftumor postprocess: -o/--out: expected one argument; ",
    "export": "difftumor export: missing: MODEL_FOLDER; ",
    "export model --dry-ran": "there is no option --dry-ran; did you mean --dry-run?",
    "demo --epochs few": "difftumor demo: --epochs is 'few', expected a whole number; ",
    "doctor --fix --unfix": "difftumor doctor: --unfix: not allowed with argument --fix; ",
    "completion bsh": "difftumor completion: shell bsh is unknown; did you mean bash?",
    "env --quite": "difftumor env: there is no option --quite; did you mean --quiet?",
    "env --log-file": "difftumor env: --log-file: expected one argument; `difftumor env --help`",
}
# With nothing but empty folders and a text file: none is not there.
WRONG_PLACES = {
    "convert folder -i none -d 3 --labels liver=1": "/none: no such folder; expected one with a sub-folder for each",
    "convert folder -i file.txt -d 3 --labels liver=1": "/file.txt: is no folder; expected one with a sub-folder for",
    "convert folder -i empty -d 3 --labels liver=1": "/empty: has no sub-folders; expected one for each case, with ct",
    "convert lits -i file.txt -d 3": "/file.txt: is no folder; expected that of LiTS, with volume-N.nii",
    "convert kits23 -i none -d 3 --dry-run": "/none: no such folder; expected that of KiTS, with case_NNNNN folders",
    "convert msd -i none -d 3": "/none: no such folder; expected the extracted folder of a task, such as Task03_Liver",
    "convert healthy -i file.txt -d 3 --organs liver": "/file.txt: is no folder; expected one with a sub-folder",
    "prepare -d 3": "-d 3: expected one Dataset003_NAME in nnU-Net's folders, found none; `difftumor convert`",
    "preview -d 3": "-d 3: expected one Dataset003_NAME in ",
    "check -d 3": "-d 3: expected one Dataset003_NAME in nnU-Net's folders, found none; `difftumor convert`",
    "synthesize none.nii.gz --organ-mask m.nii.gz -o out": "none.nii.gz: no such file; expected a CT scan as .nii.gz",
    "synthesize file.txt --organ-mask m.nii.gz -o out": "file.txt: expected a CT scan as one file (.nii.gz, .nii, ",
    "synthesize ct.nii.gz --organ-mask m -o out --dry-run": "--dry-run: for a lesion bank only; add --bank, or leave",
    "synthesize --bank -d 3": "--per-case is missing; tumors in a scan need CT --organ-mask MASK -o FOLDER, a lesion",
    "synthesize --bank -d 3 --per-case 1 --count 2": "--count: not with --bank: organs, preset, sizes and contrast",
    "replay none --sample 1": "/none/synthesis_log/run_rank_0.json: not found; expected the folder of a fold trained",
    "monitor file.txt": "file.txt/synthesis_log: not found; expected the folder of a fold that is or was trained",
    "preprocess-generative -d 3 --unlabelled file.txt": "file.txt: is no folder; give one with image files (.nii.gz",
    "train-autoencoder -d 3": "found none; run `difftumor preprocess-generative -d 3` first",
    "train-autoencoder -d 3 --settings none.yaml": "none.yaml: cannot be read (",
    "import-weights none.ckpt": "none.ckpt: no such file; give files of weights (.ckpt, .pt or .safetensors)",
    "import-weights empty": "empty: is a folder; give files of weights (.ckpt, .pt or .safetensors)",
    "evaluate none empty": "none: no such folder; expected a folder of label maps (.nii.gz, .nii, .mha or ",
    "evaluate empty file.txt": "file.txt: is no folder; expected a folder of label maps (.nii.gz, .nii, .mha or ",
    "postprocess file.txt -o out --organ-label 1": "file.txt: is no folder; expected a folder of label maps (.nii.gz, ",
    "export none --dry-run": "/none: expected a model folder of nnU-Net (TRAINER__PLANS__CONFIGURATION), but there is",
    "demo --data file.txt": "--data file.txt: is no folder; expected one with a sub-folder for each case",
    "evaluate empty empty --seed -1": "--seed is -1, expected at least 0",
    "demo --seed -1": "--seed is -1, expected at least 0",
    "demo --labels liver": "--labels 'liver': expected NAME=VALUE or NAME=VALUE,VALUE, such as kidney=2,3, or NAME= if",
    "env --log-file none/log.txt": "--log-file none/log.txt: cannot be written (No such file or directory); name a",
}


@pytest.mark.parametrize(("words", "said"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_one_line_that_says_what_to_type(capsys, words, said):
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert said in error and error.rstrip().endswith(("?", "says what there is"))


@pytest.mark.parametrize(("words", "said"), WRONG_PLACES.items(), ids=WRONG_PLACES)
def test_a_wrong_place_is_one_line_that_says_what_belongs_there(tmp_path, monkeypatch, capsys, words, said):
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        (tmp_path / name).mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(words.split()) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and printed.err.startswith(f"difftumor {words.split()[0]}: ")
    assert said in printed.err and printed.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def options_of_verbs() -> list[tuple[str, argparse.Action]]:
    """Every option of every verb and converter."""
    found = []
    for verb in VERBS:
        parser = Parser(prog=verb)
        importlib.import_module(f"nnunet_difftumor.cli.{module_name(verb)}").add_arguments(parser)
        parsers = [parser]
        while parsers:
            parser = parsers.pop()
            for action in parser._actions:
                if isinstance(action, argparse._SubParsersAction):
                    parsers += action.choices.values()
                elif action.option_strings and action.dest != "help":
                    found.append((parser.prog, action))
    return found


def test_an_option_is_the_same_in_every_verb_that_has_it():
    different = {
        "--organ": {"metavar"},  # a name, or the values of organ and tumor
        "--labels": {"metavar", "type"},  # of `demo` none may be without values, and they are handed on as they are
        "--out": {"metavar", "dest"},  # FILE or FOLDER
        "--tumor-label": {"nargs"},  # those that are there, or the one to be
        "--preset": {"choices"},  # of tumors, or of a training
    }
    first: dict[str, tuple[str, argparse.Action]] = {}
    for verb, action in options_of_verbs():
        long = [name for name in action.option_strings if name.startswith("--")]
        assert len(long) == 1, f"{verb}: {action.option_strings} have no long name, or several"
        other, same = first.setdefault(long[0], (verb, action))
        alike = {"option_strings", "metavar", "nargs", "choices", "dest", "type"} - different.get(long[0], set())
        for what in alike:
            assert getattr(action, what) == getattr(same, what), f"{long[0]}: {what} of {verb} and of {other}"
        if action.nargs != 0 and action.choices is None:
            assert action.metavar is not None, f"{verb}: {long[0]} says no word for its value"


@pytest.mark.parametrize("word", ["--output", "--outpu", "--output=x"])
def test_an_old_name_works_and_is_said_once(word, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["export", "nowhere", word, *(() if "=" in word else ("x",)), "--output", "y"]
    assert main(words) == 2
    note, error = capsys.readouterr().err.splitlines()
    assert note == "difftumor export: --output is now --out; the old name works until 0.3"
    assert "nowhere" in error
    assert main(["export", "nowhere", "--ou", "x"]) == 2  # abbreviated, as before
    assert capsys.readouterr().err.count("\n") == 1


def test_after_two_hyphens_nothing_is_an_option(capsys):
    assert main(["export", "--", "--output"]) == 2
    assert "/--output: expected a model folder" in capsys.readouterr().err


def test_the_installed_command_takes_an_old_name_and_no_page_has_it(tmp_path):
    done = subprocess.run(
        [DIFFTUMOR, "convert", "phantom", "-d", "3", "--dry-run", "--cases", "1", "--tumor-cases", "0"],
        env={**os.environ, "nnUNet_raw": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "" and not list(tmp_path.iterdir())
    done = subprocess.run([DIFFTUMOR, "export", "nowhere", "--output", "x"], capture_output=True, text=True)
    assert done.returncode == 2 and "--output is now --out;" in done.stderr
    for words in (["export", "--help"], ["completion", "bash"]):
        done = subprocess.run([DIFFTUMOR, *words], capture_output=True, text=True)
        assert "--out" in done.stdout and "--output" not in done.stdout
    pages = [*(REPOSITORY / "docs").glob("*.md"), REPOSITORY / "README.md"]
    assert not [page.name for page in pages if re.search(r"difftumor [^`\n]*--output|`--output`", page.read_text())]


def test_errors_of_the_library_name_the_options_of_the_verb():
    parser = Parser(prog="difftumor synthesize")
    synthesize.add_arguments(parser)
    said = with_options("`organ_label` 3, `output`, `dataset_id`, `spacing_mm`, `no_option`", parser)
    assert said == "--organ-label 3, -o, -d, --spacing, `no_option`"


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
