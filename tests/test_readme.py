"""Commands exist as README and docs write them, the README's quick ones run, and its table is that of the presets."""

import argparse
import importlib
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from nnunet_difftumor.cli.main import VERBS, main
from nnunet_difftumor.dataset_conversion import CONVERTERS
from nnunet_difftumor.synthesis.preset import SIZE_BANDS_MM
from nnunet_difftumor.synthesis.presets import PRESETS
from nnunet_difftumor.synthesis.realistic import ORGANS
from nnunet_difftumor.trainers import TRAINERS

LIVER = ORGANS["liver"]
REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text()
PAGES = [README, *(page.read_text() for page in sorted((REPOSITORY / "docs").glob("*.md")))]


def commands(*names: str, pages: Sequence[str] = PAGES) -> list[list[str]]:
    """Words of the lines in fenced shell blocks that begin with one of the names."""
    blocks = re.findall(r"^```sh\n(.*?)^```", "\n".join(pages), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True)) and words[0] in names]


def as_id(words: list[str]) -> str:
    return " ".join(words)[:60]


def parse(words: list[str]) -> argparse.Namespace:
    """A `difftumor` line; SystemExit where verb or options do not exist."""
    module = importlib.import_module(f"nnunet_difftumor.cli.{words[1]}")
    parser = argparse.ArgumentParser(prog=" ".join(words[:2]))
    module.add_arguments(parser)
    return parser.parse_args(words[2:])


def test_every_fenced_block_is_shell():
    assert set(re.findall(r"^```(\w*)", README, re.MULTILINE)) == {"sh", ""}


def test_links_lead_to_pages_that_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert "docs/healthy_cts.md" in links
    for link in links:
        assert (REPOSITORY / link).is_file()


@pytest.mark.parametrize("words", commands("difftumor"), ids=as_id)
def test_difftumor_line_parses(words):
    assert words[1] in VERBS
    parse(words)


def test_a_line_with_an_unknown_option_would_not_parse():
    with pytest.raises(SystemExit):
        parse(["difftumor", "prepare", "-d", "3", "--no-such-option"])


@pytest.mark.parametrize("words", commands("nnUNetv2_train", "nnUNetv2_predict"), ids=as_id)
def test_nnunet_line_parses_and_names_a_trainer_of_ours(words, monkeypatch):
    class ParsedError(Exception):
        pass

    def stop(parsed):
        raise ParsedError(parsed)

    parse_args = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda self: stop(parse_args(self, words[1:])))
    if words[0] == "nnUNetv2_train":
        from nnunetv2.run.run_training import run_training_entry as entry
    else:
        from nnunetv2.inference.predict_from_raw_data import predict_entry_point as entry
    with pytest.raises(ParsedError) as caught:
        entry()
    parsed = caught.value.args[0]
    assert parsed.tr in TRAINERS
    assert parsed.p == "nnUNetPlansDiffTumor"


@pytest.mark.parametrize("words", commands("make"), ids=as_id)
def test_make_line_names_a_target_and_variables_of_the_makefile(words):
    makefile = (REPOSITORY / "Makefile").read_text()
    assert f"\n{words[1]}: " in makefile
    for assignment in words[2:]:
        assert re.search(rf"^{assignment.partition('=')[0]} \?=", makefile, re.MULTILINE)


def test_every_verb_and_converter_but_no_other_is_in_the_table():
    cells = re.findall(
        r"^\| (`[^|]*) \|", README.partition("## What there is")[2].partition("trainer (")[0], re.MULTILINE
    )
    words = {word.split()[0] for cell in cells for word in re.findall(r"`([^`]+)`", cell)}
    assert words - {"difftumor"} == {*VERBS, *CONVERTERS} - {"folder"}


def test_trainers_that_are_named_exist():
    named = set(re.findall(r"`(nnUNetTrainerDiffTumor\w*)`", README))
    assert named <= set(TRAINERS)
    for ending in re.findall(r"`(_\d+epochs)`", README):
        assert {f"{trainer}{ending}" for trainer in named} <= set(TRAINERS)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_table_gives_the_presets_own_figures(name):
    preset = PRESETS[name]
    row = next(line for line in README.splitlines() if line.startswith(f"| `{name}`"))
    diameters, mix, contrast, share = (cell.strip() for cell in row.split("|")[3:7])

    def interval(size: str) -> str:
        low, high = (f"{2 * radius:g}" for radius in preset.sizes[size].radius_mm)
        return low if low == high else f"{low}-{high}"

    assert diameters == ", ".join(interval(size) for size in SIZE_BANDS_MM)
    assert mix == ", ".join(f"{100 * preset.weights[size]:g}" for size in SIZE_BANDS_MM)
    assert share == f"{preset.probability:g}"
    if name == "realistic":
        low, high = LIVER.enhancement
        assert contrast.startswith(f"{100 * (1 - high):.0f} to {100 * (1 - low):.0f} % (liver)")
        assert f"{100 * LIVER.hyperdense:.0f} % brighter" in contrast


def test_pictures_are_there_and_small():
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)
    assert pictures
    for picture in pictures:
        assert 10_000 < (REPOSITORY / picture).stat().st_size < 300_000


@pytest.mark.slow
def test_quick_lines_run_on_the_phantom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    convert = next(words for words in commands("difftumor", pages=[README]) if words[1:3] == ["convert", "phantom"])
    synthesize = next(words for words in commands("difftumor", pages=[README]) if words[1] == "synthesize")
    few = ["--cases", "1", "--tumor-cases", "0", "--spacing", "3", "3", "3"]
    for words in ([*convert, *few], synthesize):
        assert main([os.path.expandvars(word) for word in words[1:]]) == 0
    made = {path.name for path in (tmp_path / "synthetic").iterdir()}
    assert made == {"ct.nii.gz", "tumor_mask.nii.gz", "labels.nii.gz", "preview.png", "manifest.json"}
